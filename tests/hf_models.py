"""transformers' own SAM and SAM2 with the nano models' sizes and random weights."""

import torch
from torch import Tensor, nn
from transformers import Sam2Config, Sam2Model, SamConfig, SamModel

WIDTHS = [24, 48, 96, 192]


def random_sam(img_size: int = 32) -> SamModel:
    """SamModel, every weight random."""
    prompts = {"hidden_size": 128, "image_size": img_size, "patch_size": 8}
    config = SamConfig(
        vision_config={
            "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "image_size": img_size,
            "patch_size": 8, "window_size": 8, "global_attn_indexes": [2], "output_channels": 128, "num_pos_feats": 64,
        },
        prompt_encoder_config=prompts,
        mask_decoder_config={
            "hidden_size": 128, "mlp_dim": 512, "num_attention_heads": 4, "iou_head_hidden_dim": 128
        },
    )  # fmt: skip
    return _randomized(SamModel, config)


def random_sam2(img_size: int = 64) -> Sam2Model:
    """Sam2Model, every weight random."""
    config = Sam2Config(
        vision_config={
            "model_type": "sam2_vision_model",
            "backbone_config": {
                "model_type": "sam2_hiera_det_model", "hidden_size": 24, "embed_dim_per_stage": WIDTHS,
                "blocks_per_stage": [1, 2, 5, 1], "num_attention_heads_per_stage": [1, 2, 4, 8],
                "window_size_per_stage": [8, 4, 8, 4], "global_attention_blocks": [6],
                "window_positional_embedding_background_size": [8, 8],
            },
            "backbone_channel_list": WIDTHS[::-1],
            "backbone_feature_sizes": [[img_size // stride] * 2 for stride in (4, 8, 16)],
            "fpn_hidden_size": 128,
        },
        prompt_encoder_config={"hidden_size": 128, "image_size": img_size},
        mask_decoder_config={
            "hidden_size": 128, "mlp_dim": 512, "num_attention_heads": 4, "iou_head_hidden_dim": 128
        },
    )  # fmt: skip
    model = _randomized(Sam2Model, config)
    model.prompt_encoder.shared_embedding.positional_embedding.copy_(model.shared_image_embedding.positional_embedding)
    return model


def _randomized(kind, config) -> nn.Module:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(5)
        model = kind(config)
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


@torch.no_grad()
def box_logits(model: nn.Module, pixels: Tensor, boxes: Tensor) -> Tensor:
    """The single mask of each image (B, 3, S, S) for its box (B, 4): logits (B, S, S)."""
    low_res = model(pixel_values=pixels, input_boxes=boxes[:, None], multimask_output=False).pred_masks[:, :, 0]
    return nn.functional.interpolate(low_res, size=pixels.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
