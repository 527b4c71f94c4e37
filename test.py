"""Evaluation: a model and a dataset in, Dice and HD95 of every image out."""

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from data_transforms.data_transforms import to_native
from datasets.data import GeneralDataset
from evaluation.metrics import PairScore, batch_dice, score_pair, summarize
from training.processes import Processes
from training.signals import StoppedError, StopRequests, start_workers
from utils.files import atomic_path


@dataclass(frozen=True)
class ImageScore:
    """Scores of one image for one label: at the model's image size (the paper's way) and at the image's own size.

    `name` is the image's path below images/.
    """

    name: str
    label: str
    img_size: PairScore
    native: PairScore


OnPrediction = Callable[[int, np.ndarray, ImageScore], None]


def predictions(
    model: nn.Module,
    dataset: GeneralDataset,
    device: torch.device,
    batch_size: int,
    num_workers: int = 0,
    indices: Sequence[int] | None = None,
) -> Iterator[tuple[int, Tensor, Tensor, tuple[int, int], tuple[int, int]]]:
    """Yields (index, logits (h, w), mask (h, w), size (H, W), valid (h, w)) of each sample, in order, on the CPU.

    Logits and mask are cropped to `valid`, the part of the model's square that the image fills. `indices` are the
    samples wanted, all by default.
    """
    model.eval()
    loader = DataLoader(
        dataset,
        batch_size,
        sampler=range(len(dataset)) if indices is None else indices,
        num_workers=num_workers,
        generator=torch.Generator(),  # its own, so that an evaluation draws nothing from training's
    )
    for batch in start_workers(loader):
        with torch.inference_mode():
            boxes = prompt_boxes(model.prompt, batch)
            boxes = boxes if boxes is None else boxes.to(device)
            logits = model(batch["image"].to(device), batch["label"], boxes).float().cpu()
        for i, index in enumerate(batch["index"].tolist()):
            h, w = (int(side[i]) for side in batch["valid"])
            size = (int(batch["size"][0][i]), int(batch["size"][1][i]))
            yield index, logits[i, :h, :w], batch["mask"][i, :h, :w], size, (h, w)


def prompt_boxes(prompt: str, batch: dict[str, Any]) -> Tensor | None:
    """The box prompts of a batch: (B, 4) x0, y0, x1, y1, the first and last column and row inside; None for others.

    "box_full" is the whole image, "box_oracle" the box around the true mask (the whole image where that is empty).
    """
    if prompt not in ("box_full", "box_oracle"):
        return None
    heights, widths = batch["valid"]
    zeros = torch.zeros_like(widths)
    boxes = torch.stack([zeros, zeros, widths - 1, heights - 1], dim=1).float()
    if prompt == "box_oracle":
        for i, mask in enumerate(batch["mask"]):
            rows, columns = (mask > 0).nonzero(as_tuple=True)
            if len(rows):
                boxes[i] = torch.stack([columns.min(), rows.min(), columns.max(), rows.max()])
    return boxes


def mean_dice(
    model: nn.Module,
    dataset: GeneralDataset,
    device: torch.device,
    batch_size: int,
    workers: int = 0,
    processes: Processes | None = None,
    stop: StopRequests | None = None,
) -> float:
    """Mean Dice at the model's image size: the quick score that picks the best epoch. Arguments as for `evaluate`.

    Raises:
        StoppedError: `stop` was requested in some process; it is raised in all.
    """
    scores = []
    own = _own_indices(dataset, processes)
    common = len(dataset) // (processes.count if processes else 1)  # every process has this many samples, or one more
    found = predictions(model, dataset, device, batch_size, workers, own)
    for position, (index, logits, mask, _, _) in enumerate(found):
        if stop and position % batch_size == 0 and position < common and processes.any(stop.requested):
            raise StoppedError("stopped by a signal in validation; go on with --resume")
        scores.append((index, float(batch_dice(logits[None] > 0, mask[None] > 0))))
    return float(np.mean([score for _, score in _of_all(scores, processes)]))


def evaluate(
    model: nn.Module,
    dataset: GeneralDataset,
    device: torch.device,
    batch_size: int,
    num_workers: int = 0,
    on_prediction: OnPrediction | None = None,
    processes: Processes | None = None,
) -> list[ImageScore]:
    """Scores every sample of `dataset`, in order, once.

    Args:
        on_prediction: called with (index, prediction (H, W) bool, score) for every sample, in the process that scored
            it: it may write a file of that sample's own.
        processes: share the samples, and all get all scores; None for a process by itself.
    """
    own = _own_indices(dataset, processes)
    scored: list[tuple[int, ImageScore]] = []
    quiet = True if processes and not processes.is_main else None
    progress = tqdm(total=len(own), desc="evaluate", unit="image", leave=False, disable=quiet)
    for index, logits, mask, size, valid in predictions(model, dataset, device, batch_size, num_workers, own):
        native = (to_native(logits, valid, size) > 0).numpy()
        sample = dataset.samples[index]
        score = ImageScore(
            sample.name,
            sample.label_name,
            score_pair(logits > 0, mask > 0),
            score_pair(native, dataset.native_mask(index)),
        )
        scored.append((index, score))
        if on_prediction:
            on_prediction(index, native, score)
        progress.update()
    progress.close()
    return [score for _, score in _of_all(scored, processes)]


def _own_indices(dataset: GeneralDataset, processes: Processes | None) -> range:
    """This process' samples: no padding, so that none is counted twice."""
    return range(processes.index, len(dataset), processes.count) if processes else range(len(dataset))


def _of_all(items: list[tuple[int, Any]], processes: Processes | None) -> list[tuple[int, Any]]:
    """Every process' (index, ...) in the order of the index."""
    return sorted(processes.gather(items) if processes else items, key=lambda item: item[0])


def summary(scores: Sequence[ImageScore]) -> dict[str, Any]:
    """Means and intervals over all samples, and of each label where there are several (`summarize`)."""
    result: dict[str, Any] = {
        "img_size": summarize([score.img_size for score in scores]),
        "native": summarize([score.native for score in scores]),
    }
    labels = sorted({score.label for score in scores})
    if len(labels) > 1:
        result["labels"] = {label: summary([score for score in scores if score.label == label]) for label in labels}
    return result


def write_per_image(path: Path, scores_by_weights: dict[str, Sequence[ImageScore]]) -> None:
    """Writes per_image.csv: a row for each image, label and set of weights ("last", "best_val")."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["weights", "image", "label", "dice", "hd95", "dice_native", "hd95_native", "one_empty"])
        for weights, scores in scores_by_weights.items():
            for s in scores:
                values = (s.img_size.dice, s.img_size.hd95, s.native.dice, s.native.hd95)
                numbers = [f"{value:.6f}" for value in values]
                writer.writerow([weights, s.name, s.label, *numbers, int(s.native.one_empty)])
