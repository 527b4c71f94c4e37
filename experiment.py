"""One run from config to results: train, evaluate both sets of weights, and write the run's folder."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import checkpoint
from datasets.data import GeneralDataset, read_split
from model import build_model, load_model, save_model
from models.strategies import parameter_counts
from test import ImageScore, evaluate, summary, write_per_image
from train import BEST_FILE, Progress, Run, check_resumable, fit
from utils.config import Config
from utils.config_schema import BASELINE_ARCHS, FtConfig
from utils.environment import environment_info, peak_memory_bytes, seed_everything
from utils.errors import ConfigError, UserError
from utils.figures import overlay_name, plot_curves, save_mask, save_overlay
from utils.files import sha256, write_json, write_text
from utils.run_log import METRICS_FILE
from utils.tensor_files import check_writable_name

OVERLAYS = 16
PREDICTIONS = "predictions"  # the masks of all test samples, 0/255 at the images' own size
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


def train_and_evaluate(config: Config, save_path: Path, device: torch.device, resume: bool = False) -> dict[str, Any]:
    """Trains, evaluates on the test split, writes the run's folder, and returns the results.

    Strategy "none" trains nothing and writes no weights.

    Raises:
        UserError: the folder holds another run; data or weights that do not fit; a run that failed.
    """
    folder = run_folder(save_path)
    if resume:
        check_resumable(folder)
    else:
        _refuse_to_overwrite(folder, save_path)
    seed_everything(config.seed)
    test_set = GeneralDataset(config, "test", train=False)
    sets = _training_sets(config) if config.strategy != "none" else None
    started = time.perf_counter()
    model = build_model(config).to(device)
    seconds_to_build = time.perf_counter() - started
    folder.mkdir(parents=True, exist_ok=True)
    if not resume:
        write_text(folder / "run.txt", save_path.name + "\n")
        write_text(folder / "config.yaml", config.to_yaml())
        write_json(folder / "environment.json", environment_info(device))

    run = None
    if sets:
        run = Run(model, config, device, folder, partial(save_model, model, config), *sets)
        fit(run, resume)
        plot_curves(folder / METRICS_FILE, folder / "curves.png")
        save_model(model, config, save_path, run.progress.epoch)
    started = time.perf_counter()
    scores = {"last": _evaluate_with_overlays(model, test_set, config, device, folder / "overlays")}
    seconds = {"to_build": seconds_to_build, "per_test_sample": (time.perf_counter() - started) / len(test_set)}
    if run:
        best = checkpoint.read_weights(run.best_file)
        run.progress.best_epoch = int(best.metadata["epoch"])
        checkpoint.load_trained_state(model, best.tensors, everything=config.pretrained_path is None)
        workers = config.require_data().num_workers
        scores["best_val"] = evaluate(model, test_set, device, config.training.batch_size, workers)
    write_per_image(folder / "per_image.csv", scores)
    progress = run.progress if run else Progress()
    results = _results(config, model, progress, scores, save_path if run else None, device)
    results["seconds"] = seconds
    write_json(folder / "results.json", results)
    return results


def _refuse_to_overwrite(folder: Path, save_path: Path) -> None:
    check_writable_name(save_path, "--save_path")
    if save_path.name == BEST_FILE:
        raise ConfigError(f"--save_path {save_path}: that name is kept for the best epoch; choose another")
    if (folder / "results.json").exists():
        raise UserError(f"{folder}: holds a finished run; give another --save_path, or remove it")
    if (folder / METRICS_FILE).exists():
        raise UserError(f"{folder}: holds an unfinished run; go on with --resume, or give another --save_path")
    if save_path.exists():
        raise UserError(f"{save_path}: exists already; give another --save_path, or remove it")


def evaluate_checkpoint(
    path: Path, device: torch.device, split: str, data: Config | None = None, pretrained_path: Path | None = None
) -> dict[str, Any]:
    """Evaluates a weights file on a split of its own dataset, or of `data`'s.

    Writes results.json, per_image.csv and overlays/ to <weights>_<dataset>_<split>/ beside it.
    """
    model, config = load_model(path, pretrained_path)
    if data is not None:
        config = config.model_copy(update={"data": data.require_data()})
    dataset = GeneralDataset(config, split, train=False)
    folder = path.parent / f"{path.stem}_{config.require_data().name}_{split}"
    folder.mkdir(parents=True, exist_ok=True)
    scores = _evaluate_with_overlays(model.to(device), dataset, config, device, folder / "overlays")
    results = {**_identity(config, model, split, path), **summary(scores)}
    write_per_image(folder / "per_image.csv", {path.stem: scores})
    write_json(folder / "results.json", results)
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


def _evaluate_with_overlays(
    model: nn.Module, dataset: GeneralDataset, config: Config, device: torch.device, folder: Path
) -> list[ImageScore]:
    folder.mkdir(parents=True, exist_ok=True)

    def draw(index: int, prediction: Any, score: ImageScore) -> None:
        path = overlay_name(score.name, score.label)
        save_mask(folder.parent / PREDICTIONS / path, prediction)
        if index < OVERLAYS:
            image, truth = dataset.native_image(index), dataset.native_mask(index)
            save_overlay(
                folder / path, image, truth, prediction, name=score.name, label=score.label, dice=score.native.dice
            )

    data = config.require_data()
    return evaluate(model, dataset, device, config.training.batch_size, data.num_workers, draw)


def _results(
    config: Config,
    model: nn.Module,
    progress: Progress,
    scores: dict[str, list[ImageScore]],
    save_path: Path | None,
    device: torch.device,
) -> dict[str, Any]:
    by_weights: dict[str, Any] = {"last": None, "best_val": None}
    epochs = {"last": progress.epoch, "best_val": progress.best_epoch}
    for weights, of_weights in scores.items():
        by_weights[weights] = {"epoch": epochs[weights], **summary(of_weights)}
    return {
        **_identity(config, model, "test", save_path),
        **by_weights,
        "epochs": progress.epoch,
        "seconds_per_epoch": sum(progress.seconds) / len(progress.seconds) if progress.seconds else None,
        "peak_memory_bytes": peak_memory_bytes(device),
    }


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
