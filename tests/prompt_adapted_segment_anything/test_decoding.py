"""The batched decoder against the stock one, image by image."""

import torch

from prompt_adapted_segment_anything import GEOMETRIES, build_mask_decoder, build_prompt_encoder, decode_masks


def test_batch_equals_stock_decoder_image_by_image():
    torch.manual_seed(0)
    geometry = GEOMETRIES["nano"]
    decoder, prompts = build_mask_decoder(geometry), build_prompt_encoder(geometry, 64)
    embeddings, sparse = torch.randn(3, 128, 8, 8), torch.randn(3, 2, 128)
    dense = prompts.no_mask_embed.weight[..., None, None]
    ours, features = decode_masks(decoder, embeddings, prompts.get_dense_pe(), sparse, dense)
    for i in range(3):
        stock, _ = decoder(
            image_embeddings=embeddings[i : i + 1],
            image_pe=prompts.get_dense_pe(),
            sparse_prompt_embeddings=sparse[i : i + 1],
            dense_prompt_embeddings=dense.expand(1, -1, 8, 8),
            multimask_output=False,
        )
        assert torch.allclose(ours[i], stock[0, 0], atol=1e-5)
    assert features.shape == (3, 128 // 8, 32, 32)
