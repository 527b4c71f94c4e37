"""Checking whether an archive is the official one, byte for byte."""

import logging
from collections.abc import Mapping
from pathlib import Path

from utils.files import digests

logger = logging.getLogger(__name__)


def check_digest(archive: Path, official: Mapping[str, str]) -> None:
    """Log a warning that names both digests if an archive is not one of the official ones.

    It is not an error: repacked archives and later editions can be read as well.

    Args:
        official: {file name: "sha256:..." or "md5:..."}. An archive of another name is compared with all of them.
    """
    candidates = {archive.name: official[archive.name]} if archive.name in official else official
    if not candidates:
        return
    found = digests(archive, *{digest.partition(":")[0] for digest in candidates.values()})
    if any(digest in (f"{kind}:{value}" for kind, value in found.items()) for digest in candidates.values()):
        return
    ours = ", ".join(f"{kind} {value}" for kind, value in found.items())
    theirs = " or ".join(f"{digest.replace(':', ' ')} ({name})" for name, digest in candidates.items())
    logger.warning("%s: has %s, but the official archive has %s; it is used anyway", archive, ours, theirs)
