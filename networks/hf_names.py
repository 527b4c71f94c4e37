"""SAM's parameter names in Hugging Face's transformers and in the official packages: what SAM and SAM2 share."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from utils.errors import UserError

Rule = tuple[str, str]  # an official name's beginning and transformers', with * for numbers

POSITIONS = "shared_image_embedding.positional_embedding"
# transformers ties it to the one above in SAM, and keeps a second buffer in SAM2.
POSITIONS_COPY = "prompt_encoder.shared_embedding.positional_embedding"


def head_rules(name: str) -> list[Rule]:
    """The rules of a multi-layer perceptron with three layers."""
    layers = ("proj_in.", "layers.0.", "proj_out.")
    return [(f"{name}.layers.{i}.", f"{name}.{layer}") for i, layer in enumerate(layers)]


# The prompt encoder without its points, and the mask decoder without its attention's projections.
SHARED_RULES: list[Rule] = [
    ("prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", POSITIONS),
    ("prompt_encoder.mask_downscaling.0.", "prompt_encoder.mask_embed.conv1."),
    ("prompt_encoder.mask_downscaling.1.", "prompt_encoder.mask_embed.layer_norm1."),
    ("prompt_encoder.mask_downscaling.3.", "prompt_encoder.mask_embed.conv2."),
    ("prompt_encoder.mask_downscaling.4.", "prompt_encoder.mask_embed.layer_norm2."),
    ("prompt_encoder.mask_downscaling.6.", "prompt_encoder.mask_embed.conv3."),
    ("prompt_encoder.no_mask_embed.", "prompt_encoder.no_mask_embed."),
    ("prompt_encoder.not_a_point_embed.", "prompt_encoder.not_a_point_embed."),
    *[
        (f"mask_decoder.transformer.layers.*.norm{i}.", f"mask_decoder.transformer.layers.*.layer_norm{i}.")
        for i in (1, 2, 3, 4)
    ],
    ("mask_decoder.transformer.norm_final_attn.", "mask_decoder.transformer.layer_norm_final_attn."),
    ("mask_decoder.output_upscaling.0.", "mask_decoder.upscale_conv1."),
    ("mask_decoder.output_upscaling.1.", "mask_decoder.upscale_layer_norm."),
    ("mask_decoder.output_upscaling.3.", "mask_decoder.upscale_conv2."),
    *head_rules("mask_decoder.output_hypernetworks_mlps.*"),
    *head_rules("mask_decoder.iou_prediction_head"),
    ("mask_decoder.iou_token.", "mask_decoder.iou_token."),
    ("mask_decoder.mask_tokens.", "mask_decoder.mask_tokens."),
]


def is_hf(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has transformers' names of SAM or SAM2."""
    return any(key.startswith(("vision_encoder.", "shared_image_embedding.")) for key in state)


class HfNames:
    """Translates the names of state dicts by rules; the first rule whose beginning fits counts."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._official = [(_pattern(theirs), official) for official, theirs in rules]
        self._theirs = [(_pattern(official), theirs) for official, theirs in rules]

    def from_hf(self, state: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Tensor], list[str]]:
        """The state under official names, and the keys that hold a copy. Keys without a rule stay as they are.

        Raises: UserError if both copies of the prompts' positions differ.
        """
        state, copies = dict(state), []
        if POSITIONS_COPY in state:
            copy = state.pop(POSITIONS_COPY)
            if POSITIONS in state:
                copies.append(POSITIONS_COPY)
            if not torch.equal(state.setdefault(POSITIONS, copy), copy):
                raise UserError(f"{path}: '{POSITIONS_COPY}' and '{POSITIONS}' differ; SAM has one for both")
        return {_renamed(key, self._official): value for key, value in state.items()}, copies

    def to_hf(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state under transformers' names."""
        return {_renamed(key, self._theirs): value for key, value in state.items()}


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\*", r"(\d+)"))


def _renamed(key: str, rules: Sequence[tuple[re.Pattern[str], str]]) -> str:
    for pattern, template in rules:
        if match := pattern.match(key):
            for number in match.groups():
                template = template.replace("*", number, 1)
            return template + key[match.end() :]
    return key
