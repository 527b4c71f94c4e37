"""What exported files are loaded into: the untouched packages' own classes with the nano models' sizes."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn

from prompt_adapted_SAM2 import build_sam2_parts

# (pixels (B, 3, S, S), prompt tokens (B, T, C)) -> image embeddings and mask logits (B, S, S).
Stock = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def stock_nano_sam(state: Mapping[str, Tensor], img_size: int) -> Sam:
    """segment_anything's Sam of the nano model's sizes, loaded strictly."""
    grid = (img_size // 8, img_size // 8)
    encoder = ImageEncoderViT(
        img_size=img_size, patch_size=8, embed_dim=128, depth=4, num_heads=4, out_chans=128, window_size=8,
        norm_layer=partial(nn.LayerNorm, eps=1e-6), use_rel_pos=True, global_attn_indexes=(2,),
    )  # fmt: skip
    transformer = TwoWayTransformer(depth=2, embedding_dim=128, mlp_dim=512, num_heads=4)
    decoder = MaskDecoder(transformer_dim=128, transformer=transformer, iou_head_depth=3, iou_head_hidden_dim=128)
    parts = encoder, PromptEncoder(128, grid, (img_size, img_size), mask_in_chans=16), decoder
    sam = Sam(*parts, pixel_mean=[123.675, 116.28, 103.53], pixel_std=[58.395, 57.12, 57.375]).eval()
    sam.load_state_dict(state, strict=True)
    return sam


def stock_sam(state: Mapping[str, Tensor], img_size: int) -> Stock:
    """Image embeddings and masks of segment_anything's Sam."""
    sam = stock_nano_sam(state, img_size)

    def run(pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        embedded = sam.image_encoder(pixels)
        _, dense = sam.prompt_encoder(points=None, boxes=None, masks=None)
        low_res, _ = sam.mask_decoder(
            image_embeddings=embedded,
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=tokens,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        return embedded, sam.postprocess_masks(low_res, (img_size, img_size), (img_size, img_size))[:, 0]

    return torch.no_grad()(run)


def stock_sam2(state: Mapping[str, Tensor], img_size: int) -> Stock:
    """The sam2 package's image encoder, prompt encoder and mask decoder, each loaded strictly."""
    stock = build_sam2_parts("nano", img_size)
    names = {
        "image_encoder": "image_encoder",
        "sam_prompt_encoder": "prompt_encoder",
        "sam_mask_decoder": "mask_decoder",
    }
    for theirs, name in names.items():
        part = {k.removeprefix(theirs + "."): v for k, v in state.items() if k.startswith(theirs + ".")}
        getattr(stock, name).eval().load_state_dict(part, strict=True)

    def run(pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        fine, middle, coarse = stock.image_encoder(pixels)["backbone_fpn"]
        embedded = coarse + state["no_mem_embed"].view(1, -1, 1, 1)
        _, dense = stock.prompt_encoder(points=None, boxes=None, masks=None)
        low_res, _, _, _ = stock.mask_decoder(
            image_embeddings=embedded,
            image_pe=stock.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=tokens,
            dense_prompt_embeddings=dense,
            multimask_output=False,
            repeat_image=False,
            high_res_features=[stock.mask_decoder.conv_s0(fine), stock.mask_decoder.conv_s1(middle)],
        )
        size = (img_size, img_size)
        return embedded, nn.functional.interpolate(low_res, size=size, mode="bilinear", align_corners=False)[:, 0]

    return torch.no_grad()(run)
