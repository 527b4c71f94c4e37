"""Prompt_Adapted_SAM: SAM prompted by a label's text, and which of its parameters a strategy trains."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import adapters
import checkpoint
from prompt_adapted_segment_anything import (
    ADAPTED_LAYERS,
    GEOMETRIES,
    build_image_encoder,
    build_mask_decoder,
    build_prompt_encoder,
    decode_masks,
    load_sam,
)
from utils.config import Config
from utils.errors import ConfigError, UserError
from utils.files import sha256
from utils.text_encoder import build_text_affine, build_text_encoder

log = logging.getLogger(__name__)

_BIAS_STRATEGIES = ("biastuning", "svdbiastuning")


class Prompt_Adapted_SAM(nn.Module):
    """SAM with one text prompt an image, no points, boxes or masks, and a single mask out.

    Modules image_encoder, prompt_encoder and mask_decoder carry segment_anything's parameter names.
    """

    adapted_layers = ADAPTED_LAYERS

    def __init__(self, config: Config, labels: Sequence[str], counted_only: bool = False) -> None:
        super().__init__()
        geometry = GEOMETRIES[config.sam.sam_type]
        self.img_size = config.sam.img_size
        self.text_repeat = config.prompts.NUM_TEXT_REPEAT
        self.image_encoder = build_image_encoder(geometry, self.img_size, config.sam.encoder_attention)
        self.prompt_encoder = build_prompt_encoder(geometry, self.img_size)
        self.mask_decoder = build_mask_decoder(geometry)
        self.text_encoder = build_text_encoder(config.prompts.text_encoder, labels, counted_only)
        self.text_affine = build_text_affine(geometry.prompt_dim, config.prompts.text_affine_norm)
        self.base_sha256 = ""  # of the base weights' file, once loaded

    def forward(self, images: Tensor, labels: Sequence[str]) -> Tensor:
        """Mask logits of each image for its label.

        Args:
            images: (B, 3, S, S) float, normalized, S the model's image size.
            labels: B label names.

        Returns:
            (B, S, S) float logits.
        """
        embeddings = self.image_encoder(images)  # (B, C, S / patch, S / patch)
        text = self.text_affine(self.text_encoder(labels))  # (B, C)
        low_res = decode_masks(
            self.mask_decoder,
            embeddings,
            self.prompt_encoder.get_dense_pe(),
            text[:, None].expand(-1, self.text_repeat, -1),
            self.prompt_encoder.no_mask_embed.weight[..., None, None],  # (1, C, 1, 1)
        )
        size = images.shape[-2:]
        return nn.functional.interpolate(low_res[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]

    def load_base(self, path: Path, config: Config) -> None:
        """Loads a SAM weights file of this architecture and logs what became of its keys."""
        report = load_sam(self, path, config.sam.pos_embed_resize)
        self.base_sha256 = sha256(path)
        log.info("%s: %s", path, report)

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


def apply_strategy(model: Prompt_Adapted_SAM, strategy: str, decoder_training: bool = False) -> None:
    """Sets requires_grad of every parameter to what `strategy` trains; adapters must be in place already."""
    model.requires_grad_(False)
    if strategy == "none":
        return
    if strategy == "full":
        trained = list(model.all_used_parameters())
    elif strategy == "decoder":
        trained = [*model.decoder_parameters(), *model.text_parameters()]
    else:
        trained = [*model.always_trained(), *adapters.adapter_parameters(model).values()]
        if strategy in _BIAS_STRATEGIES:
            trained += [p for name, p in model.image_encoder.named_parameters() if name.endswith(".bias")]
        if decoder_training:
            trained += list(model.decoder_parameters())
    for parameter in trained:
        parameter.requires_grad_(True)


def build_model(config: Config, counted_only: bool = False) -> Prompt_Adapted_SAM:
    """The model of a config: architecture, base weights, adapters, and what is trained.

    Args:
        config: resolved and checked.
        counted_only: on the meta device, without weights and decompositions, to count parameters.

    Raises:
        ConfigError: no base weights and `sam.weights` is not "random"; a rank above a layer's; a pattern without match.
        UserError: the base weights do not fit.
    """
    labels = config.data.label_names[1:] if config.data else ["Foreground"]
    with torch.device("meta") if counted_only else nullcontext():
        model = Prompt_Adapted_SAM(config, labels, counted_only)
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
            "no base weights: give --pretrained_path with a SAM checkpoint, or --set sam.weights=random for noise"
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
    metadata = {"config": config.to_yaml(), "base_sha256": model.base_sha256, "epoch": str(epoch)}
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
    model = build_model(config)
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


def parameter_counts(model: Prompt_Adapted_SAM) -> dict[str, Any]:
    """{"trainable", "total", "percent", "modules": {module: {"trainable", "total"}}}, counted the paper's way.

    That is: where CLIP gives the prompt, both its towers count; a weight held as singular factors counts once; and
    frozen tables of relative positions do not count, since the model that the paper counted has none.
    """
    modules = {}
    uncounted = sum(table.numel() for table in model.relative_positions() if not table.requires_grad)
    for name, part in model.named_children():
        trainable, total = adapters.count_parameters(part)
        modules[name] = {"trainable": trainable, "total": total + getattr(part, "frozen_parameters", 0)}
    modules["image_encoder"]["total"] -= uncounted
    trainable, total = (sum(counts[key] for counts in modules.values()) for key in ("trainable", "total"))
    return {"trainable": trainable, "total": total, "percent": 100 * trainable / total, "modules": modules}
