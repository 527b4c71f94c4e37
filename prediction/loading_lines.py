"""The Python lines that load an exported file in the stock packages."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from prompt_adapted_SAM2 import yaml_of
from utils.config import Config
from utils.config.options import SAM2_ARCH

REGISTRY_SIZE = 1024  # the only one that sam_model_registry builds
_REGISTRY_NAMES = {"base": "vit_b", "large": "vit_l", "huge": "vit_h"}


def loading_lines(config: Config, state: Mapping[str, Tensor], output: Path, img_size: int) -> str:
    """Three lines of Python for a file that `export_sam` wrote, or why there are none.

    Args:
        state: what was written.
        img_size: the image size that it was written for.
    """
    if config.sam.sam_type == "nano":
        return "nano is a size of this project alone: the stock packages have no name for it"
    if config.arch == SAM2_ARCH:
        return "\n".join(_sam2_lines(config.sam.sam_type, state, output, img_size))
    if img_size != REGISTRY_SIZE:
        return (
            f"segment_anything's registry builds {REGISTRY_SIZE} pixels alone, and this file is for {img_size}: "
            f"add --img_size {REGISTRY_SIZE}, or build the model as docs/using.md shows"
        )
    return "\n".join(_sam_lines(_REGISTRY_NAMES[config.sam.sam_type], output))


def _sam_lines(name: str, output: Path) -> list[str]:
    if output.suffix == ".safetensors":
        return [
            "import safetensors.torch, segment_anything",
            f'sam = segment_anything.sam_model_registry["{name}"]()',
            f"sam.load_state_dict(safetensors.torch.load_file({str(output)!r}))",
        ]
    return [
        "from segment_anything import SamPredictor, sam_model_registry",
        f'sam = sam_model_registry["{name}"](checkpoint={str(output)!r})',
        "predictor = SamPredictor(sam)",
    ]


def _sam2_lines(sam_type: str, state: Mapping[str, Tensor], output: Path, img_size: int) -> list[str]:
    has_memory = any(key.startswith("memory_encoder.") for key in state)
    is_first_version = has_memory and "no_obj_embed_spatial" not in state  # SAM 2.1 added it
    yaml = yaml_of(sam_type).replace("sam2.1", "sam2") if is_first_version else yaml_of(sam_type)
    size = f'["++model.image_size={img_size}"]'
    if has_memory and output.suffix != ".safetensors":
        return [
            "from sam2.build_sam import build_sam2",
            "from sam2.sam2_image_predictor import SAM2ImagePredictor",
            f'sam2 = build_sam2("{yaml}", {str(output)!r}, "cpu", hydra_overrides_extra={size})',
        ]
    read = "safetensors.torch.load_file({})" if output.suffix == ".safetensors" else 'torch.load({})["model"]'
    strictness = "" if has_memory else ", strict=False"  # the video memory stays random
    return [
        f"import {read.split('.load')[0]}, sam2.build_sam",
        f'model = sam2.build_sam.build_sam2("{yaml}", device="cpu", hydra_overrides_extra={size})',
        f"model.load_state_dict({read.format(repr(str(output)))}{strictness})",
    ]
