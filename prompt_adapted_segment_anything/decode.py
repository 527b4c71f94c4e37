"""SAM's mask decoder for a batch of images with one prompt each."""

import torch
from segment_anything.modeling import MaskDecoder
from torch import Tensor


def decode_masks(
    decoder: MaskDecoder, image_embeddings: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor
) -> tuple[Tensor, Tensor]:
    """Mask logits of the single-mask output (`multimask_output=False`), and the features that they come from.

    The stock decoder takes one image with many prompts; a loop of it over the images gives the same result.

    Args:
        image_embeddings: (B, C, h, w), the image encoder's output.
        image_pe: (1, C, h, w), `PromptEncoder.get_dense_pe()`.
        sparse: (B, T, C) prompt tokens, T for each image.
        dense: (B or 1, C, h, w) or (1, C, 1, 1) dense prompt embedding.

    Returns:
        Logits (B, 4 h, 4 w) and features (B, C / 8, 4 h, 4 w).
    """
    B, C, h, w = image_embeddings.shape
    output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])  # (1 + masks, C)
    tokens = torch.cat([output_tokens.expand(B, -1, -1), sparse], dim=1)
    tokens_out, source = decoder.transformer(
        image_embeddings + dense, image_pe.expand(B, -1, -1, -1), tokens
    )  # (B, 1 + masks + T, C), (B, h * w, C)
    upscaled = decoder.output_upscaling(source.transpose(1, 2).reshape(B, C, h, w))  # (B, C / 8, 4 h, 4 w)
    hyper = decoder.output_hypernetworks_mlps[0](tokens_out[:, 1])  # (B, C / 8): token 0 is the IoU's, 1 the mask's
    return torch.einsum("bc,bchw->bhw", hyper, upscaled), upscaled
