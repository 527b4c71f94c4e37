"""What SAM and SAM2 share: a text or box prompt, and the groups of parameters that the strategies train."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import adapters
from checkpointing import weights_file
from checkpointing.load_report import LoadReport
from checkpointing.tensor_files import read_tensor_file, unwrapped_state_dict
from networks.base import SegmentationModel
from networks.text_prompt.encoder import build_text_affine, build_text_encoder
from utils.config import Config
from utils.files import sha256

log = logging.getLogger(__name__)


class PromptedModel(SegmentationModel):
    """A SAM: one prompt an image, a label's text or (for evaluation) a box, and a single mask out.

    Subclasses have the modules image_encoder, prompt_encoder and mask_decoder under their package's parameter names.
    """

    image_encoder: nn.Module
    prompt_encoder: nn.Module
    mask_decoder: nn.Module
    decode_masks: Callable[..., Tensor]  # (mask decoder, what `embed` gave, its positions, tokens, dense embedding)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.img_size = config.sam.img_size
        self.prompt = config.prompts.type
        self.text_repeat = config.prompts.NUM_TEXT_REPEAT

    def add_text_prompt(self, config: Config, labels: Sequence[str], prompt_dim: int, encode: bool) -> None:
        """Adds text encoder and affine layer, where the prompt is text; last, so that they come last in every list."""
        if self.prompt == "text":
            self.text_encoder = build_text_encoder(config.prompts, labels, encode)
            self.text_affine = build_text_affine(prompt_dim, config.prompts.text_affine_norm)

    def text_tokens(self, labels: Sequence[str]) -> Tensor:
        """The prompt tokens (B, T, C) of B labels, T = NUM_TEXT_REPEAT."""
        text = self.text_affine(self.text_encoder(labels))  # (B, C)
        return text[:, None].expand(-1, self.text_repeat, -1)

    def box_tokens(self, boxes: Tensor) -> Tensor:
        """The prompt tokens (B, T, C) of (B, 4) boxes."""
        raise NotImplementedError

    def decode(self, embedded: Any, labels: Sequence[str], boxes: Tensor | None = None) -> Tensor:
        low_res = self.decode_masks(
            self.mask_decoder,
            embedded,
            self.prompt_encoder.get_dense_pe(),
            self.text_tokens(labels) if boxes is None else self.box_tokens(boxes),
            self.prompt_encoder.no_mask_embed.weight[..., None, None],  # (1, C, 1, 1)
        )  # (B, h, w)
        size = (self.img_size, self.img_size)
        return nn.functional.interpolate(low_res[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]

    def load_state(self, state: Mapping[str, Tensor], path: Path, config: Config) -> LoadReport:
        """Loads the state dict of an official file into image encoder, prompt encoder and mask decoder."""
        raise NotImplementedError

    def base_state(self) -> dict[str, Tensor]:
        """The state dict that an official file would hold of this model, as far as this model has it."""
        raise NotImplementedError

    def load_base(self, path: Path, config: Config) -> None:
        """Loads base weights and logs what became of their keys.

        They are an official file of this architecture, or a weights file of this project: then the trained model,
        merged, with its text prompt as far as the two have the same.
        """
        content, metadata = read_tensor_file(path)
        if weights_file.as_weights(content, metadata) is None:
            report = self.load_state(unwrapped_state_dict(content, path), path, config)
        else:
            from model import load_trained  # which builds models, this one among them

            trained = adapters.merge(load_trained(path)[0])
            report = self.load_state(trained.base_state(), path, config)
            report.loaded += self._take_text_prompt(trained)
        self.base_sha256 = sha256(path)
        log.info("%s: %s", path, report)

    def _take_text_prompt(self, other: "PromptedModel") -> list[str]:
        """Copies the text affine layer, and learned labels, where `other` has the same; returns their keys."""
        if self.text_encoder is None or type(self.text_encoder) is not type(other.text_encoder):
            return []
        taken = ["text_affine."]
        if self.text_encoder.labels == other.text_encoder.labels:
            taken.append("text_encoder.embedding.")
        mine, theirs = self.state_dict(), other.state_dict()
        keys = [key for key in mine if key.startswith(tuple(taken)) and key in theirs]
        if any(mine[key].shape != theirs[key].shape for key in keys):
            return []
        self.load_state_dict({key: theirs[key] for key in keys}, strict=False)
        return keys

    def positions(self) -> Iterator[nn.Parameter]:
        """The image encoder's learned positions."""
        raise NotImplementedError

    def always_trained(self) -> Iterator[nn.Parameter]:
        """What every parameter-efficient strategy trains: positions, LayerNorms, text affine, learned labels.

        LayerNorm2d layers (neck, upscaling) stay frozen, as the paper's parameter counts show.
        """
        yield from self.positions()
        for part in (self.image_encoder, self.mask_decoder):
            for module in part.modules():
                if isinstance(module, nn.LayerNorm):
                    yield from module.parameters()
        yield from self.text_parameters()

    def encoder_biases(self) -> Iterator[nn.Parameter]:
        yield from (p for name, p in self.image_encoder.named_parameters() if name.endswith(".bias"))

    def text_parameters(self) -> Iterator[nn.Parameter]:
        if self.text_encoder is None:
            return
        yield from self.text_affine.parameters()
        yield from self.text_encoder.parameters()

    def idle_decoder_parts(self) -> Sequence[nn.Module]:
        """Parts of the mask decoder that the single-mask output does not depend on."""
        return (self.mask_decoder.iou_prediction_head, *self.mask_decoder.output_hypernetworks_mlps[1:])

    def decoder_parameters(self) -> Iterator[nn.Parameter]:
        idle = {id(p) for part in self.idle_decoder_parts() for p in part.parameters()}
        yield from (p for p in self.mask_decoder.parameters() if id(p) not in idle)

    def all_used_parameters(self) -> Iterator[nn.Parameter]:
        yield from self.image_encoder.parameters()
        yield self.prompt_encoder.no_mask_embed.weight
        yield from self.decoder_parameters()
        yield from self.text_parameters()
