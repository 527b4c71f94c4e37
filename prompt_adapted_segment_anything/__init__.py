"""SAM at any image size: builds it, loads official checkpoints, and lists the layers that adapters replace."""

from prompt_adapted_segment_anything.build import (
    DEFAULT_TARGETS,
    GEOMETRIES,
    SamGeometry,
    build_image_encoder,
    build_mask_decoder,
    build_prompt_encoder,
)
from prompt_adapted_segment_anything.decode import decode_masks
from prompt_adapted_segment_anything.load import SAM_PREFIXES, load_sam

__all__ = [
    "DEFAULT_TARGETS",
    "GEOMETRIES",
    "SAM_PREFIXES",
    "SamGeometry",
    "build_image_encoder",
    "build_mask_decoder",
    "build_prompt_encoder",
    "decode_masks",
    "load_sam",
]
