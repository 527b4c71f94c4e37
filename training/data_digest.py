"""What a run was trained on: its split and the content of every file, to notice a change before it is resumed."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets.data import GeneralDataset
from datasets.split import read_split, split_csv
from utils.config import Config
from utils.errors import UserError

_SHOWN = 3

# {"splits": {image: split}, "files": {image: digest of image and mask}}
DataDigest = dict[str, dict[str, str]]


def data_digest(config: Config, *datasets: GeneralDataset) -> DataDigest:
    """The split of every image by the split file, and a digest of the files of every sample in `datasets`."""
    files = {sample.name: (sample.image_path, sample.mask_path) for each in datasets for sample in each.samples}
    splits = read_split(config.require_data())
    return {
        "splits": {image: split for split, images in splits.items() for image in images},
        "files": {name: _digest(*paths) for name, paths in files.items()},
    }


def check_data(saved: Mapping[str, Mapping[str, str]] | None, now: DataDigest, config: Config, state: Path) -> None:
    """Raises UserError that names the images whose split or files are not as they were when `state` was saved."""
    if saved is None:  # by an earlier version
        return
    before, after = saved["splits"], now["splits"]
    changes = [
        f"{image} was {before.get(image, 'not there')}, is {after.get(image, 'not there')}"
        for image in sorted(before.keys() | after.keys())
        if before.get(image) != after.get(image)
    ]
    where = split_csv(config.require_data())
    if not changes:
        where = Path(config.require_data().root_path)
        both = sorted(saved["files"].keys() & now["files"].keys())
        changes = [f"{image} or its mask is another" for image in both if saved["files"][image] != now["files"][image]]
    if changes:
        more = f" and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
        raise UserError(
            f"{where}: has changed since {state} was saved: {'; '.join(changes[:_SHOWN])}{more}; "
            "put it back, or train anew with another --save_path"
        )


def _digest(*paths: Path) -> str:
    whole: Any = hashlib.blake2b(digest_size=16)
    for path in paths:
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest())
    return whole.hexdigest()
