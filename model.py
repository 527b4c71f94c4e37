"""Builds the model of a config, saves it and loads it."""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

import adapters
from checkpointing import weights_file
from checkpointing.base_weights import find_base
from checkpointing.hugging_face import base_file
from checkpointing.shards import weights_sha256
from checkpointing.svd_cache import cached_decompose
from checkpointing.tensor_files import read_tensor_file, unwrapped_state_dict
from data_transforms.data_transforms import Data_Transform
from networks.base import SegmentationModel
from networks.baselines.model import BaselineModel
from networks.strategies import apply_strategy, freeze
from prediction.ensemble import average
from prediction.predictor import Predictor
from prompt_adapted_SAM2.model import Prompt_Adapted_SAM2
from prompt_adapted_segment_anything.model import Prompt_Adapted_SAM
from utils.config import Config
from utils.config.options import SAM2_ARCH, SAM_ARCH
from utils.config.sources import parse_override
from utils.errors import ConfigError, UserError

__all__ = [
    "Prompt_Adapted_SAM",
    "Prompt_Adapted_SAM2",
    "build_model",
    "load_model",
    "load_models",
    "load_trained",
    "save_model",
]

log = logging.getLogger(__name__)

_PREDICTION_SECTIONS = ("data_transforms", "evaluation")


def build_model(
    config: Config, counted_only: bool = False, encode_text: bool = True, load_base: bool = True
) -> SegmentationModel:
    """The model of a config: builds the architecture, loads base weights, injects adapters, freezes the rest.

    Args:
        config: resolved and checked.
        counted_only: builds on the meta device, without weights and decompositions, to count parameters.
        encode_text: False leaves CLIP's features zero, for a weights file to fill in.
        load_base: False leaves the base weights random, for a weights file that holds the whole model.

    Raises:
        ConfigError: no base weights and `sam.weights` is not "random"; a rank above a layer's; a pattern that matches
            no layer, or (`training.freeze`) no trained parameter.
        UserError: the base weights do not fit; CLIP's weights are missing.
    """
    model = _architecture(config, counted_only, encode_text and not counted_only)
    if load_base and not counted_only:
        _load_base_weights(model, config)
    if config.ft.type:
        _inject_adapters(model, config.ft.type, config)
    apply_strategy(model, config.strategy, config.decoder_training)
    if config.strategy != "none":
        freeze(model, config.training.freeze)
    return model


def _architecture(config: Config, on_meta: bool, encode_text: bool) -> SegmentationModel:
    labels = config.data.label_names[1:] if config.data else ["Foreground"]
    if config.arch == SAM2_ARCH:
        model = Prompt_Adapted_SAM2(config, labels, encode_text)
        return model.to("meta") if on_meta else model  # the package reads values from tensors while it builds
    with torch.device("meta") if on_meta else nullcontext():
        if config.arch == SAM_ARCH:
            return Prompt_Adapted_SAM(config, labels, encode_text)
        return BaselineModel(config, labels)


def _load_base_weights(model: SegmentationModel, config: Config) -> None:
    if config.pretrained_path is not None:
        _load_base_file(model, config.pretrained_path, config)
    elif config.arch not in (SAM_ARCH, SAM2_ARCH):
        log.info("%s starts from random weights", config.arch)
    elif config.sam.weights == "random":
        log.warning("the model starts from random weights (sam.weights: random)")
    else:
        raise ConfigError(
            "no base weights: give --pretrained_path with a SAM checkpoint (python main.py download --list), "
            "or --set sam.weights=random for noise"
        )


def _load_base_file(model: SegmentationModel, path: Path, config: Config) -> None:
    """Loads an official file or transformers' folder, or the merged model of this project's weights file, with text
    prompt and detail head."""
    path = base_file(path)
    content, metadata = read_tensor_file(path)
    if weights_file.as_weights(content, metadata) is None:
        report = model.load_base(unwrapped_state_dict(content, path), path, config)
    else:
        trained, _ = load_trained(path)
        if any(adapters.adapted_layers(adapters.merge(trained))):
            raise UserError(
                f"{path}: has adapters that cannot be merged, so that it can't be the base of another model"
            )
        report = model.load_base(trained.base_state(), path, config)
        report.loaded += model.load_own_parts(trained)
    model.base_sha256 = weights_sha256(path)
    log.info("%s: %s", path, report)


def _inject_adapters(model: SegmentationModel, method: str, config: Config) -> None:
    ft = config.ft
    given: dict[str, Any] = dict(ft)
    if ft.svd_cache and model.base_sha256:  # random weights differ in every run: keeping their factors is of no use
        given["decompose"] = cached_decompose
    options = {name: given[name] for name in adapters.METHODS[method].options if name in given}
    pattern = {name: rule.model_dump(exclude_none=True) for name, rule in ft.rank_pattern.items()}
    ranks = adapters.RankRule(
        ft.svd_rank_linear,
        ft.svd_rank_conv2d,
        ft.r_lora,
        pattern,
        ft.svd_ratio,
        ft.r_lora_above_rank,
        ft.rank_rule,
        ft.rank_energy,
    )
    try:
        adapters.inject(model, method, ft.targets or model.default_targets(method), ranks, **options)
    except adapters.AdapterError as error:
        raise ConfigError(f"ft: {error}") from error


def save_model(model: SegmentationModel, config: Config, path: Path, epoch: int) -> None:
    """Writes a trained model's weights file: the trained weights, and as metadata config, hashes and epoch."""
    metadata = {
        "config": config.to_yaml(),
        "base_sha256": model.base_sha256,
        "clip_sha256": model.clip_sha256,
        "epoch": str(epoch),
    }
    weights_file.save_weights(path, weights_file.trained_state(model, everything=not model.base_sha256), metadata)


def load_model(
    path: Path | str,
    pretrained_path: Path | str | None = None,
    device: torch.device | str = "cpu",
    overrides: Sequence[str] = (),
) -> Predictor:
    """The trained model of a weights file, ready to use on images: `load_model(path).predict(image, "Vein")`.

    The adapters are merged into plain layers, so that the model is as fast as its base.

    Args:
        path: a weights file of this project: a run's, or one that `export --format full` wrote.
        pretrained_path: the base weights, if they have moved since training.
        device: the device that the model runs on.
        overrides: `section.key=value` texts for how images are prepared and masks are made: keys of data_transforms and
            evaluation.

    Raises:
        UserError: as `load_trained`.
        ConfigError: an override of another section, or of an unknown key.
    """
    for override in overrides:
        if (section := parse_override(override)[0][0]) not in _PREDICTION_SECTIONS:
            known = " and ".join(_PREDICTION_SECTIONS)
            raise ConfigError(f"--set {override}: a trained model's {section} is fixed; keys of {known} may differ")
    return as_predictor(*load_trained(path, pretrained_path, overrides), device)


def load_models(
    paths: Sequence[Path | str],
    pretrained_path: Path | str | None = None,
    device: torch.device | str = "cpu",
    tile_overlap: float | None = None,
    overrides: Sequence[str] = (),
) -> Predictor:
    """The models of several weights files as one predictor, which averages their probabilities. Args as `load_model`.

    Raises:
        UserError: as `load_trained`; models of other labels, mask values or intensities than the first.
    """
    predictors = [load_model(path, pretrained_path, device, overrides) for path in paths]
    return average(predictors, [str(path) for path in paths], tile_overlap)


def as_predictor(model: SegmentationModel, config: Config, device: torch.device | str) -> Predictor:
    """A model that `load_trained` returned, ready to use on images; its adapters are merged."""
    adapters.merge(model)
    model.requires_grad_(False).to(device)
    return predictor_of(model, config, torch.device(device))


def predictor_of(model: SegmentationModel, config: Config, device: torch.device) -> Predictor:
    """A model on `device`, in evaluation mode, as it is, with the preprocessing of its config."""
    data, transform = config.require_data(), Data_Transform(config.data_transforms, train=False)
    return Predictor(model, transform, data.label_names[1:], data.label_list, device, evaluation=config.evaluation)


def load_trained(
    path: Path | str, pretrained_path: Path | str | None = None, overrides: Sequence[str] = ()
) -> tuple[SegmentationModel, Config]:
    """The model of a weights file with its adapters, in evaluation mode, and its config.

    Args:
        path: a weights file of this project.
        pretrained_path: the base weights, if they have moved since training and lie in no folder of weights.
        overrides: `section.key=value` texts that replace keys of its config.

    Raises:
        UserError: an unreadable file; base weights that are missing or are not those of the training.
    """
    path = Path(path)
    saved = weights_file.read_weights(path)
    config = Config.from_yaml(saved.metadata["config"], str(path), overrides)
    base_sha256 = saved.metadata["base_sha256"]
    if base_sha256:
        named = config.pretrained_path if pretrained_path is None else Path(pretrained_path)
        config = config.model_copy(update={"pretrained_path": find_base(path, named, base_sha256)})
    model = build_model(config, encode_text=False, load_base=bool(base_sha256))
    if model.text_encoder is not None:
        model.text_encoder.weights_sha256 = saved.metadata.get("clip_sha256", "")
    try:
        weights_file.load_trained_state(model, saved.tensors, everything=not base_sha256)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return model.eval(), config
