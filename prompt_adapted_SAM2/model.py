"""Prompt_Adapted_SAM2: SAM2's image part prompted by a label's text, a box or clicks."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from sam2.modeling.backbones.image_encoder import ImageEncoder
from sam2.modeling.sam.mask_decoder import MaskDecoder
from sam2.modeling.sam.prompt_encoder import PromptEncoder
from torch import Tensor, nn

from checkpointing.load_report import LoadReport
from networks.prompted import PromptedModel
from prompt_adapted_SAM2 import (
    build_sam2_parts,
    decode_masks,
    default_targets,
    hf_config,
    load_sam2,
    official_names,
    to_hf,
)
from utils.config import Config


class Prompt_Adapted_SAM2(PromptedModel):
    """SAM2 without its memory: one prompt per image and a single mask as output.

    Modules image_encoder, prompt_encoder and mask_decoder and the parameter no_mem_embed are the sam2 package's.
    """

    image_encoder: ImageEncoder
    prompt_encoder: PromptEncoder
    mask_decoder: MaskDecoder
    decode_masks = staticmethod(decode_masks)
    pads_boxes = True

    def __init__(self, config: Config, labels: Sequence[str], encode_text: bool = True) -> None:
        super().__init__(config)
        parts = build_sam2_parts(config.sam.sam_type, self.img_size)
        self.image_encoder = parts.image_encoder
        self.prompt_encoder = parts.prompt_encoder
        self.mask_decoder = parts.mask_decoder
        self.mask_decoder.use_high_res_features = config.sam.high_res_features
        # For a box that is not trained with, as in the package: where the single mask is unstable, take the best of the
        # three others. Training does not reach those, so the prompts that are trained with always use the single mask.
        self.mask_decoder.dynamic_multimask_via_stability = self.prompt in ("box_full", "box_oracle")
        self.no_mem_embed = parts.no_mem_embed
        self.add_own_parts(config, labels, parts.prompt_dim, encode_text)

    def embed_image(self, images: Tensor) -> list[Tensor]:
        """Image embeddings (B, C, S / 16, S / 16), then features at S / 4 and S / 8 if the decoder uses them."""
        return self.from_encoded(self.encode(images))

    def encode(self, images: Tensor) -> list[Tensor]:
        features = self.image_encoder(images)["backbone_fpn"]  # strides 4, 8, 16
        return features if self.mask_decoder.use_high_res_features else features[-1:]

    def from_encoded(self, encoded: Sequence[Tensor]) -> list[Tensor]:
        embedding = encoded[-1] + self.no_mem_embed.view(1, -1, 1, 1)
        if not self.mask_decoder.use_high_res_features:
            return [embedding]
        return [embedding, self.mask_decoder.conv_s0(encoded[0]), self.mask_decoder.conv_s1(encoded[1])]

    def box_tokens(self, boxes: Tensor) -> Tensor:
        """(B, 3, C): the corners as points of labels 2 and 3 and a padding token, as in the package's predictor."""
        corners = torch.tensor([2, 3], dtype=torch.int, device=boxes.device).expand(len(boxes), -1)
        with torch.autocast(boxes.device.type, enabled=False):
            sparse, _ = self.prompt_encoder(points=(boxes.view(-1, 2, 2), corners), boxes=None, masks=None)
        return sparse

    def dense_prompt(self, low_res: Tensor | None) -> Tensor:
        """As SAM's, of logits in the range to which the package's predictor limits a mask before it is shown again."""
        return super().dense_prompt(None if low_res is None else low_res.clamp(-32, 32))

    def load_base(self, state: Mapping[str, Tensor], path: Path, config: Config) -> LoadReport:
        return load_sam2(self, state, path)

    def base_state(self) -> dict[str, Tensor]:
        return official_names(self.state_dict())

    def hf_model(self, state: Mapping[str, Tensor], img_size: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return to_hf({key.removeprefix("sam_"): value for key, value in state.items()}), hf_config(self, img_size)

    def default_targets(self, method: str) -> Sequence[str]:
        return default_targets(method)

    def encoder_blocks(self) -> Iterator[nn.Module]:
        yield from self.image_encoder.trunk.blocks

    def positions(self) -> Iterator[nn.Parameter]:
        yield self.image_encoder.trunk.pos_embed
        yield self.image_encoder.trunk.pos_embed_window

    def unused_decoder_parts(self) -> Sequence[nn.Module]:
        decoder = self.mask_decoder
        high_res = () if decoder.use_high_res_features else (decoder.conv_s0, decoder.conv_s1)
        return (*super().unused_decoder_parts(), decoder.pred_obj_score_head, *high_res)

    def all_used_parameters(self) -> Iterator[nn.Parameter]:
        unused = set()
        if not self.mask_decoder.use_high_res_features:  # the neck's two finest levels feed nothing else
            unused = {id(p) for conv in self.image_encoder.neck.convs[-2:] for p in conv.parameters()}
        yield from (p for p in super().all_used_parameters() if id(p) not in unused)
        yield self.no_mem_embed
