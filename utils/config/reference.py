"""Writes docs/config.md, every config key with type, range, default and purpose: `python -m utils.config.reference`."""

import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from utils.config.config import Config
from utils.files import PROJECT_ROOT, write_text

PAGE = PROJECT_ROOT / "docs" / "config.md"

PURPOSES = {
    "profile": "sets the defaults of the options in which the released code differs from the paper (docs/released.md)",
    "strategy": "what is trained: README, `--training_strategy`",
    "seed": "of splits drawn in training, batches, augmentation and new weights",
    "pretrained_path": "the base weights, `--pretrained_path`",
    "img_type": "published; only image is built",
    "arch": "the model",
    "use_fdn": "published; only false is built",
    "decoder_training": "trains the mask decoder as well",
    "mlp_transform": "published; only false is built",
    "model": "published, without effect",
    "use_salt": "published, without effect: `strategy` decides",
    "Hiera": "published, without effect",
    "data_transforms.a_min": "the intensity that becomes 0; not set: the file type's smallest",
    "data_transforms.a_max": "the intensity that becomes 255; not set: the file type's largest",
    "data_transforms.img_size": "longest side in pixels (native: crops and windows), padded; not set: `sam.img_size`",
    "data_transforms.scale": "resize images to img_size, or keep their pixels (crops to train, windows to predict)",
    "data_transforms.use_random_crop": "augmentation: a random part of the image",
    "data_transforms.use_rotation": "augmentation: rotation",
    "data_transforms.rotation_angle": "largest angle in degrees, to both sides",
    "data_transforms.use_saturation": "augmentation: saturation",
    "data_transforms.saturation": "factor drawn from 1 - value to 1 + value",
    "data_transforms.use_brightness": "augmentation: brightness",
    "data_transforms.brightness": "factor drawn from 1 - value to 1 + value",
    "data_transforms.use_contrast": "augmentation: contrast",
    "data_transforms.contrast": "factor drawn from 1 - value to 1 + value",
    "data_transforms.use_gamma": "augmentation: the intensities' exponent",
    "data_transforms.gamma": "smallest and largest exponent",
    "data_transforms.use_blur": "augmentation: Gaussian blur, half of the time",
    "data_transforms.blur": "smallest and largest standard deviation in pixels",
    "data_transforms.use_elastic": "augmentation: elastic deformation, half of the time",
    "data_transforms.elastic": "how far it moves pixels: torchvision's alpha, smoothed over 5 pixels",
    "data_transforms.use_horizontal_flip": "augmentation: mirror left and right, half of the time",
    "data_transforms.use_vertical_flip": "augmentation: mirror top and bottom, half of the time",
    "data_transforms.use_random_scale": "augmentation: zoom",
    "data_transforms.random_scale": "smallest and largest zoom",
    "data_transforms.pixel_mean": "subtracted from red, green, blue, on the scale 0..255",
    "data_transforms.pixel_std": "divides them then",
    "data.root_path": "the folder that holds images/ and masks/; a relative path starts at the file that says it",
    "data.name": "the dataset's name in results; not set: the folder's",
    "data.data_split_csv": "the split file; not set: data_split.csv in `root_path`",
    "data.fold_num": "the fold to test, where the split file has folds",
    "data.label_list": "the values of background and labels in masks, background first",
    "data.label_names": "their names; those of labels are the text prompts",
    "data.val": "the split that picks the best epoch",
    "data.val_fraction": "share of the training images that validate where the split file has none for it",
    "data.volume_channel": "published, without effect",
    "data.negative_to_positive_ratio": "published, without effect",
    "data.num_workers": "processes that load images; 0: the training process itself",
    "sam.img_size": "side of the model's square input in pixels, for all models; SAM2 needs a multiple of 32",
    "sam.num_classes": "published, without effect: `data.label_list` counts",
    "sam.sam_type": "size; SAM: base, large, huge, nano; SAM2: base_plus (its default), tiny, small, large, nano",
    "sam.encoder_attention": "released: all blocks attend globally, without relative positions (SAM)",
    "sam.pos_embed_resize": "how positions are fitted to the image size (SAM)",
    "sam.high_res_features": "the mask decoder uses the encoder's finer features (SAM2)",
    "sam.mask_head": "SAM's own masks at a quarter of the side, or a head that adds the details of the full resolution",
    "sam.weights": "random: starts without base weights",
    "baseline.size": "of a traditional network: the paper's, or a small one",
    "prompts.USE_TEXT_PROMPT": "published; only true is built",
    "prompts.NUM_TEXT_REPEAT": "how often the text's token is given to the decoder",
    "prompts.USE_IMAGE_PROMPT": "published; only false is built",
    "prompts.USE_SLICE_NUM": "published; only false is built",
    "prompts.type": "what the model is prompted by, in training and evaluation: docs/prompts.md",
    "prompts.clicks": "clicks on a sample, simulated in training and made by rule in evaluation",
    "prompts.text_encoder": "CLIP, or a trained embedding for each label",
    "prompts.clip_path": "CLIP's weights; not set: where `download clip_vit_b32` puts them",
    "prompts.templates": "the texts for a label, whose features are averaged",
    "prompts.text_affine_norm": "the norm after the text's trained layer",
    "prompts.LOCATION": "published, without effect",
    "prompts.DROPOUT": "published, without effect",
    "prompts.NUM_TOKENS": "published, without effect",
    "training.optimizer": "the optimizer",
    "training.lr": "learning rate",
    "training.momentum": "of sgd",
    "training.batch_size": "samples of one optimizer step, over all processes and micro-batches",
    "training.num_epochs": "epochs",
    "training.schedular": "how the learning rate falls",
    "training.schedule_step": "step: epochs between two changes",
    "training.schedule_step_factor": "step: the rate's factor at each",
    "training.steps": "multistep: the epochs of the changes, rising",
    "training.decay_factor": "multistep: the rate's factor at each",
    "training.warmup_steps": "optimizer steps in which the rate rises to `lr`",
    "training.weight_decay": "weight decay",
    "training.loss": "some of focal, dice, bce, cldice, tversky, focal_tversky, boundary, joined by +; "
    "with weights: focal:1+dice:1+cldice:0.5",
    "training.focal_alpha": "focal loss: the foreground's weight",
    "training.focal_gamma": "focal loss: its exponent; 0, or at least 1",
    "training.focal_on": "probabilities: the released code's double sigmoid",
    "training.cldice_iterations": "clDice loss: erosions; at least the largest vessel's radius in pixels",
    "training.tversky_alpha": "Tversky losses: the weight of false positives; false negatives have 1 - alpha",
    "training.reg_multiplier": "weight of the adapters' regularization",
    "training.clip_grad_norm": "largest norm of the gradients; not set: no limit",
    "training.patience": "training ends after so many epochs without a better validation; not with data.val: test",
    "training.val_every": "epochs between two validations",
    "training.label_weights": "how often a label's samples are drawn, {Fovea: 5}, others have 1; not set: each once",
    "training.freeze": "name patterns of parameters that are not trained after all: [mask_decoder.iou_token.*]",
    "training.cache_embeddings": "GiB of memory for what a frozen image encoder gives for each image, so that it "
    "runs once and not in every epoch; without augmentation only; 0: off",
    "training.precision": "number type of the computation; fp16 on GPUs alone",
    "training.accumulate_steps": "micro-batches of a step; must divide `batch_size`",
    "training.gradient_checkpointing": "less memory, about a third more time, the same gradients",
    "training.compile": "torch.compile of the image encoder",
    "training.ema_decay": "decay of a moving average of the weights, which is then validated and kept",
    "training.sync_batch_norm": "BatchNorm's statistics over all GPUs",
    "training.deterministic": "bitwise reproducible GPU kernels, where torch has them",
    "training.trackers": "where the numbers of each epoch go beside metrics.jsonl: docs/trackers.md",
    "evaluation.metrics": "what is computed for every test image; Dice and HD95 always are: README, Numbers to trust",
    "evaluation.nsd_tolerance": "surface Dice: the largest distance that counts as right, in pixels of the scored size",
    "evaluation.tta": "flips: predicts the mean over mirror images, in evaluation and in `predict`",
    "evaluation.threshold": "probability above which a pixel counts; val: chosen in training, on the validation images",
    "evaluation.hysteresis": "two thresholds instead, {low, high}: what is above low counts where it is connected to a "
    "pixel above high",
    "ft.type": "the adapters; not set: the strategy's",
    "ft.svd_rank_linear": "singular values that are scaled and shifted in a linear layer",
    "ft.svd_rank_conv2d": "the same in a convolution",
    "ft.svd_ratio": "replaces both: a share of each layer's singular values; 0.1 for SAM2 where no rank is set",
    "ft.r_lora": "rank of the low-rank update; adaptformer: width of the bottleneck",
    "ft.r_lora_above_rank": "what happens where it exceeds the smaller side of a layer's weight",
    "ft.rank_pattern": "ranks of single layers: {name pattern: {svd_rank, r_lora}}",
    "ft.rank_rule": "which singular values SALT scales: fixed, by the keys above; energy, stable_rank, prune: "
    "docs/ranks.md",
    "ft.rank_energy": "energy: the share of a weight's squared Frobenius norm that they hold",
    "ft.rank_penalty": "prune: weight of the penalty on ranks; 1 is what noise alone would move (AdamW)",
    "ft.rank_cut_at": "prune: share of the epochs after which the ranks are cut; 1: at the end",
    "ft.rank_budget": "prune: largest share of trained parameters after the cut; not set: drops what is 0 alone",
    "ft.targets": "name patterns of the adapted layers; not set: the paper's",
    "ft.salt_init": "normal: the released code's start, which is not the base model",
    "ft.salt_init_std": "standard deviation of the new weights",
    "ft.relu": "where SALT applies ReLU",
    "ft.lora_dropout": "LoRA, rsLoRA, DoRA, KaSA: share of the update's inputs that are dropped in training",
    "ft.lora_alpha": "scale of a low-rank update: alpha / rank, rslora: alpha / sqrt(rank); not set: a scale of 1, "
    "rslora: an alpha of 16",
    "ft.svd_cache": "keeps decompositions of base weights on disk",
}

_HEAD = """# Config keys

`--data_config` and `--model_config` are YAML files of these keys; a section may stand in either. An unknown key, a
wrong type or a value out of range is an error before anything is loaded. `--set section.key=value` changes any key.
"Published" marks keys of the released configuration files. `python -m utils.config.reference` writes this page.
"""


def page() -> str:
    """The page as Markdown. Raises: KeyError for a key without a purpose."""
    sections = {name: kind for name, field in Config.model_fields.items() if (kind := _section(field)) is not None}
    own = {name: field for name, field in Config.model_fields.items() if name not in sections}
    parts = [_HEAD, *_table("Outside of sections", "", own)]
    for name, kind in sections.items():
        summary = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
        parts += _table(f"{name}", f"{name}.", kind.model_fields, summary)
    return "\n".join(parts)


def keys() -> list[str]:
    """All keys, as users write them."""
    found = []
    for name, field in Config.model_fields.items():
        kind = _section(field)
        found += [name] if kind is None else [f"{name}.{key}" for key in kind.model_fields]
    return found


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kinds = [field.annotation, *get_args(field.annotation)]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _table(title: str, prefix: str, fields: dict[str, FieldInfo], summary: str = "") -> Iterator[str]:
    yield f"## {title}\n"
    if summary:
        yield f"{summary}\n"
    yield "| key | type and range | default | what for |\n|---|---|---|---|"
    for name, field in fields.items():
        cells = [f"`{prefix}{name}`", _type(field.annotation, field.metadata), _default(field), PURPOSES[prefix + name]]
        yield f"| {' | '.join(cell.replace('|', ', ') for cell in cells)} |"
    yield ""


def _type(kind: Any, metadata: Sequence[Any]) -> str:
    """Words for a type with its limits."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _type(inner[0], [*inner[1:], *metadata])
    if origin in (Union, types.UnionType):
        known = [each for each in inner if each is not type(None)]
        return " or ".join(dict.fromkeys(_type(each, metadata) for each in known))
    if origin is Literal:
        return _choices([value for each in inner for value in (get_args(each) or (each,))])
    if origin is list:
        return _limited(f"list of {_type(inner[0], [])}", metadata)
    if origin is dict or kind is dict:
        return "section"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return f"section of {', '.join(kind.model_fields)}"
    names = {bool: "true, false", int: "whole number", float: "number", str: "text", Path: "path", Any: "anything"}
    return _limited(names[kind], metadata)


def _choices(values: Sequence[Any]) -> str:
    return ", ".join(dict.fromkeys(f"`{value}`" for value in values))


def _limited(name: str, metadata: Sequence[Any]) -> str:
    limits = {key: getattr(part, key) for part in _flat(metadata) for key in _LIMITS if hasattr(part, key)}
    return ", ".join([name, *(words.format(limits[key]) for key, words in _LIMITS.items() if key in limits)])


_LIMITS = {
    "ge": "from {}",
    "gt": "above {}",
    "le": "to {}",
    "lt": "below {}",
    "multiple_of": "multiple of {}",
    "min_length": "at least {} long",
    "max_length": "at most {} long",
}


def _flat(metadata: Sequence[Any]) -> Iterator[Any]:
    for part in metadata:
        yield from part.metadata if isinstance(part, FieldInfo) else (part,)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is None:
        return "not set"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    write_text(PAGE, page())
