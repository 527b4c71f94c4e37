"""SAM2's image part, without its memory, from the sam2 package."""

from prompt_adapted_SAM2.build import Sam2Parts, build_sam2_parts, default_targets, yaml_of
from prompt_adapted_SAM2.decode import decode_masks
from prompt_adapted_SAM2.hf import hf_config, to_hf
from prompt_adapted_SAM2.load import load_sam2, official_names, sam2_type_of

__all__ = [
    "Sam2Parts",
    "build_sam2_parts",
    "decode_masks",
    "default_targets",
    "hf_config",
    "load_sam2",
    "official_names",
    "sam2_type_of",
    "to_hf",
    "yaml_of",
]
