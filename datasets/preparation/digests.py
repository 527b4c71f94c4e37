"""Whether an archive is the official one, byte for byte."""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

logger = logging.getLogger(__name__)

_CHUNK = 1 << 20


def check_digest(archive: Path, official: Mapping[str, str]) -> None:
    """Log a warning that names both digests, if an archive is not one of the official ones.

    It is no error: a set that was packed again, or a later edition, is read as well.

    Args:
        official: {file name: "sha256:..." or "md5:..."}. An archive of another name is compared with all of them.
    """
    candidates = {archive.name: official[archive.name]} if archive.name in official else official
    if not candidates:
        return
    found = {kind: _digest(archive, kind) for kind in {digest.partition(":")[0] for digest in candidates.values()}}
    if any(digest in (f"{kind}:{value}" for kind, value in found.items()) for digest in candidates.values()):
        return
    ours = ", ".join(f"{kind} {value}" for kind, value in found.items())
    theirs = " or ".join(f"{digest.replace(':', ' ')} ({name})" for name, digest in candidates.items())
    logger.warning("%s: has %s, but the official archive has %s; it is used as it is", archive, ours, theirs)


def _digest(path: Path, kind: str) -> str:
    digest = hashlib.new(kind, usedforsecurity=False)
    size = path.stat().st_size
    with (
        open(path, "rb") as file,
        tqdm(total=size, desc=f"{kind} of {path.name}", unit="B", unit_scale=True, disable=None) as bar,
    ):
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()
