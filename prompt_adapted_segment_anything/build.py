"""SAM at any image size, from segment_anything's own modules."""

from dataclasses import dataclass
from functools import partial

from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer
from torch import nn

from prompt_adapted_segment_anything.blocks import EncoderBlock
from utils.config.options import EncoderAttention


@dataclass(frozen=True)
class SamGeometry:
    """The sizes that distinguish SAM's variants."""

    embed_dim: int
    depth: int
    num_heads: int
    global_attn_indexes: tuple[int, ...]
    patch_size: int = 16
    window_size: int = 14
    prompt_dim: int = 256
    decoder_mlp_dim: int = 2048
    decoder_heads: int = 8


GEOMETRIES: dict[str, SamGeometry] = {
    # Ours: small enough to ship and to train on a CPU. Patches of 8 keep thin vessels visible at 256 pixels.
    "nano": SamGeometry(128, 4, 4, (2,), 8, 8, prompt_dim=128, decoder_mlp_dim=512, decoder_heads=4),
    "base": SamGeometry(768, 12, 12, (2, 5, 8, 11)),
    "large": SamGeometry(1024, 24, 16, (5, 11, 17, 23)),
    "huge": SamGeometry(1280, 32, 16, (7, 15, 23, 31)),
}

# The layers that the paper adapts: every block's qkv, proj, lin1, lin2, and the neck's two convolutions.
DEFAULT_TARGETS = (
    "image_encoder.blocks.*.attn.qkv",
    "image_encoder.blocks.*.attn.proj",
    "image_encoder.blocks.*.mlp.lin1",
    "image_encoder.blocks.*.mlp.lin2",
    "image_encoder.neck.0",
    "image_encoder.neck.2",
)


def build_image_encoder(
    geometry: SamGeometry, img_size: int, encoder_attention: EncoderAttention = "official"
) -> ImageEncoderViT:
    """SAM's ViT for `img_size` (a multiple of 16): images (B, 3, S, S) -> (B, prompt_dim, S / patch, S / patch).

    `encoder_attention="released"` builds what the released SALT code trains: every block attends globally and no
    block has relative positions.
    """
    official = encoder_attention == "official"
    encoder = ImageEncoderViT(
        img_size=img_size,
        patch_size=geometry.patch_size,
        embed_dim=geometry.embed_dim,
        depth=geometry.depth,
        num_heads=geometry.num_heads,
        mlp_ratio=4,
        out_chans=geometry.prompt_dim,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=official,
        window_size=geometry.window_size if official else 0,
        global_attn_indexes=geometry.global_attn_indexes,
    )
    encoder.blocks = nn.ModuleList(EncoderBlock(block) for block in encoder.blocks)
    return encoder


def build_prompt_encoder(geometry: SamGeometry, img_size: int) -> PromptEncoder:
    """SAM's prompt encoder for the grid of `img_size`."""
    grid = img_size // geometry.patch_size
    return PromptEncoder(
        embed_dim=geometry.prompt_dim,
        image_embedding_size=(grid, grid),
        input_image_size=(img_size, img_size),
        mask_in_chans=16,
    )


def build_mask_decoder(geometry: SamGeometry) -> MaskDecoder:
    """SAM's mask decoder, the same for every image size."""
    return MaskDecoder(
        num_multimask_outputs=3,
        transformer=TwoWayTransformer(
            depth=2,
            embedding_dim=geometry.prompt_dim,
            mlp_dim=geometry.decoder_mlp_dim,
            num_heads=geometry.decoder_heads,
        ),
        transformer_dim=geometry.prompt_dim,
        iou_head_depth=3,
        iou_head_hidden_dim=geometry.prompt_dim,
    )
