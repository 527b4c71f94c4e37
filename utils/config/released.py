"""What the released configuration files hold that this project writes otherwise: each is read as it is meant there."""

import logging
from typing import Any

from utils.config.options import SAM2_ARCH
from utils.config.sources import Draft, KeyPath, dotted, show

logger = logging.getLogger(__name__)

_SVD_RANKS = (("ft", "svd_rank_linear"), ("ft", "svd_rank_conv2d"))


def accept_released(draft: Draft) -> None:
    """Replaces such values in place, with one warning line each."""
    decoder = ("decoder_training",)
    if str(draft.get(decoder)).lower() == "none" and draft.get(decoder) is not None:
        _replace(draft, decoder, False)
    schedular = ("training", "schedular")
    if schedular in draft.empty and draft.get(schedular) is None:
        logger.warning("%s: %s is empty, so it is step", draft.empty[schedular], dotted(schedular))
    if draft.get(("arch",)) != SAM2_ARCH:
        return
    if draft.get(("sam", "sam_type")) == "base":
        _replace(draft, ("sam", "sam_type"), "base_plus")
    if all(draft.get(path) == 0 for path in _SVD_RANKS):  # both are ignored there, for a share of each layer's
        origin = draft.origin(_SVD_RANKS[0])
        logger.warning("%s: svd ranks of 0 are not set: ft.svd_ratio decides for %s", origin, SAM2_ARCH)
        for path in _SVD_RANKS:
            draft.set(path, None, origin)


def _replace(draft: Draft, path: KeyPath, value: Any) -> None:
    origin = draft.origin(path)
    logger.warning("%s: %s = %s means %s", origin, dotted(path), show(draft.get(path)), show(value))
    draft.set(path, value, origin)
