"""What SAM and SAM2 share: their prompts, and the groups of parameters that the strategies train."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from networks.base import SegmentationModel
from networks.detail_head import DetailHead
from networks.text_prompt.encoder import build_text_affine, build_text_encoder
from utils.config import Config
from utils.errors import UserError


class PromptedModel(SegmentationModel):
    """A SAM with one prompt per image and a single mask as output: a label's text, a box, or clicks.

    Clicks come one after another. Each is shown with those before it and with the mask before it, as its logits at the
    mask decoder's own resolution; SAM was trained so (Kirillov et al., 2023, appendix A).

    Subclasses have the modules image_encoder, prompt_encoder and mask_decoder under their package's parameter names.
    What the packages lack, text prompt and detail head, is here.
    """

    image_encoder: nn.Module
    prompt_encoder: Any  # the package's PromptEncoder
    mask_decoder: Any  # the package's MaskDecoder
    text_affine: nn.Sequential
    pads_boxes = False  # whether a padding token follows a box, as it follows clicks
    # (mask decoder, what `embed_image` gave, its positions, tokens, dense embedding) -> logits, features
    decode_masks: Callable[..., tuple[Tensor, Tensor]]

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.img_size = config.sam.img_size
        self.prompt: str = config.prompts.type
        self.clicks = config.prompts.clicks
        self.text_repeat = config.prompts.NUM_TEXT_REPEAT
        self.detail_head: DetailHead | None = None

    def add_own_parts(self, config: Config, labels: Sequence[str], prompt_dim: int, encode: bool) -> None:
        """Adds text prompt and detail head, where wanted; called last, so that their parameters come last."""
        if self.prompt in ("text", "mixed"):
            self.text_encoder = build_text_encoder(config.prompts, labels, encode)
            self.text_affine = build_text_affine(prompt_dim, config.prompts.text_affine_norm)
        if config.sam.mask_head == "detail":
            self.detail_head = DetailHead(prompt_dim // 8)

    def prompt_by(self, prompt: str, clicks: int | None = None) -> None:
        """Evaluates with another prompt, or another number of clicks, from now on. Raises: UserError without text."""
        if prompt == "text" and self.text_encoder is None:
            raise UserError(f"the model has no text prompt: it was trained with prompts.type = {self.prompt}")
        self.prompt, self.clicks = prompt, clicks or self.clicks

    def embed_image(self, images: Tensor) -> Any:
        """The image encoder's part of `embed`."""
        raise NotImplementedError

    def from_encoded(self, encoded: Sequence[Tensor]) -> Any:
        """What `embed_image` gives, from what `encode` gave."""
        raise NotImplementedError

    def embed(self, images: Tensor) -> tuple[Any, Any]:
        """What `embed_image` gives, and the detail head's image branch, None without that head."""
        return self.embed_image(images), self.detail_head.embed(images) if self.detail_head else None

    def embed_encoded(self, images: Tensor, encoded: Sequence[Tensor]) -> tuple[Any, Any]:
        return self.from_encoded(encoded), self.detail_head.embed(images) if self.detail_head else None

    def text_tokens(self, labels: Sequence[str]) -> Tensor:
        """The prompt tokens (B, T, C) of B labels, T = NUM_TEXT_REPEAT.

        Raises:
            ValueError: the model has no text prompt.
        """
        if self.text_encoder is None:
            needed = "clicks" if self.prompt == "points" else "boxes"
            raise ValueError(f"the prompt of this model is {self.prompt}: it needs {needed}")
        text = self.text_affine(self.text_encoder(labels))  # (B, C)
        return text[:, None].expand(-1, self.text_repeat, -1)

    def box_tokens(self, boxes: Tensor) -> Tensor:
        """The prompt tokens (B, T, C) of (B, 4) boxes."""
        raise NotImplementedError

    def point_tokens(self, points: Tensor, positive: Tensor) -> Tensor:
        """The prompt tokens (B, N + 1, C) of N clicks; the last is padding, as in the packages' predictors.

        Args:
            points: (B, N, 2) float, x and y in pixels of the square.
            positive: (B, N) bool: on the label, or on what is not the label.
        """
        with torch.autocast(points.device.type, enabled=False):  # bf16 would move points by pixels
            sparse, _ = self.prompt_encoder(points=(points, positive.int()), boxes=None, masks=None)
        return sparse

    def dense_prompt(self, low_res: Tensor | None) -> Tensor:
        """The embedding (B, C, h / 4, w / 4) of a mask's logits (B, h, w), or (1, C, 1, 1) of no mask."""
        if low_res is None:
            return self.prompt_encoder.no_mask_embed.weight[..., None, None]
        return self.prompt_encoder.mask_downscaling(low_res[:, None])

    def decode(self, embedded: Any, labels: Sequence[str], boxes: Tensor | None = None) -> Tensor:
        return self.decode_prompt(embedded, self.text_tokens(labels) if boxes is None else self.box_tokens(boxes))[0]

    def decode_prompt(self, embedded: Any, tokens: Tensor, low_res: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mask logits (B, S, S), and the mask decoder's own (B, h, w), which the next click is shown with.

        Args:
            embedded: as `embed` gives it.
            tokens: (B, T, C), as `text_tokens`, `box_tokens` or `point_tokens` give them.
            low_res: the mask before, (B, h, w) logits; None without one.
        """
        embedded_image, details = embedded
        low_res, features = self.decode_masks(
            self.mask_decoder, embedded_image, self.prompt_encoder.get_dense_pe(), tokens, self.dense_prompt(low_res)
        )  # (B, h, w), (B, C / 8, h, w)
        size = (self.img_size, self.img_size)
        logits = nn.functional.interpolate(low_res[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
        logits = logits if self.detail_head is None else logits + self.detail_head(details, features, low_res)
        return logits, low_res

    def load_own_parts(self, other: SegmentationModel) -> list[str]:
        """Copies detail head and text affine layer, and the learned features if the labels are the same too."""
        mine, theirs = self.text_encoder, other.text_encoder
        text: tuple[str, ...] = ()
        if mine is not None and theirs is not None and type(mine) is type(theirs):
            text = ("text_affine.", "text_encoder.embedding.") if mine.labels == theirs.labels else ("text_affine.",)
        target, source = self.state_dict(), other.state_dict()
        copied = []
        for prefixes in (text, ("detail_head.",)):
            keys = [key for key in target if key.startswith(prefixes) and key in source]
            if all(target[key].shape == source[key].shape for key in keys):
                copied += keys
        self.load_state_dict({key: source[key] for key in copied}, strict=False)
        return copied

    def hf_model(self, state: Mapping[str, Tensor], img_size: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights and config.json of transformers' model for images of `img_size`, from a merged `base_state`."""
        raise NotImplementedError

    def positions(self) -> Iterator[nn.Parameter]:
        """The image encoder's learned positions."""
        raise NotImplementedError

    def always_trained(self) -> Iterator[nn.Parameter]:
        """Positions, LayerNorms, and the prompt's own parameters.

        LayerNorm2d layers (neck, upscaling) stay frozen, as the paper's parameter counts show.
        """
        yield from self.positions()
        for part in (self.image_encoder, self.mask_decoder):
            for module in part.modules():
                if isinstance(module, nn.LayerNorm):
                    yield from module.parameters()
        yield from self.prompt_parameters()
        yield from self.detail_parameters()

    def encoder_biases(self) -> Iterator[nn.Parameter]:
        yield from (p for name, p in self.image_encoder.named_parameters() if name.endswith(".bias"))

    def prompt_parameters(self) -> Iterator[nn.Parameter]:
        """The text's affine layer and learned features; the embeddings of the clicks, boxes and masks that are used."""
        if self.text_encoder is not None:
            yield from self.text_affine.parameters()
            yield from self.text_encoder.parameters()
        encoder, clicks, boxes = (
            self.prompt_encoder,
            self.prompt in ("points", "mixed"),
            self.prompt in ("box", "mixed"),
        )
        parts: list[nn.Module] = []
        if clicks:
            parts += [*encoder.point_embeddings[:2], *([encoder.mask_downscaling] if self.clicks > 1 else [])]
        if boxes:
            parts += encoder.point_embeddings[2:]  # of the corners
        if clicks or (boxes and self.pads_boxes):
            parts.append(encoder.not_a_point_embed)
        yield from (parameter for part in parts for parameter in part.parameters())

    def detail_parameters(self) -> Iterator[nn.Parameter]:
        if self.detail_head is not None:
            yield from self.detail_head.parameters()

    def unused_decoder_parts(self) -> Sequence[nn.Module]:
        """The parts of the mask decoder on which the single-mask output does not depend."""
        return (self.mask_decoder.iou_prediction_head, *self.mask_decoder.output_hypernetworks_mlps[1:])

    def decoder_parameters(self) -> Iterator[nn.Parameter]:
        unused = {id(p) for part in self.unused_decoder_parts() for p in part.parameters()}
        yield from (p for p in self.mask_decoder.parameters() if id(p) not in unused)
        yield from self.detail_parameters()

    def all_used_parameters(self) -> Iterator[nn.Parameter]:
        yield from self.image_encoder.parameters()
        yield self.prompt_encoder.no_mask_embed.weight
        yield from self.decoder_parameters()
        yield from self.prompt_parameters()
