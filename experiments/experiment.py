"""One run from config to results: train, evaluate both sets of weights, and write the run's folder."""

import logging
import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from checkpointing import weights_file
from checkpointing.tensor_files import same_tensors
from datasets.data import GeneralDataset
from datasets.split import Row, split_names
from datasets.validation import run_rows, split_text
from evaluation.rank_cut import RankCut
from evaluation.results import (
    EpochScores,
    ImageScore,
    RunResults,
    Scores,
    read_run_results,
    write_per_image,
    write_results,
)
from experiments.chosen_threshold import chosen_config, keep_config
from experiments.result_metadata import result_metadata
from experiments.scoring import score_dataset, threshold_fields
from experiments.summary import start_lines
from model import build_model, save_model
from networks.base import SegmentationModel
from networks.encoder_options import checkpoint_blocks, compile_encoder
from train import fit
from training.curves import plot_curves
from training.processes import Processes
from training.run import Progress, Run
from training.run_folder import Resume, RunFolder, decide_start
from training.signals import StoppedError, StopRequests
from training.text_log import kept_in
from utils.config import Config
from utils.determinism import deterministic, seed_everything
from utils.environment import environment_info, peak_memory_bytes
from utils.errors import ConfigError
from utils.files import write_json, write_text

log = logging.getLogger(__name__)

TrainingSets = tuple[GeneralDataset, GeneralDataset]  # for training and for validation


def train_and_evaluate(
    config: Config,
    save_path: Path,
    device: torch.device,
    resume: Resume = False,
    stop: StopRequests | None = None,
) -> RunResults:
    """Trains, evaluates on the test split, writes the run's folder, and returns the results.

    Strategy "none" trains nothing and writes no weights. Under `torchrun` all processes call this alike, and the main
    one writes.

    Args:
        config: resolved and checked.
        save_path: the final weights' file; the run's records go beside it.
        device: as `resolve_device` gave it.
        resume: True resumes the run in the folder; "auto" resumes it where there is one, returns the results of one
            that is finished, and else starts.
        stop: stop requests that the caller listens to already.

    Raises:
        UserError: the folder holds another run, or another process runs in it; data or weights that do not fit; a run
            that failed.
        StoppedError: a signal came; all finished work is kept, and `resume` continues.
    """
    training, folder = config.training, RunFolder.of(save_path)
    try:
        with (
            nullcontext(stop) if stop else StopRequests() as stop,
            deterministic(training.deterministic),
            ExitStack() as held,
        ):
            with stop.at_once("before training began"):
                processes = Processes(device, training.precision, training.accumulate_steps)
                if config.strategy != "none":
                    processes.check_batch_size(training.batch_size)
                processes.on_main(lambda: held.enter_context(folder.locked(save_path)))
                start = processes.on_main(lambda: decide_start(folder, save_path, config, resume))
            if start == "finished":
                results = read_run_results(folder.path)
            else:
                results = _Experiment(config, save_path, folder, processes, stop, start == "resume").results()
            processes.end()
            return results
    except StoppedError as error:
        raise StoppedError(f"{error} (the run is in {folder.path})") from error


@dataclass
class _Experiment:
    """The steps of one run, each taken by all processes."""

    config: Config
    save_path: Path
    folder: RunFolder
    processes: Processes
    stop: StopRequests
    resume: bool
    seconds: dict[str, float] = field(default_factory=dict)

    def results(self) -> RunResults:
        """Trains and evaluates; what is said meanwhile also goes to log.txt."""
        prepared = self._prepared()
        with kept_in(self.folder.log) if self.processes.is_main else nullcontext():
            for line in start_lines(self._data_config, self._rows, prepared[0], self.processes, self.folder):
                log.info(line)
            return self._train_and_evaluate(*prepared)

    def _train_and_evaluate(
        self, model: SegmentationModel, test_set: GeneralDataset, training_sets: TrainingSets | None
    ) -> RunResults:
        run = None
        if training_sets:
            save = partial(save_model, model, self.config)
            run = Run(model, self.config, self.folder, self.processes, self.stop, save, *training_sets)
            fit(run, self.resume)
            if run.average:
                run.average.apply()
        with self.stop.at_once("in the evaluation"):
            device, configs = self.processes.device, {"last": chosen_config(self.config, model, run)}
            if run:
                self._finish_training(run, model, configs["last"])
            started = time.perf_counter()
            scores = {"last": score_dataset(model, test_set, configs["last"], device, self.folder, self.processes)}
            self.seconds["per_test_sample"] = (time.perf_counter() - started) / len(test_set)
            if run:
                best = weights_file.read_weights(self.folder.best_weights)
                run.progress.best_epoch = int(best.metadata["epoch"])
                configs["best_val"], scores["best_val"] = configs["last"], scores["last"]
                everything = self.config.pretrained_path is None
                final = weights_file.trained_state(model, everything)
                if not self.processes.on_main(lambda: same_tensors(best.tensors, final)):
                    weights_file.load_trained_state(model, best.tensors, everything)
                    configs["best_val"] = best_config = chosen_config(self.config, model, run)
                    scores["best_val"] = score_dataset(model, test_set, best_config, device, None, self.processes)
                self.processes.on_main(lambda: keep_config(configs["best_val"], best, self.folder.best_weights))
            peak = max(self.processes.gather([peak_memory_bytes(self.processes.device)]))
            progress = run.progress if run else Progress()
            return self.processes.on_main(lambda: self._write_results(model, progress, scores, configs, peak))

    def _prepared(self) -> tuple[SegmentationModel, GeneralDataset, TrainingSets | None]:
        """The model, the test set, and training and validation sets; from here on the folder is this run's."""
        config = self.config
        seed_everything(config.seed)
        try:
            with self.stop.at_once("before training began"):
                test_set = GeneralDataset(self._data_config, "test", train=False)
                training_sets = _training_sets(self._data_config) if config.strategy != "none" else None
                started = time.perf_counter()
                model = build_model(config).to(self.processes.device)
                if config.training.gradient_checkpointing:
                    checkpoint_blocks(model)
                if config.training.compile:
                    compile_encoder(model)
                self.seconds["to_build"] = time.perf_counter() - started
        except StoppedError:
            if self.processes.is_main:
                self._write_run_metadata()
            raise
        if self.processes.index:
            seed_everything((config.seed + self.processes.index) % 2**32)  # each process has its own dropout
        self.processes.on_main(self._write_run_metadata)
        return model, test_set, training_sets

    @cached_property
    def _data_config(self) -> Config:
        """The config with the split file to read: a resumed run reads the one that it wrote."""
        recorded = self.folder.data_split
        if not (self.resume and recorded.is_file()):
            return self.config
        data = self.config.require_data().model_copy(update={"data_split_csv": recorded, "fold_num": 0})
        return self.config.model_copy(update={"data": data})

    @cached_property
    def _rows(self) -> list[Row]:
        return run_rows(self._data_config.require_data(), self.config.seed)

    def _write_run_metadata(self) -> None:
        """Writes run.txt, config.yaml, data_split.csv and environment.json; a resumed run has them already."""
        if self.resume:
            return
        self.folder.path.mkdir(parents=True, exist_ok=True)
        write_text(self.folder.owner, self.save_path.name + "\n")
        write_text(self.folder.config, self.config.to_yaml())
        write_text(self.folder.data_split, split_text(self._rows))
        information = environment_info(self.processes.device)
        write_json(self.folder.environment, {**information, "processes": self.processes.count})

    def _finish_training(self, run: Run, model: SegmentationModel, config: Config) -> None:
        val = self.config.require_data().val
        self.processes.on_main(lambda: plot_curves(self.folder.metrics, self.folder.curves, val))
        self.processes.on_main(lambda: save_model(model, config, self.save_path, run.progress.epoch))

    def _write_results(
        self,
        model: SegmentationModel,
        progress: Progress,
        scores: dict[str, list[ImageScore]],
        configs: dict[str, Config],
        peak: int,
    ) -> RunResults:
        write_per_image(self.folder.path, scores)
        epochs = {"last": progress.epoch, "best_val": progress.best_epoch}
        summaries: dict[str, Any] = {
            name: EpochScores(epoch=epochs[name], **dict(Scores.of(of)), **threshold_fields(configs[name].evaluation))
            for name, of in scores.items()
        }
        results = RunResults(
            **result_metadata(self.config, model, "test", self.save_path if "best_val" in scores else None),
            img_size=self.config.sam.img_size,
            **summaries,
            epochs=progress.epoch,
            precision=self.config.training.precision,
            processes=self.processes.count,
            skipped_steps=progress.skipped_steps,
            ema_decay=self.config.training.ema_decay,
            rank_cut=RankCut.model_validate(progress.cut) if progress.cut else None,
            seconds=self.seconds,
            seconds_per_epoch=sum(progress.seconds) / len(progress.seconds) if progress.seconds else None,
            peak_memory_bytes=peak,
        )
        write_results(self.folder.path, results)
        return results


def _training_sets(config: Config) -> TrainingSets:
    data = config.require_data()
    names = split_names(run_rows(data, config.seed))
    if not names[data.val]:
        reason = f", and its {len(names['train'])} to train are one group" if data.val == "val" else ""
        raise ConfigError(
            f"{data.data_split_csv}: has no image of split '{data.val}' to pick the best epoch by{reason}; "
            "add images, or set data.val=test (results will say so)"
        )
    train_set = GeneralDataset(config, "train", train=True, seed=config.seed)
    return train_set, GeneralDataset(config, data.val, train=False)
