"""Prompt_Adapted_SAM: SAM prompted by a label's text, and which of its parameters a strategy trains."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

import adapters
import checkpoint
from prompt_adapted_segment_anything import (
    ADAPTED_LAYERS,
    GEOMETRIES,
    SAM_PREFIXES,
    build_image_encoder,
    build_mask_decoder,
    build_prompt_encoder,
    decode_masks,
    load_sam,
)
from strategies import apply_strategy
from utils.config import Config
from utils.errors import ConfigError, UserError
from utils.files import sha256
from utils.tensor_files import read_tensor_file, unwrapped_state_dict
from utils.text_encoder import ClipTextEncoder, build_text_affine, build_text_encoder

log = logging.getLogger(__name__)


class Prompt_Adapted_SAM(nn.Module):
    """SAM with one prompt an image, a label's text or (for evaluation) a box, and a single mask out.

    Modules image_encoder, prompt_encoder and mask_decoder carry segment_anything's parameter names.
    """

    adapted_layers = ADAPTED_LAYERS

    def __init__(self, config: Config, labels: Sequence[str], encode_text: bool = True) -> None:
        super().__init__()
        geometry = GEOMETRIES[config.sam.sam_type]
        self.img_size = config.sam.img_size
        self.prompt = config.prompts.type
        self.text_repeat = config.prompts.NUM_TEXT_REPEAT
        self.image_encoder = build_image_encoder(geometry, self.img_size, config.sam.encoder_attention)
        self.prompt_encoder = build_prompt_encoder(geometry, self.img_size)
        self.mask_decoder = build_mask_decoder(geometry)
        self.text_encoder = None
        if self.prompt == "text":
            self.text_encoder = build_text_encoder(config.prompts, labels, encode_text)
            self.text_affine = build_text_affine(geometry.prompt_dim, config.prompts.text_affine_norm)
        self.base_sha256 = ""  # of the base weights' file, once loaded

    def forward(self, images: Tensor, labels: Sequence[str], boxes: Tensor | None = None) -> Tensor:
        """Mask logits of each image for its label.

        Args:
            images: (B, 3, S, S) float, normalized, S the model's image size.
            labels: B label names; a box prompt does not look at them.
            boxes: (B, 4) x0, y0, x1, y1 in pixels of the square, where the prompt is a box; else None.

        Returns:
            (B, S, S) float logits.
        """
        return self.decode(self.embed(images), labels, boxes)

    def embed(self, images: Tensor) -> Tensor:
        """The image embeddings (B, C, S / patch, S / patch) of (B, 3, S, S) images: all that no prompt changes."""
        return self.image_encoder(images)

    def decode(self, embeddings: Tensor, labels: Sequence[str], boxes: Tensor | None = None) -> Tensor:
        """Mask logits (B, S, S) from what `embed` gave; prompts as for `forward`."""
        low_res = decode_masks(
            self.mask_decoder,
            embeddings,
            self.prompt_encoder.get_dense_pe(),
            self._text_tokens(labels) if boxes is None else self._box_tokens(boxes),
            self.prompt_encoder.no_mask_embed.weight[..., None, None],  # (1, C, 1, 1)
        )
        size = (self.img_size, self.img_size)
        return nn.functional.interpolate(low_res[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]

    @property
    def clip_sha256(self) -> str:
        """The hash of the CLIP weights behind the prompts, "" without CLIP."""
        return self.text_encoder.weights_sha256 if isinstance(self.text_encoder, ClipTextEncoder) else ""

    def _text_tokens(self, labels: Sequence[str]) -> Tensor:
        text = self.text_affine(self.text_encoder(labels))  # (B, C)
        return text[:, None].expand(-1, self.text_repeat, -1)

    def _box_tokens(self, boxes: Tensor) -> Tensor:
        sparse, _ = self.prompt_encoder(points=None, boxes=boxes, masks=None)  # (B, 2, C): the two corners
        return sparse

    def load_base(self, path: Path, config: Config) -> None:
        """Loads base weights and logs what became of their keys.

        They are a SAM file of this architecture, or a weights file of this project: then the trained model, merged,
        with its text prompt as far as the two have the same.
        """
        content, metadata = read_tensor_file(path)
        if checkpoint.as_weights(content, metadata) is None:
            report = load_sam(self, unwrapped_state_dict(content, path), path, config.sam.pos_embed_resize)
        else:
            trained = adapters.merge(load_model(path)[0])
            state = {key: value for key, value in trained.state_dict().items() if key.startswith(SAM_PREFIXES)}
            report = load_sam(self, state, path, config.sam.pos_embed_resize)
            report.loaded += self._take_text_prompt(trained)
        self.base_sha256 = sha256(path)
        log.info("%s: %s", path, report)

    def _take_text_prompt(self, other: "Prompt_Adapted_SAM") -> list[str]:
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

    def always_trained(self) -> Iterator[nn.Parameter]:
        """What every parameter-efficient strategy trains: pos_embed, LayerNorms, text affine, learned labels.

        SAM's LayerNorm2d layers (neck, upscaling) stay frozen, as the paper's parameter counts show.
        """
        yield self.image_encoder.pos_embed
        for part in (self.image_encoder, self.mask_decoder):
            for module in part.modules():
                if isinstance(module, nn.LayerNorm):
                    yield from module.parameters()
        yield from self.text_parameters()

    def relative_positions(self) -> Iterator[nn.Parameter]:
        """The encoder's tables of relative positions."""
        yield from (p for name, p in self.image_encoder.named_parameters() if ".rel_pos_" in name)

    def text_parameters(self) -> Iterator[nn.Parameter]:
        """The text prompt's own parameters."""
        if self.text_encoder is None:
            return
        yield from self.text_affine.parameters()
        yield from self.text_encoder.parameters()

    def decoder_parameters(self) -> Iterator[nn.Parameter]:
        """The mask decoder's parameters that the single-mask output depends on (no IoU head, no multi-mask heads)."""
        unused = [self.mask_decoder.iou_prediction_head, *self.mask_decoder.output_hypernetworks_mlps[1:]]
        without_gradient = {id(p) for module in unused for p in module.parameters()}
        yield from (p for p in self.mask_decoder.parameters() if id(p) not in without_gradient)

    def all_used_parameters(self) -> Iterator[nn.Parameter]:
        """Every parameter that the output depends on."""
        yield from self.image_encoder.parameters()
        yield self.prompt_encoder.no_mask_embed.weight
        yield from self.decoder_parameters()
        yield from self.text_parameters()


def build_model(config: Config, counted_only: bool = False, encode_text: bool = True) -> Prompt_Adapted_SAM:
    """The model of a config: architecture, base weights, adapters, and what is trained.

    Args:
        config: resolved and checked.
        counted_only: on the meta device, without weights and decompositions, to count parameters.
        encode_text: False leaves CLIP's features zero, for a weights file to fill in.

    Raises:
        ConfigError: no base weights and `sam.weights` is not "random"; a rank above a layer's; a pattern without match.
        UserError: the base weights do not fit; CLIP's weights are missing.
    """
    labels = config.data.label_names[1:] if config.data else ["Foreground"]
    with torch.device("meta") if counted_only else nullcontext():
        model = Prompt_Adapted_SAM(config, labels, encode_text and not counted_only)
    if not counted_only:
        _load_base_weights(model, config)
    if config.ft.type:
        _inject_adapters(model, config.ft.type, config)
    apply_strategy(model, config.strategy, config.decoder_training)
    return model


def _load_base_weights(model: Prompt_Adapted_SAM, config: Config) -> None:
    if config.pretrained_path is not None:
        model.load_base(config.pretrained_path, config)
    elif config.sam.weights == "random":
        log.warning("the model starts from random weights (sam.weights: random)")
    else:
        raise ConfigError(
            "no base weights: give --pretrained_path with a SAM checkpoint (python main.py download --list), "
            "or --set sam.weights=random for noise"
        )


def _inject_adapters(model: Prompt_Adapted_SAM, method: str, config: Config) -> None:
    ft = config.ft
    options = {
        "salt": {"init": ft.salt_init, "init_std": ft.salt_init_std},
        "lora": {"dropout": ft.lora_dropout},
    }.get(method, {})
    pattern = {name: rule.model_dump(exclude_none=True) for name, rule in ft.rank_pattern.items()}
    ranks = adapters.RankRule(ft.svd_rank_linear, ft.svd_rank_conv2d, ft.r_lora, pattern)
    try:
        adapters.inject(model, method, ft.targets or model.adapted_layers, ranks, **options)
    except adapters.AdapterError as error:
        raise ConfigError(f"ft: {error}") from error


def save_model(model: nn.Module, config: Config, path: Path, epoch: int) -> None:
    """Writes the weights file of a trained model: what was trained, and as metadata config, base hash and epoch."""
    metadata = {
        "config": config.to_yaml(),
        "base_sha256": model.base_sha256,
        "clip_sha256": model.clip_sha256,
        "epoch": str(epoch),
    }
    checkpoint.save_weights(path, checkpoint.trained_state(model, everything=not model.base_sha256), metadata)


def load_model(path: Path | str, pretrained_path: Path | None = None) -> tuple[Prompt_Adapted_SAM, Config]:
    """The model of a weights file, ready to evaluate, and its config.

    Args:
        path: a weights file of this project.
        pretrained_path: where the base weights lie now, if they have moved since training.

    Raises:
        UserError: an unreadable file, or base weights that are missing or not those it was trained on.
    """
    path = Path(path)
    saved = checkpoint.read_weights(path)
    config = Config.from_yaml(saved.metadata["config"], str(path))
    if pretrained_path is not None:
        config = config.model_copy(update={"pretrained_path": pretrained_path})
    _check_base(path, config, saved.metadata["base_sha256"])
    model = build_model(config, encode_text=False)
    if isinstance(model.text_encoder, ClipTextEncoder):
        model.text_encoder.weights_sha256 = saved.metadata["clip_sha256"]
    try:
        checkpoint.load_trained_state(model, saved.tensors, everything=not saved.metadata["base_sha256"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return model.eval(), config


def _check_base(path: Path, config: Config, expected: str) -> None:
    base = config.pretrained_path
    if not expected:
        return
    if base is None or not base.is_file():
        raise UserError(f"{path}: needs its base weights {base}, which are not there; give --pretrained_path")
    if sha256(base) != expected:
        raise UserError(
            f"{path}: was trained on other base weights than {base} (sha256 {expected[:12]}...); give --pretrained_path"
        )
