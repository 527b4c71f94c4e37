"""SAM2's mask decoder for a batch of images with one prompt each."""

from collections.abc import Sequence

from sam2.modeling.sam.mask_decoder import MaskDecoder
from torch import Tensor


def decode_masks(
    decoder: MaskDecoder, embedded: Sequence[Tensor], image_pe: Tensor, sparse: Tensor, dense: Tensor
) -> tuple[Tensor, Tensor]:
    """Mask logits of the single-mask output (`multimask_output=False`), and the features that they come from.

    Args:
        embedded: the image embeddings (B, C, h, w) and, where the decoder uses them, high-resolution features
            (B, C / 8, 4 h, 4 w) and (B, C / 4, 2 h, 2 w).
        image_pe: (1, C, h, w), `PromptEncoder.get_dense_pe()`.
        sparse: (B, T, C) prompt tokens, T for each image.
        dense: dense prompt embedding, (1, C, 1, 1) or, where a mask is shown, (B, C, h, w).

    Returns:
        Logits (B, 4 h, 4 w) and features (B, C / 8, 4 h, 4 w).
    """
    features: list[Tensor] = []  # The package's decoder does not return them.
    hook = decoder.output_upscaling[-1].register_forward_hook(lambda _module, _inputs, output: features.append(output))
    try:
        masks, _, _, _ = decoder(
            image_embeddings=embedded[0],
            image_pe=image_pe,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
            repeat_image=False,
            high_res_features=list(embedded[1:]),
        )
    finally:
        hook.remove()
    return masks[:, 0], features[0]
