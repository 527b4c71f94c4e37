"""What SAM and SAM2 share: a text or box prompt, and the groups of parameters that the strategies train."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from networks.base import SegmentationModel
from networks.text_prompt.encoder import build_text_affine, build_text_encoder
from utils.config import Config


class PromptedModel(SegmentationModel):
    """A SAM with one prompt per image, a label's text or (for evaluation) a box, and a single mask as output.

    Subclasses have the modules image_encoder, prompt_encoder and mask_decoder under their package's parameter names.
    """

    image_encoder: nn.Module
    prompt_encoder: Any  # the package's PromptEncoder
    mask_decoder: Any  # the package's MaskDecoder
    text_affine: nn.Sequential
    decode_masks: Callable[..., Tensor]  # (mask decoder, what `embed` gave, its positions, tokens, dense embedding)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.img_size = config.sam.img_size
        self.prompt = config.prompts.type
        self.text_repeat = config.prompts.NUM_TEXT_REPEAT

    def add_text_prompt(self, config: Config, labels: Sequence[str], prompt_dim: int, encode: bool) -> None:
        """Adds text encoder and affine layer for a text prompt; called last, so that their parameters come last."""
        if self.prompt == "text":
            self.text_encoder = build_text_encoder(config.prompts, labels, encode)
            self.text_affine = build_text_affine(prompt_dim, config.prompts.text_affine_norm)

    def text_tokens(self, labels: Sequence[str]) -> Tensor:
        """The prompt tokens (B, T, C) of B labels, T = NUM_TEXT_REPEAT.

        Raises:
            ValueError: the model is prompted by boxes.
        """
        if self.text_encoder is None:
            raise ValueError(f"the prompt of this model is {self.prompt}: it needs boxes")
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

    def load_text_prompt(self, other: SegmentationModel) -> list[str]:
        """Copies the text affine layer, and the learned features if the labels are the same too."""
        mine, theirs = self.text_encoder, other.text_encoder
        if mine is None or theirs is None or type(mine) is not type(theirs):
            return []
        copied = ("text_affine.", "text_encoder.embedding.") if mine.labels == theirs.labels else ("text_affine.",)
        target, source = self.state_dict(), other.state_dict()
        keys = [key for key in target if key.startswith(copied) and key in source]
        if any(target[key].shape != source[key].shape for key in keys):
            return []
        self.load_state_dict({key: source[key] for key in keys}, strict=False)
        return keys

    def positions(self) -> Iterator[nn.Parameter]:
        """The image encoder's learned positions."""
        raise NotImplementedError

    def always_trained(self) -> Iterator[nn.Parameter]:
        """Positions, LayerNorms, text affine layer and learned features.

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

    def unused_decoder_parts(self) -> Sequence[nn.Module]:
        """The parts of the mask decoder on which the single-mask output does not depend."""
        return (self.mask_decoder.iou_prediction_head, *self.mask_decoder.output_hypernetworks_mlps[1:])

    def decoder_parameters(self) -> Iterator[nn.Parameter]:
        unused = {id(p) for part in self.unused_decoder_parts() for p in part.parameters()}
        yield from (p for p in self.mask_decoder.parameters() if id(p) not in unused)

    def all_used_parameters(self) -> Iterator[nn.Parameter]:
        yield from self.image_encoder.parameters()
        yield self.prompt_encoder.no_mask_embed.weight
        yield from self.decoder_parameters()
        yield from self.text_parameters()
