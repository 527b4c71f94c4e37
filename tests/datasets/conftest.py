"""A data set on disk with its config, and fixtures of the converters' tests."""

import csv
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from transform_settings import transform_settings


@pytest.fixture
def make_set(tmp_path) -> Callable[..., SimpleNamespace]:
    """A function that writes a set of 24 x 20 images, masks of 0/255 or of 0..labels, and returns its config."""

    def make(splits: dict[str, int], labels: int = 1, **transforms) -> SimpleNamespace:
        root = Path(tmp_path / "set")
        rng = np.random.default_rng(1)
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True)
        rows = ["imgs,split"]
        for split, count in splits.items():
            for i in range(count):
                name = f"{split}{i}.png"
                Image.fromarray(rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)).save(root / "images" / name)
                mask = rng.integers(0, labels + 1, (24, 20), dtype=np.uint8) * (rng.random((24, 20)) < 0.5)
                Image.fromarray(mask * 255 if labels == 1 else mask).save(root / "masks" / name)
                rows.append(f"{name},{split}")
        (root / "data_split.csv").write_text("\n".join(rows) + "\n")
        data = SimpleNamespace(
            root_path=root,
            data_split_csv=None,
            label_list=list(range(labels + 1)),
            label_names=["Background", *(f"L{i}" for i in range(1, labels + 1))],
            val="test",  # nothing is drawn for validation
            val_fraction=0.15,
        )
        return SimpleNamespace(seed=0, data=data, data_transforms=transform_settings(**({"img_size": 32} | transforms)))

    return make


@pytest.fixture
def pack() -> Callable[[Path, Path], Path]:
    """The function that packs a folder as zip or tar.gz; see `_pack`."""
    return _pack


def _pack(root: Path, path: Path, top: bool = True) -> Path:
    """Pack a folder with its own name as the top folder, or without one, and with what a Mac adds."""
    start = root.parent if top else root
    files = sorted(file for file in root.rglob("*") if file.is_file())
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as zipped:
            for file in files:
                zipped.write(file, file.relative_to(start))
            zipped.writestr(f"__MACOSX/{files[0].relative_to(start)}", b"not this")
    else:
        with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as tar:
            for file in files:
                tar.add(file, file.relative_to(start))
    return path


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """The function that returns all files of a folder by relative path."""

    def read(root: Path) -> dict[str, bytes]:
        return {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()}

    return read


@pytest.fixture
def rows() -> Callable[[Path], list[dict[str, str]]]:
    """The function that returns the rows of a set's split file."""

    def read(root: Path) -> list[dict[str, str]]:
        with open(root / "data_split.csv", newline="") as file:
            return list(csv.DictReader(file))

    return read


@pytest.fixture
def assert_written() -> Callable[..., None]:
    """The function that compares a set with the truth {name: (image, mask)}, pixel for pixel and bit for bit."""

    def compare(root: Path, truth: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
        for folder in ("images", "masks"):
            assert sorted(path.name for path in (root / folder).iterdir()) == sorted(truth)
        for name, (image, mask) in truth.items():
            with Image.open(root / "images" / name) as written:
                values = np.asarray(written)
            assert values.dtype == image.dtype
            np.testing.assert_array_equal(values, image, err_msg=name)
            with Image.open(root / "masks" / name) as written:
                assert written.mode == "L"
                np.testing.assert_array_equal(np.asarray(written), mask * np.uint8(255), err_msg=name)

    return compare
