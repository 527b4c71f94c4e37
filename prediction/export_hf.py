"""Exports a trained model as a folder of Hugging Face's transformers: `SamModel` or `Sam2Model` opens it."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from checkpointing.hugging_face import CONFIG, WEIGHTS
from checkpointing.tensor_files import write_safetensors
from networks.base import SegmentationModel
from networks.prompted import PromptedModel
from prediction.export import halved, official_state
from utils.config import Config
from utils.config.options import SAM2_ARCH
from utils.config.schema import DataTransformsConfig
from utils.errors import UserError
from utils.files import write_json

PROCESSOR = "preprocessor_config.json"
_METADATA = {"format": "pt", "software": "SALT export"}  # transformers asks for the first
_UPSCALING = 4  # of the embedding's grid, by the mask decoder
_SAM2_STRIDE = 16  # of that grid


def export_hf(
    model: SegmentationModel,
    config: Config,
    checkpoint: Path,
    folder: Path,
    half: bool = False,
    img_size: int | None = None,
) -> str:
    """Writes config.json, model.safetensors and preprocessor_config.json of the merged model to a folder.

    The text prompt has no place there and is left out.

    Args: as for `prediction.export.export_sam`.

    Returns:
        The class that opens the folder.

    Raises:
        UserError: as `official_state`; a SAM2 without high-resolution features, which transformers always uses; a
            folder with a model that no export wrote.
    """
    if not _is_export(folder / WEIGHTS):
        for name in (WEIGHTS, CONFIG, PROCESSOR):
            if (folder / name).exists():
                raise UserError(f"{folder / name}: exists, and no export wrote it; give another --output")
    state = official_state(model, config, checkpoint, img_size)
    assert isinstance(model, PromptedModel)
    if not config.sam.high_res_features and config.arch == SAM2_ARCH:
        raise UserError(f"{checkpoint}: high_res_features is false, which transformers' Sam2Model does not have")
    size = img_size or model.img_size
    weights, description = model.hf_model(state, size)
    weights = halved(weights) if half else weights
    write_safetensors(folder / WEIGHTS, weights, _METADATA)
    is_sam2 = config.arch == SAM2_ARCH
    stride = _SAM2_STRIDE if is_sam2 else description["vision_config"]["patch_size"]
    write_json(folder / PROCESSOR, _processor(config.data_transforms, is_sam2, size, _UPSCALING * size // stride))
    write_json(folder / CONFIG, description)
    return description["architectures"][0]


def _is_export(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("software") == _METADATA["software"]
    except (OSError, SafetensorError):
        return False


def _processor(transforms: DataTransformsConfig, is_sam2: bool, size: int, mask_size: int) -> dict[str, Any]:
    """The preprocessing of `SamProcessor`, which pads as this project does, or of `Sam2Processor`, which stretches.

    `size` and `mask_size` are the sides of the model's images and of its masks.
    """
    name = "Sam2" if is_sam2 else "Sam"
    square, small = ({"height": side, "width": side} for side in (size, mask_size))
    sizes: dict[str, Any] = {"size": square, "mask_size": small}
    if not is_sam2:
        sizes = {
            "size": {"longest_edge": size},
            "pad_size": square,
            "mask_size": {"longest_edge": mask_size},
            "mask_pad_size": small,
        }
    return {
        "image_processor_type": f"{name}ImageProcessor",
        "processor_class": f"{name}Processor",
        **sizes,
        "image_mean": [value / 255 for value in transforms.pixel_mean],
        "image_std": [value / 255 for value in transforms.pixel_std],
    }
