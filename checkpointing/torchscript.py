"""Tensors of a TorchScript archive, read without running the code in it.

OpenAI publishes CLIP as such an archive. `torch.jit.load` would run its code, and `torch.load(weights_only=True)`
refuses it. The archive is a zip of a pickle (`data.pkl`, the tree of modules) and a file for each storage (`data/0` and
so on).
"""

import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_STORAGE_DTYPES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class _Module:
    """Stands for a scripted module: its pickled attributes and nothing of its code."""

    def __setstate__(self, attributes: Any) -> None:
        self.attributes = attributes if isinstance(attributes, dict) else {}


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive: a zip with code in it."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """The parameters and buffers of a TorchScript archive by their dotted names.

    Raises:
        pickle.UnpicklingError: the pickle names anything but modules and tensors; nothing of it was called.
        Exception: damaged bytes end in whatever the zip and pickle parsers trip over.
    """
    with zipfile.ZipFile(path) as archive:
        record = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if record is None:
            raise ValueError("the archive has no data.pkl")
        with archive.open(record) as file:
            root = _TensorUnpickler(file, archive, record.removesuffix("data.pkl")).load()
    if not isinstance(root, _Module):
        raise ValueError("the archive holds no module")
    return dict(_tensors(root, ""))


def _tensors(module: _Module, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in module.attributes.items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.")


class _TensorUnpickler(pickle.Unpickler):
    """Knows modules (as `_Module`), tensors, their storages and TorchScript's lists; refuses every other name."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self._archive, self._folder = archive, folder
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("collections", "OrderedDict"): OrderedDict,
            ("torch.jit._pickle", "restore_type_tag"): lambda value, _: value,
        }
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if module == "torch" and name in _STORAGE_DTYPES:
            return _STORAGE_DTYPES[name]
        if module == "torch.jit._pickle" and name.startswith("build_"):
            return list
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return known[module, name]

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"it asks for a {kind}")
        if key not in self._storages:
            info = self._archive.getinfo(f"{self._folder}data/{key}")
            # Storages are kept as they are: a compressed one could unpack to any size.
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != count * dtype.itemsize:
                raise ValueError(f"storage {key} has {info.file_size} bytes, not {count} x {dtype.itemsize}")
            self._storages[key] = torch.frombuffer(bytearray(self._archive.read(info)), dtype=dtype)
        return self._storages[key]


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple, stride: tuple, *_: Any) -> Tensor:
    if math.prod(size) > storage.numel():  # a stride of 0 could ask for any amount of memory
        raise ValueError(f"a tensor of shape {tuple(size)} in a storage of {storage.numel()} numbers")
    return torch.as_strided(storage, size, stride, offset).clone()
