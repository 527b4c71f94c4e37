"""What a run says when it begins."""

from collections import Counter
from collections.abc import Iterator, Sequence

import torch

from datasets.split import SPLITS, Row, checked_rows
from networks.base import SegmentationModel
from networks.strategies import parameter_counts
from training.processes import Processes
from training.run_folder import RunFolder
from utils.config import Config
from utils.config.options import EPOCH_CHOSEN_ON


def start_lines(
    config: Config, rows: Sequence[Row], model: SegmentationModel, processes: Processes, folder: RunFolder
) -> Iterator[str]:
    """Yields device and precision, images by split, labels, trained parameters, and the folder.

    Args:
        config: with the split file that the run reads.
        rows: that file's, with the splits that the run uses.
    """
    device = processes.device
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    count = f", {processes.count} processes" if processes.count > 1 else ""
    yield f"device: {device}{name}{count}, precision {processes.precision}"
    yield f"images: {_images(config, rows)}"
    yield f"labels: {', '.join(config.require_data().label_names[1:])}"
    counts = parameter_counts(model)
    yield f"trained parameters: {counts['trainable']:,} of {counts['total']:,} ({counts['percent']:.2f}%)"
    yield f"writes to: {folder.path}"


def _images(config: Config, rows: Sequence[Row]) -> str:
    data = config.require_data()
    numbers = Counter(row.split for row in rows)
    if config.strategy == "none":
        return f"{numbers['test']} test"
    counts = {split: f"{numbers[split]} {split}" for split in SPLITS if numbers[split]}
    if data.val == "val" and list(rows) != checked_rows(data):
        counts["val"] += f" (drawn from the training images by data.val_fraction and seed {config.seed})"
    elif data.val != "val":
        counts.pop("val", None)  # not used
        counts["test"] += f"; epoch chosen on {EPOCH_CHOSEN_ON[data.val]} (data.val)"
    return ", ".join(counts.values())
