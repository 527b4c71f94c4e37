"""Evaluation: a model and a dataset in, Dice and HD95 of every image out."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader
from tqdm import tqdm

from data_transforms.data_transforms import resize_mask, to_native
from datasets.data import GeneralDataset
from evaluation.metrics import PairScore, batch_dice
from evaluation.prompts import Encode, prompted_logits
from evaluation.results import ImageScore
from evaluation.threshold import Threshold, best_threshold, dice_by_threshold
from evaluation.workers import Comparison, scoring
from networks.base import NonFiniteError, SegmentationModel, check_logits
from prediction.tiles import Window, slide
from training.processes import Processes
from training.signals import StoppedError, StopRequests, start_workers
from utils.config.evaluation import EvaluationConfig
from utils.errors import UserError
from utils.pools import usable_cores

OnPrediction = Callable[[int, np.ndarray, np.ndarray, ImageScore], None]
NativeLogits = Callable[[int], Tensor]  # a sample's logits (H, W) at its image's own size


def predictions(
    model: SegmentationModel,
    dataset: GeneralDataset,
    device: torch.device,
    batch_size: int,
    num_workers: int = 0,
    indices: Sequence[int] | None = None,
    encode: Encode | None = None,
) -> Iterator[tuple[int, Tensor, Tensor, tuple[int, int], tuple[int, int]]]:
    """Yields (index, logits (h, w), mask (h, w), size (H, W), valid (h, w)) of each sample, in order, on the CPU.

    Logits and mask are cropped to `valid`, the part of the model's square that the image fills; at native scale that is
    the whole image, whose logits windows give. `indices` are the samples wanted, all by default. `encode` takes the
    image encoder's place, except at native scale.

    Raises: UserError that names the image, for logits that are not finite.
    """
    model.eval()
    native = dataset.transform.native
    loader = DataLoader(
        dataset,
        1 if native else batch_size,  # images of different sizes make no batch
        sampler=range(len(dataset)) if indices is None else indices,
        num_workers=num_workers,
        generator=torch.Generator(),  # its own, so that an evaluation draws nothing from training's
    )
    for batch in start_workers(loader):
        with torch.inference_mode():
            if native:
                logits = _by_windows(model, batch["image"][0], batch["label"], device)
            else:
                logits = prompted_logits(model, batch, device, encode).float().cpu()
        for i, index in enumerate(batch["index"].tolist()):
            h, w = (int(side[i]) for side in batch["valid"])
            size = (int(batch["size"][0][i]), int(batch["size"][1][i]))
            try:
                check_logits(logits[i])
            except NonFiniteError as error:
                raise UserError(f"{dataset.samples[index].image_path}: {error}") from None
            yield index, logits[i, :h, :w], batch["mask"][i, :h, :w], size, (h, w)


def _by_windows(model: SegmentationModel, image: Tensor, label: list[str], device: torch.device) -> Tensor:
    """The logits (1, H, W) of an image (3, H, W) for its label, as `Predictor` computes them."""

    def pixels(window: Window) -> Tensor:
        return image[:, window.top : window.bottom, window.left : window.right]

    def predict(squares: Tensor, group: Sequence[Window]) -> Tensor:
        return model(squares.to(device), label * len(group)).float().cpu()[:, None]

    return slide((image.shape[1], image.shape[2]), model.img_size, pixels, predict)


def mean_dice(
    model: SegmentationModel,
    dataset: GeneralDataset,
    device: torch.device,
    batch_size: int,
    num_workers: int = 0,
    processes: Processes | None = None,
    stop: StopRequests | None = None,
    encode: Encode | None = None,
    on_logits: Callable[[int, Tensor, Tensor], None] | None = None,
) -> float:
    """Mean Dice at the model's image size: picks the best epoch. Arguments as for `evaluate` and `predictions`.

    `on_logits` is called with (index, logits (h, w), mask (h, w)) for every sample, in the process that scored it.

    Raises:
        StoppedError: `stop` was requested in some process; it is raised in all.
    """
    scores = []
    own = _own_indices(dataset, processes)
    common = len(dataset) // (processes.count if processes else 1)  # every process has this many samples, or one more
    found = predictions(model, dataset, device, batch_size, num_workers, own, encode)
    for position, (index, logits, mask, _, _) in enumerate(found):
        if stop and processes and position % batch_size == 0 and position < common and processes.any(stop.requested):
            raise StoppedError("stopped by a signal in validation; resume with --resume")
        scores.append((index, float(batch_dice(logits[None] > 0, mask[None] > 0))))
        if on_logits:
            on_logits(index, logits, mask)
    return float(np.mean([score for _, score in _gathered(scores, processes)]))


def choose_threshold(
    model: SegmentationModel,
    dataset: GeneralDataset,
    device: torch.device,
    batch_size: int,
    num_workers: int = 0,
    processes: Processes | None = None,
    native_logits: NativeLogits | None = None,
) -> float:
    """The threshold with the highest mean Dice at the model's image size. Arguments as for `evaluate`."""
    own = _own_indices(dataset, processes)
    if native_logits:
        found = _reduced(native_logits, dataset, own)
    else:
        found = predictions(model, dataset, device, batch_size, num_workers, own)
    curves = [(index, dice_by_threshold(logits, mask)) for index, logits, mask, _, _ in found]
    return best_threshold([curve for _, curve in _gathered(curves, processes)])


def evaluate(
    model: SegmentationModel,
    dataset: GeneralDataset,
    device: torch.device,
    batch_size: int,
    num_workers: int = 0,
    on_prediction: OnPrediction | None = None,
    processes: Processes | None = None,
    settings: EvaluationConfig | None = None,
    native_logits: NativeLogits | None = None,
) -> list[ImageScore]:
    """Scores every sample of `dataset`, in order, once.

    Args:
        on_prediction: called with (index, prediction (H, W) bool, truth (H, W) bool, score) for every sample, in the
            process that scored it. It may write files of that sample.
        processes: share the samples; every process gets all scores. None for a process by itself.
        settings: the metrics and the threshold; None for Dice and HD95 at 0.5.
        native_logits: predicts in place of `model`, by windows for example; reduced to the model's size for its scores.
    """
    settings = settings or EvaluationConfig()
    threshold = Threshold.of(settings)
    own = _own_indices(dataset, processes)
    scored: list[tuple[int, ImageScore]] = []
    quiet = True if processes and not processes.is_main else None
    progress = tqdm(total=len(own), desc="evaluate", unit="image", leave=False, disable=quiet)
    workers = min(usable_cores() // (processes.count if processes else 1), len(own))
    waiting: deque[Callable[[], None]] = deque()

    def finish(index: int, native: Comparison, futures: Sequence[Future[PairScore]]) -> None:
        sample = dataset.samples[index]
        score = ImageScore(sample.name, sample.label_name, *(future.result() for future in futures))
        scored.append((index, score))
        if on_prediction:
            on_prediction(index, native.pred, native.truth, score)
        progress.update()

    found: Iterator = predictions(model, dataset, device, batch_size, num_workers, own)
    if native_logits:
        found = _reduced(native_logits, dataset, own)
    with scoring(settings, workers) as submit:
        for index, logits, mask, size, valid in found:
            whole = native_logits(index) if native_logits else to_native(logits, valid, size)
            small, native = _comparisons(dataset, threshold, index, logits, mask, whole)
            waiting.append(partial(finish, index, native, [submit(small), submit(native)]))
            if len(waiting) > workers:
                waiting.popleft()()
        while waiting:
            waiting.popleft()()
    progress.close()
    return [score for _, score in _gathered(scored, processes)]


def _reduced(
    native_logits: NativeLogits, dataset: GeneralDataset, indices: Sequence[int]
) -> Iterator[tuple[int, Tensor, Tensor, tuple[int, int], tuple[int, int]]]:
    """Yields what `predictions` does, from logits at the images' own size."""
    for index in indices:
        whole, sample = native_logits(index), dataset[index]
        h, w = (int(side) for side in sample["valid"])
        small = functional.interpolate(whole[None, None], (h, w), mode="bilinear", align_corners=False, antialias=True)
        yield index, small[0, 0], sample["mask"][:h, :w], sample["size"], (h, w)


def _comparisons(
    dataset: GeneralDataset,
    threshold: Threshold,
    index: int,
    logits: Tensor,
    mask: Tensor,
    native: Tensor,
) -> tuple[Comparison, Comparison]:
    """A sample's prediction and truth: at the model's image size, from `logits`, and the image's own, from `native`."""
    fov = dataset.native_fov(index)
    small_fov = None if fov is None else resize_mask(fov, (mask.shape[0], mask.shape[1])) > 0
    if small_fov is not None and not small_fov.any():
        raise UserError(
            f"{dataset.samples[index].fov_path}: no pixel of it remains at the model's image size; enlarge it"
        )
    return (
        Comparison(threshold.mask(logits).numpy(), (mask > 0).numpy(), torch.sigmoid(logits).numpy(), small_fov),
        Comparison(threshold.mask(native).numpy(), dataset.native_mask(index), torch.sigmoid(native).numpy(), fov),
    )


def _own_indices(dataset: GeneralDataset, processes: Processes | None) -> range:
    """This process' samples: no padding, so that none is counted twice."""
    return range(processes.index, len(dataset), processes.count) if processes else range(len(dataset))


def _gathered(items: list[tuple[int, Any]], processes: Processes | None) -> list[tuple[int, Any]]:
    """Every process' (index, ...) in the order of the index."""
    return sorted(processes.gather(items) if processes else items, key=lambda item: item[0])
