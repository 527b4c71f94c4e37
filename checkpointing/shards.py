"""Weights in several files, as Hugging Face's libraries write them: an index in JSON, and the files beside it."""

import hashlib
import json
from pathlib import Path

from utils.errors import UserError
from utils.files import sha256

INDEX_SUFFIX = ".index.json"


def shard_keys(index: Path) -> dict[Path, list[str]]:
    """The files that an index names, each with the keys of its tensors. Raises: UserError for anything else."""
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        pairs = [(str(key), str(name)) for key, name in names.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index}: is no index of weights files ({error})") from error
    found: dict[Path, list[str]] = {}
    for key, name in pairs:
        if Path(name).name != name:
            raise UserError(f"{index}: names the file '{name}', which is not beside it")
        found.setdefault(index.with_name(name), []).append(key)
    if missing := [path for path in found if not path.is_file()]:
        raise UserError(f"{index}: names {len(missing)} files that are not there, the first is {missing[0].name}")
    return dict(sorted(found.items()))


def weights_sha256(path: Path) -> str:
    """The SHA-256 of a weights file; of an index, that of the digests of the files that it names."""
    if not path.name.endswith(INDEX_SUFFIX):
        return sha256(path)
    return hashlib.sha256("\n".join(sha256(shard) for shard in shard_keys(path)).encode()).hexdigest()
