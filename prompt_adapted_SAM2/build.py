"""SAM2 at any image size that is a multiple of 32, from the sam2 package's own YAMLs; and a nano SAM2."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from sam2.build_sam import build_sam2
from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
from sam2.modeling.position_encoding import PositionEmbeddingSine
from sam2.modeling.sam.mask_decoder import MaskDecoder
from sam2.modeling.sam.prompt_encoder import PromptEncoder
from sam2.modeling.sam.transformer import TwoWayTransformer
from torch import Tensor, nn

# SAM 2 and 2.1 differ in their memory alone, which is dropped: one YAML fits the files of both.
_YAMLS = {
    "tiny": "configs/sam2.1/sam2.1_hiera_t.yaml",
    "small": "configs/sam2.1/sam2.1_hiera_s.yaml",
    "base_plus": "configs/sam2.1/sam2.1_hiera_b+.yaml",
    "large": "configs/sam2.1/sam2.1_hiera_l.yaml",
}
_STRIDE = 16  # of the image embeddings

# Ours: small enough to ship and to train on a CPU. The finest features have a stride of 4, as the official ones have.
_NANO_WIDTH, _NANO_STAGES, _NANO_PROMPT_DIM = 24, (1, 2, 5, 1), 128

# The layers that the paper adapts in every block of the trunk. LoRA and SVD also adapt the neck's convolutions.
_TRUNK_LAYERS = (
    "image_encoder.trunk.blocks.*.attn.qkv",
    "image_encoder.trunk.blocks.*.attn.proj",
    "image_encoder.trunk.blocks.*.mlp.layers.*",
)
_NECK_LAYERS = ("image_encoder.neck.convs.*.conv",)


@dataclass
class Sam2Parts:
    """The modules of SAM2's image part; the package adds `no_mem_embed` (1, 1, C) to an image without memory."""

    image_encoder: ImageEncoder
    prompt_encoder: PromptEncoder
    mask_decoder: MaskDecoder
    no_mem_embed: nn.Parameter
    prompt_dim: int


def yaml_of(sam_type: str) -> str:
    """The package's SAM 2.1 config of a size."""
    return _YAMLS[sam_type]


def default_targets(method: str) -> Sequence[str]:
    """Name patterns of the layers that an adapter method replaces by default."""
    return _TRUNK_LAYERS if method == "salt" else _TRUNK_LAYERS + _NECK_LAYERS


def build_sam2_parts(sam_type: str, img_size: int) -> Sam2Parts:
    """SAM2's image part with random weights.

    Args:
        sam_type: "tiny", "small", "base_plus" or "large" of the package, or our "nano".
        img_size: side of the square images, a multiple of 32. The trunk resizes its positions to it.
    """
    parts = _nano_parts(img_size) if sam_type == "nano" else _official_parts(sam_type, img_size)
    parts.image_encoder.neck.position_encoding = _NoPositions()
    return parts


class _NoPositions(nn.Module):
    """Replaces the neck's position encoding, which is as large as its features and used by the memory alone."""

    def forward(self, features: Tensor) -> Tensor:
        return features.new_empty(0)


def _official_parts(sam_type: str, img_size: int) -> Sam2Parts:
    model = build_sam2(_YAMLS[sam_type], None, device="cpu", hydra_overrides_extra=[f"++model.image_size={img_size}"])
    decoder = model.sam_mask_decoder
    return Sam2Parts(
        model.image_encoder.train(),
        model.sam_prompt_encoder.train(),
        decoder.train(),
        model.no_mem_embed,
        decoder.transformer_dim,
    )


def _nano_parts(img_size: int) -> Sam2Parts:
    dim = _NANO_PROMPT_DIM
    trunk = Hiera(
        embed_dim=_NANO_WIDTH,
        num_heads=1,
        stages=_NANO_STAGES,
        window_spec=(8, 4, 8, 4),
        global_att_blocks=(6,),
        window_pos_embed_bkg_spatial_size=(8, 8),
    )
    neck = FpnNeck(
        PositionEmbeddingSine(dim),
        dim,
        trunk.channel_list,
        fpn_interp_model="nearest",
        fpn_top_down_levels=[2, 3],
    )
    grid = img_size // _STRIDE
    prompt_encoder = PromptEncoder(dim, (grid, grid), (img_size, img_size), mask_in_chans=16)
    decoder = MaskDecoder(
        transformer_dim=dim,
        transformer=TwoWayTransformer(depth=2, embedding_dim=dim, mlp_dim=512, num_heads=4),
        iou_head_hidden_dim=dim,
        use_high_res_features=True,
        iou_prediction_use_sigmoid=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
    )
    no_mem_embed = nn.Parameter(torch.empty(1, 1, dim))
    nn.init.trunc_normal_(no_mem_embed, std=0.02)
    return Sam2Parts(ImageEncoder(trunk, neck, scalp=1), prompt_encoder, decoder, no_mem_embed, dim)
