"""One run from config to results: train, evaluate both sets of weights, and write the run's folder."""

import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from checkpointing import weights_file
from checkpointing.tensor_files import check_writable_name
from datasets.data import GeneralDataset, read_split
from evaluation.overlays import overlay_name, plot_curves, save_mask, save_overlay
from model import build_model, load_trained, save_model
from networks.strategies import parameter_counts
from test import ImageScore, evaluate, summary, write_per_image
from train import fit
from training.processes import Processes
from training.run import BEST_FILE, Progress, Run, check_config, state_folder
from training.run_log import METRICS_FILE
from training.signals import StoppedError, StopRequests
from utils.config import Config
from utils.config.schema import BASELINE_ARCHS, FtConfig
from utils.environment import deterministic, environment_info, peak_memory_bytes, seed_everything
from utils.errors import ConfigError, UserError
from utils.files import read_json, sha256, write_json, write_text

CONFIG_FILE = "config.yaml"
RESULTS_FILE = "results.json"
OVERLAYS = 16
PREDICTIONS = "predictions"  # the masks of all test samples, 0/255 at the images' own size
Resume = bool | Literal["auto"]
# The ranks that a method uses; S-SAM adapts all singular values.
RANK_KEYS = {
    "salt": {"svd_rank_linear", "svd_rank_conv2d", "svd_ratio", "r_lora", "rank_pattern"},
    "lora": {"r_lora", "rank_pattern"},
}


def run_folder(save_path: Path) -> Path:
    """The folder of a run's records: that of its weights, or one named after them where another run has that one.

    So `--save_path runs/x/model.safetensors` keeps everything in runs/x, and checkpoints/salt_model.pth and
    checkpoints/lora_model.pth do not overwrite each other's records.
    """
    folder = save_path.parent
    owner = folder / "run.txt"
    if not owner.is_file() or owner.read_text(encoding="utf-8").strip() == save_path.name:
        return folder
    return folder / save_path.stem


def train_and_evaluate(
    config: Config,
    save_path: Path,
    device: torch.device,
    resume: Resume = False,
    stop: StopRequests | None = None,
) -> dict[str, Any]:
    """Trains, evaluates on the test split, writes the run's folder, and returns the results.

    Strategy "none" trains nothing and writes no weights. Under `torchrun` all processes call this alike, and the main
    one writes.

    Args:
        config: resolved and checked.
        save_path: the final weights' file; the run's records go beside it.
        device: as `resolve_device` gave it.
        resume: True goes on with the run in the folder; "auto" goes on where there is one (and returns the
            results of one that is finished), else starts.
        stop: stop requests that the caller listens to already.

    Raises:
        UserError: the folder holds another run; data or weights that do not fit; a run that failed.
        StoppedError: a signal came; all that was done is kept, and `resume` goes on.
    """
    training = config.training
    with nullcontext(stop) if stop else StopRequests() as stop, deterministic(training.deterministic):
        with stop.at_once("before training began"):
            processes = Processes(device, training.precision, training.accumulate_steps)
            _check_batch_size(config, processes)
            folder = run_folder(save_path)
            start = processes.on_main(lambda: _start(config, folder, save_path, resume))
        if start == "finished":
            results = read_results(folder)
        else:
            results = _Experiment(config, save_path, folder, processes, stop, start == "resume").results()
        processes.end()
        return results


@dataclass
class _Experiment:
    """The steps of one run, each by all processes."""

    config: Config
    save_path: Path
    folder: Path
    processes: Processes
    stop: StopRequests
    resume: bool
    seconds: dict[str, float] = field(default_factory=dict)

    def results(self) -> dict[str, Any]:
        model, test_set, sets = self._prepared()
        run = None
        if sets:
            save = partial(save_model, model, self.config)
            run = Run(model, self.config, self.folder, self.processes, self.stop, save, *sets)
            fit(run, self.resume)
            if run.average:
                run.average.apply()
        with self.stop.at_once("in the evaluation"):
            if run:
                self.processes.on_main(lambda: plot_curves(self.folder / METRICS_FILE, self.folder / "curves.png"))
                self.processes.on_main(lambda: save_model(model, self.config, self.save_path, run.progress.epoch))
            started = time.perf_counter()
            scores = {"last": self._evaluate(model, test_set, self.folder / "overlays")}
            self.seconds["per_test_sample"] = (time.perf_counter() - started) / len(test_set)
            if run:
                best = weights_file.read_weights(run.best_file)
                run.progress.best_epoch = int(best.metadata["epoch"])
                weights_file.load_trained_state(model, best.tensors, everything=self.config.pretrained_path is None)
                scores["best_val"] = self._evaluate(model, test_set)
            peak = max(self.processes.gather([peak_memory_bytes(self.processes.device)]))
            return self.processes.on_main(lambda: self._write(model, run, scores, peak))

    def _prepared(self) -> tuple[nn.Module, GeneralDataset, tuple[GeneralDataset, GeneralDataset] | None]:
        """Data and model; from here on the folder is this run's."""
        config = self.config
        seed_everything(config.seed)
        try:
            with self.stop.at_once("before training began"):
                test_set = GeneralDataset(config, "test", train=False)
                sets = _training_sets(config) if config.strategy != "none" else None
                started = time.perf_counter()
                model = build_model(config).to(self.processes.device)
                self.seconds["to_build"] = time.perf_counter() - started
        except StoppedError:
            if self.processes.is_main:
                self._write_head()
            raise
        if self.processes.index:
            seed_everything((config.seed + self.processes.index) % 2**32)  # each its own dropout
        self.processes.on_main(self._write_head)
        return model, test_set, sets

    def _write_head(self) -> None:
        if self.resume:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / "run.txt", self.save_path.name + "\n")
        write_text(self.folder / "config.yaml", self.config.to_yaml())
        information = environment_info(self.processes.device)
        write_json(self.folder / "environment.json", {**information, "processes": self.processes.count})

    def _evaluate(self, model: nn.Module, dataset: GeneralDataset, overlays: Path | None = None) -> list[ImageScore]:
        batch_size = max(1, self.config.training.batch_size // self.processes.count)
        return _evaluate(model, dataset, self.config, self.processes.device, overlays, batch_size, self.processes)

    def _write(
        self, model: nn.Module, run: Run | None, scores: dict[str, list[ImageScore]], peak: int
    ) -> dict[str, Any]:
        write_per_image(self.folder / "per_image.csv", scores)
        progress, training = run.progress if run else Progress(), self.config.training
        by_weights: dict[str, Any] = {"last": None, "best_val": None}
        epochs = {"last": progress.epoch, "best_val": progress.best_epoch}
        for weights, of_weights in scores.items():
            by_weights[weights] = {"epoch": epochs[weights], **summary(of_weights)}
        results = {
            **_identity(self.config, model, "test", self.save_path if run else None),
            **by_weights,
            "epochs": progress.epoch,
            "precision": training.precision,
            "processes": self.processes.count,
            "skipped_steps": progress.skipped_steps,
            "ema_decay": training.ema_decay,
            "seconds": self.seconds,
            "seconds_per_epoch": sum(progress.seconds) / len(progress.seconds) if progress.seconds else None,
            "peak_memory_bytes": peak,
        }
        write_json(self.folder / RESULTS_FILE, results)
        return results


def read_results(folder: Path) -> dict[str, Any]:
    """The results of a finished run."""
    return read_json(folder / RESULTS_FILE)


def _start(config: Config, folder: Path, save_path: Path, resume: Resume) -> Literal["new", "resume", "finished"]:
    """How to begin in a run's folder, as it is now. Raises: UserError or ConfigError where that cannot be."""
    states = state_folder(folder)
    if resume == "auto":
        if (folder / RESULTS_FILE).exists():
            check_config(folder / CONFIG_FILE, _text(folder / CONFIG_FILE), config, folder)
            return "finished"
        resume = states.has_progress or _only_begun(folder)
    if not resume:
        _refuse_to_overwrite(folder, save_path)
        return "new"
    if _only_begun(folder):
        check_config(folder / CONFIG_FILE, _text(folder / CONFIG_FILE), config, folder)
        return "new"
    states.newest()
    return "resume"


def _only_begun(folder: Path) -> bool:
    """Whether a run was stopped in this folder before it had a state to save."""
    return (folder / CONFIG_FILE).is_file() and not state_folder(folder).states()


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _refuse_to_overwrite(folder: Path, save_path: Path) -> None:
    check_writable_name(save_path, "--save_path")
    if save_path.name == BEST_FILE:
        raise ConfigError(f"--save_path {save_path}: that name is kept for the best epoch; choose another")
    if (folder / RESULTS_FILE).exists():
        raise UserError(f"{folder}: holds a finished run; give another --save_path, or remove it")
    if (folder / METRICS_FILE).exists() or state_folder(folder).has_progress:
        raise UserError(f"{folder}: holds an unfinished run; go on with --resume, or give another --save_path")
    if save_path.exists():
        raise UserError(f"{save_path}: exists already; give another --save_path, or remove it")


def _check_batch_size(config: Config, processes: Processes) -> None:
    training = config.training
    if config.strategy != "none" and training.batch_size % (processes.count * training.accumulate_steps):
        parts = f" x {training.accumulate_steps} accumulate_steps" if training.accumulate_steps > 1 else ""
        raise ConfigError(
            f"training.batch_size = {training.batch_size}: is one step's batch over all processes, and "
            f"{processes.count} processes{parts} do not divide it"
        )


def evaluate_checkpoint(
    path: Path, device: torch.device, split: str, data: Config | None = None, pretrained_path: Path | None = None
) -> dict[str, Any]:
    """Evaluates a weights file on a split of its own dataset, or of `data`'s.

    Writes results.json, per_image.csv and overlays/ to <weights>_<dataset>_<split>/ beside it.
    """
    model, config = load_trained(path, pretrained_path)
    if data is not None:
        config = config.model_copy(update={"data": data.require_data()})
    dataset = GeneralDataset(config, split, train=False)
    folder = path.parent / f"{path.stem}_{config.require_data().name}_{split}"
    folder.mkdir(parents=True, exist_ok=True)
    scores = _evaluate(model.to(device), dataset, config, device, folder / "overlays", config.training.batch_size)
    results = {**_identity(config, model, split, path), **summary(scores)}
    write_per_image(folder / "per_image.csv", {path.stem: scores})
    write_json(folder / RESULTS_FILE, results)
    return results


def _training_sets(config: Config) -> tuple[GeneralDataset, GeneralDataset]:
    data = config.require_data()
    if not read_split(data)[data.val]:
        raise ConfigError(
            f"{data.data_split_csv}: has no image of split '{data.val}' to pick the best epoch by; "
            "add one, or set data.val=test (results will say so)"
        )
    train_set = GeneralDataset(config, "train", train=True, seed=config.seed)
    return train_set, GeneralDataset(config, data.val, train=False)


def _evaluate(
    model: nn.Module,
    dataset: GeneralDataset,
    config: Config,
    device: torch.device,
    overlays: Path | None,
    batch_size: int,
    processes: Processes | None = None,
) -> list[ImageScore]:
    """Scores a dataset; given a folder `overlays`, also draws images there and masks in predictions/."""

    def draw(index: int, prediction: Any, score: ImageScore) -> None:
        path = overlay_name(score.name, score.label)
        save_mask(overlays.parent / PREDICTIONS / path, prediction)
        if index < OVERLAYS:
            image, truth = dataset.native_image(index), dataset.native_mask(index)
            words = {"name": score.name, "label": score.label, "dice": score.native.dice}
            save_overlay(overlays / path, image, truth, prediction, **words)

    workers = config.require_data().num_workers
    return evaluate(model, dataset, device, batch_size, workers, draw if overlays else None, processes)


def _identity(config: Config, model: nn.Module, split: str, weights: Path | None) -> dict[str, Any]:
    """What was evaluated, on what: the keys that every results.json begins with."""
    data, counts = config.require_data(), parameter_counts(model)
    return {
        "method": config.strategy,
        "arch": config.arch,
        "sam_type": config.baseline.size if config.arch in BASELINE_ARCHS else config.sam.sam_type,
        "profile": config.profile,
        "ranks": _ranks(config.ft),
        "prompt": model.prompt,
        "text_encoder": config.prompts.text_encoder if model.prompt == "text" else None,
        "weights": "random" if config.pretrained_path is None else config.pretrained_path.name,
        "dataset": data.name,
        "split": split,
        "val_split": data.val,
        "fold": data.fold_num,
        "img_size": config.sam.img_size,
        "seed": config.seed,
        "checkpoint": {
            "path": str(weights) if weights else None,
            "sha256": sha256(weights) if weights else None,
            "base_sha256": model.base_sha256 or None,
            "clip_sha256": model.clip_sha256 or None,
        },
        **{key: counts[key] for key in ("trainable", "total", "percent")},
    }


def _ranks(ft: FtConfig) -> dict[str, Any]:
    ranks = ft.model_dump(mode="json", include=RANK_KEYS.get(ft.type, set()), exclude_none=True)
    if "svd_ratio" in ranks:  # which stands for both
        del ranks["svd_rank_linear"], ranks["svd_rank_conv2d"]
    return ranks
