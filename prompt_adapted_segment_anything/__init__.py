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
from prompt_adapted_segment_anything.hf import hf_config, to_hf
from prompt_adapted_segment_anything.load import SAM_PREFIXES, load_sam, resized_state

__all__ = [
    "DEFAULT_TARGETS",
    "GEOMETRIES",
    "SAM_PREFIXES",
    "SamGeometry",
    "build_image_encoder",
    "build_mask_decoder",
    "build_prompt_encoder",
    "decode_masks",
    "hf_config",
    "load_sam",
    "resized_state",
    "to_hf",
]
