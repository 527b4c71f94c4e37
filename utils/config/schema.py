"""The sections of a config: every key, its type, its range and its default.

The defaults are those of `profile: official`; `utils.config.resolve` has what other profiles change, and the rules over
keys of two sections. A rule inside one section is a validator here.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from utils.config.options import (
    BaseWeights,
    Count,
    CountOrZero,
    EncoderAttention,
    Epochs,
    FileName,
    FilePath,
    FocalGamma,
    FocalInput,
    ImageSize,
    LabelNames,
    Labels,
    Loss,
    MaskHead,
    Mean,
    Name,
    NetworkSize,
    NotBuiltUnlessFalse,
    NotNegative,
    OptimizerName,
    PosEmbedResize,
    Positive,
    Precision,
    PromptType,
    Sam2Type,
    SamType,
    Scale,
    ScaleRange,
    Schedule,
    Share,
    Split,
    Std,
    Templates,
    TextAffineNorm,
    TextEncoderType,
    TrackerNames,
    Workers,
    only,
    to_path,
)


class Section(BaseModel):
    """A block of keys, frozen. Unknown keys are refused. Values are not converted: a quoted number is text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataTransformsConfig(Section):
    """Normalization, scale and augmentation. Intensities a_min..a_max map to 0..255, the scale of mean and std.

    `scale: fit` resizes the longest side to img_size, as the paper does. `native` keeps the image's own pixels:
    training takes random crops of img_size, evaluation and prediction blend windows of img_size.
    """

    a_min: float | None = None
    a_max: float | None = None
    img_size: ImageSize = 512
    scale: Scale = "fit"
    use_random_crop: bool = False
    use_rotation: bool = False
    rotation_angle: Annotated[float, Field(ge=0, le=180)] = 10
    use_saturation: bool = False
    saturation: NotNegative = 0.2
    use_brightness: bool = False
    brightness: NotNegative = 0.2
    use_contrast: bool = False
    contrast: NotNegative = 0.2
    use_gamma: bool = False
    gamma: ScaleRange = [0.7, 1.5]
    use_blur: bool = False
    blur: ScaleRange = [0.3, 1.0]
    use_elastic: bool = False
    elastic: Positive = 100.0
    use_horizontal_flip: bool = False
    use_vertical_flip: bool = False
    use_random_scale: bool = False
    random_scale: ScaleRange = [0.8, 1.2]
    pixel_mean: Mean = [123.675, 116.28, 103.53]
    pixel_std: Std = [58.395, 57.12, 57.375]

    @field_validator("a_max")
    @classmethod
    def _window_has_width(cls, a_max: float | None, info: ValidationInfo) -> float | None:
        if a_max is not None and (a_min := info.data.get("a_min")) is not None and a_max <= a_min:
            raise ValueError(f"must be greater than a_min = {a_min}")
        return a_max


class DataConfig(Section):
    """One dataset. `name` and `data_split_csv` follow from `root_path` unless they are set.

    `fold_num` is the fold to test (see `datasets.split`). The best epoch is chosen on the split `val`; where the split
    file has no validation image, on `val_fraction` of the training images.
    """

    root_path: FilePath
    name: FileName | None = None
    data_split_csv: FilePath | None = None
    fold_num: CountOrZero = 0
    label_list: Labels = [0, 1]
    label_names: LabelNames
    val: Split = "val"
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.15
    volume_channel: int | None = None
    negative_to_positive_ratio: float | None = None
    num_workers: Workers = 0

    @model_validator(mode="before")
    @classmethod
    def _fill_from_root(cls, values: Any) -> Any:
        root = values.get("root_path") if isinstance(values, dict) else None
        if not isinstance(root, str | Path) or not str(root).strip():
            return values
        folder = Path(to_path(root))
        filled = {"name": folder.resolve().name or "data", "data_split_csv": folder / "data_split.csv"}
        return filled | {key: value for key, value in values.items() if value is not None}

    @field_validator("label_names")
    @classmethod
    def _one_name_a_label(cls, names: list[str], info: ValidationInfo) -> list[str]:
        labels = info.data.get("label_list")
        if labels is not None and len(labels) != len(names):
            raise ValueError(f"must hold one name for each of the {len(labels)} labels in label_list")
        return names


class SamConfig(Section):
    """The SAM or SAM2 that is fine-tuned: its size, its image size, and where the released implementation differs.

    `img_size` is also of the baselines, `encoder_attention` and `pos_embed_resize` of SAM, `high_res_features` of SAM2.
    `mask_head: detail` adds full resolution to the masks (`networks.detail_head`).
    """

    img_size: ImageSize = 512
    num_classes: Count = 2
    sam_type: Literal[SamType, Sam2Type] = "base"
    encoder_attention: EncoderAttention = "official"
    pos_embed_resize: PosEmbedResize = "bicubic"
    high_res_features: bool = True
    mask_head: MaskHead = "official"
    weights: BaseWeights = "pretrained"


class BaselineConfig(Section):
    """A traditional network: of the paper's size, or a nano one for tests and small CPU runs."""

    size: NetworkSize = "paper"


class PromptsConfig(Section):
    """The prompt: a label's text, a box around it, or clicks. The last three keys are accepted and unused.

    `type` mixed trains with all three, one drawn for each sample, and is evaluated by text. Two are only for
    evaluation: box_full prompts with the whole image, box_oracle with the box around the true mask.
    """

    USE_TEXT_PROMPT: Annotated[bool, only(True)] = True
    NUM_TEXT_REPEAT: Count = 1
    USE_IMAGE_PROMPT: NotBuiltUnlessFalse = False
    USE_SLICE_NUM: NotBuiltUnlessFalse = False
    type: PromptType = "text"
    clicks: Count = 3
    text_encoder: TextEncoderType = "clip"
    clip_path: FilePath | None = None
    templates: Templates = ["{label}"]
    text_affine_norm: TextAffineNorm = "layernorm"
    LOCATION: Any = None
    DROPOUT: Any = None
    NUM_TOKENS: Any = None


class TrainingConfig(Section):
    """Optimizer, schedule, loss, and how a step is computed.

    `schedule_step`, `steps` and `patience` count epochs, `warmup_steps` optimizer steps. Training ends after `patience`
    epochs without a better validation Dice. `batch_size` is the number of samples in one optimizer step over all
    processes; each process computes its share in `accumulate_steps` micro-batches.

    `label_weights` sets how often each label's samples are drawn, in an epoch of as many samples. `freeze` takes
    parameters that match a pattern out of what the strategy trains. `cache_embeddings` is for a frozen image encoder.
    """

    optimizer: OptimizerName = "adamw"
    lr: Positive = 1e-4
    momentum: Share = 0.9
    batch_size: Count = 5
    num_epochs: Count = 200
    schedular: Schedule = "step"
    schedule_step: Count = 100
    schedule_step_factor: Positive = 0.2
    steps: Epochs = Field(default=[], validate_default=True)
    decay_factor: Positive = 0.1
    warmup_steps: CountOrZero = 0
    weight_decay: NotNegative = 1e-2
    loss: Loss = "focal+dice"
    focal_alpha: Annotated[float, Field(ge=0, le=1)] = 0.75
    focal_gamma: FocalGamma = 3.0
    focal_on: FocalInput = "logits"
    cldice_iterations: Count = 10
    tversky_alpha: Annotated[float, Field(ge=0, le=1)] = 0.3
    reg_multiplier: NotNegative = 0.01
    clip_grad_norm: Positive | None = None
    val_every: Count = 1
    patience: Count | None = None
    label_weights: dict[str, Positive] = {}
    freeze: list[Name] = []
    cache_embeddings: NotNegative = 0
    precision: Precision = "fp32"
    accumulate_steps: Count = 1
    gradient_checkpointing: bool = False
    compile: bool = False
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    sync_batch_norm: bool = True
    deterministic: bool = False
    trackers: TrackerNames = ["tensorboard"]

    @field_validator("accumulate_steps")
    @classmethod
    def _micro_batches_are_equal(cls, accumulate_steps: int, info: ValidationInfo) -> int:
        if (batch_size := info.data.get("batch_size")) is not None and batch_size % accumulate_steps:
            raise ValueError(f"must divide batch_size = {batch_size}, the samples of one optimizer step")
        return accumulate_steps

    @field_validator("steps")
    @classmethod
    def _steps_serve_multistep(cls, steps: list[int], info: ValidationInfo) -> list[int]:
        if info.data.get("schedular") == "multistep" and not steps:
            raise ValueError("must list at least one epoch where schedular is multistep")
        return steps
