"""Prompt_Adapted_SAM: SAM prompted by a label's text, a box or clicks."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder
from torch import Tensor, nn

from checkpointing.load_report import LoadReport
from networks.prompted import PromptedModel
from prompt_adapted_segment_anything import (
    DEFAULT_TARGETS,
    GEOMETRIES,
    SAM_PREFIXES,
    build_image_encoder,
    build_mask_decoder,
    build_prompt_encoder,
    decode_masks,
    hf_config,
    load_sam,
    to_hf,
)
from utils.config import Config


class Prompt_Adapted_SAM(PromptedModel):
    """SAM with one prompt per image and a single mask as output; parameter names are segment_anything's."""

    image_encoder: ImageEncoderViT
    prompt_encoder: PromptEncoder
    mask_decoder: MaskDecoder
    decode_masks = staticmethod(decode_masks)

    def __init__(self, config: Config, labels: Sequence[str], encode_text: bool = True) -> None:
        super().__init__(config)
        geometry = self.geometry = GEOMETRIES[config.sam.sam_type]
        self.image_encoder = build_image_encoder(geometry, self.img_size, config.sam.encoder_attention)
        self.prompt_encoder = build_prompt_encoder(geometry, self.img_size)
        self.mask_decoder = build_mask_decoder(geometry)
        self.add_own_parts(config, labels, geometry.prompt_dim, encode_text)

    def embed_image(self, images: Tensor) -> Tensor:
        """Image embeddings (B, C, S / patch, S / patch)."""
        return self.image_encoder(images)

    def encode(self, images: Tensor) -> list[Tensor]:
        return [self.image_encoder(images)]

    def from_encoded(self, encoded: Sequence[Tensor]) -> Tensor:
        return encoded[0]

    def box_tokens(self, boxes: Tensor) -> Tensor:
        with torch.autocast(boxes.device.type, enabled=False):
            sparse, _ = self.prompt_encoder(points=None, boxes=boxes, masks=None)  # (B, 2, C): the two corners
        return sparse

    def load_base(self, state: Mapping[str, Tensor], path: Path, config: Config) -> LoadReport:
        return load_sam(self, state, path, config.sam.pos_embed_resize)

    def base_state(self) -> dict[str, Tensor]:
        return {key: value for key, value in self.state_dict().items() if key.startswith(SAM_PREFIXES)}

    def hf_model(self, state: Mapping[str, Tensor], img_size: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return to_hf(state), hf_config(self.geometry, img_size)

    def default_targets(self, method: str) -> Sequence[str]:
        return DEFAULT_TARGETS

    def encoder_blocks(self) -> Iterator[nn.Module]:
        yield from self.image_encoder.blocks

    def positions(self) -> Iterator[nn.Parameter]:
        yield self.image_encoder.pos_embed

    def uncounted_parameters(self) -> Iterator[nn.Parameter]:
        """The relative positions, which the model that the paper counted does not have."""
        yield from (p for name, p in self.image_encoder.named_parameters() if ".rel_pos_" in name)
