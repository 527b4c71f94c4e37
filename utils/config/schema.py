"""The sections of a config: every key, its type, its range and its default.

The defaults here are those of `profile: official`; `utils.config.resolve` holds what other profiles change. Rules that
need keys of two sections live there as well; a rule inside one section is a validator here. Nothing is coerced: a
quoted number is text, `true` is no number.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

SAM_ARCH, SAM2_ARCH = "Prompt Adapted SAM", "Prompt Adapted SAM 2"
BASELINE_ARCHS = ("unet", "unetr", "regunet", "segnet", "deeplabv3plus", "segformer", "unetplusplus", "segresnet")
ARCHITECTURES = (SAM_ARCH, SAM2_ARCH, *BASELINE_ARCHS)
# The sizes of each, the default first.
SAM_TYPES = {
    SAM_ARCH: ("base", "large", "huge", "nano"),
    SAM2_ARCH: ("base_plus", "tiny", "small", "large", "nano"),
}
LOSS_PARTS = ("focal", "dice", "bce")

Strategy = Literal["salt", "svd", "svdbiastuning", "lora", "biastuning", "decoder", "full", "none"]
AdapterType = Literal["salt", "svd", "lora"]


def _to_path(value: Any) -> Any:
    if not isinstance(value, str | Path):
        raise ValueError("must be a path")
    if not str(value).strip():
        raise ValueError("must be a path, not an empty text")
    return Path(value).expanduser()


def only(allowed: Any) -> AfterValidator:
    def check(value: Any) -> Any:
        if value != allowed:
            raise ValueError(f"asks for something that is not built; the only value so far is {_yaml_word(allowed)}")
        return value

    return AfterValidator(check)


def _yaml_word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


FilePath = Annotated[Path, BeforeValidator(_to_path)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Rank = Annotated[int, Field(ge=0)]
Channels = Annotated[list[float], Field(min_length=3, max_length=3)]
ImageSize = Annotated[int, Field(gt=0, multiple_of=16)]
NotBuiltUnlessFalse = Annotated[bool, only(False)]


class Section(BaseModel):
    """A block of keys: unknown keys are refused, values are not coerced, and nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataTransformsConfig(Section):
    """Normalization and augmentation. Intensities a_min..a_max map to 0..255; mean and std are on that scale."""

    a_min: float | None = None
    a_max: float | None = None
    img_size: ImageSize = 512
    use_random_crop: bool = False
    use_rotation: bool = False
    rotation_angle: Annotated[float, Field(ge=0, le=180)] = 10
    use_saturation: bool = False
    saturation: NotNegative = 0.2
    use_brightness: bool = False
    brightness: NotNegative = 0.2
    use_horizontal_flip: bool = False
    use_vertical_flip: bool = False
    use_random_scale: bool = False
    random_scale: Annotated[list[Positive], Field(min_length=2, max_length=2)] = [0.8, 1.2]
    pixel_mean: Channels = [123.675, 116.28, 103.53]
    pixel_std: Annotated[list[Positive], Field(min_length=3, max_length=3)] = [58.395, 57.12, 57.375]

    @field_validator("a_max")
    @classmethod
    def _window_has_width(cls, a_max: float | None, info: ValidationInfo) -> float | None:
        a_min = info.data.get("a_min")
        if a_min is not None and a_max is not None and a_max <= a_min:
            raise ValueError(f"must be greater than a_min = {a_min}")
        return a_max

    @field_validator("random_scale")
    @classmethod
    def _scale_is_a_range(cls, bounds: list[float]) -> list[float]:
        if bounds[0] > bounds[1]:
            raise ValueError("must be [smallest, largest]")
        return bounds


class DataConfig(Section):
    """One dataset. `name` and `data_split_csv` are filled in from `root_path` where they are left out.

    `fold_num` is the fold that is tested, where the split file has folds (see `datasets.split`); 0 where it has none.
    """

    root_path: FilePath
    name: Annotated[str, Field(min_length=1)] | None = None
    data_split_csv: FilePath | None = None
    fold_num: Annotated[int, Field(ge=0)] = 0
    label_list: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2)] = [0, 1]
    label_names: list[Annotated[str, Field(min_length=1)]]
    val: Literal["val", "test", "train"] = "val"
    volume_channel: int | None = None
    negative_to_positive_ratio: float | None = None
    num_workers: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="before")
    @classmethod
    def _fill_from_root(cls, values: Any) -> Any:
        root = values.get("root_path") if isinstance(values, dict) else None
        if not isinstance(root, str | Path) or not str(root).strip():
            return values
        root = Path(root).expanduser()
        filled = {"name": root.resolve().name or "data", "data_split_csv": root / "data_split.csv"}
        return filled | {key: value for key, value in values.items() if value is not None}

    @field_validator("label_list")
    @classmethod
    def _labels_differ(cls, labels: list[int]) -> list[int]:
        if len(set(labels)) != len(labels):
            raise ValueError("must not repeat a label")
        return labels

    @field_validator("label_names")
    @classmethod
    def _one_name_a_label(cls, names: list[str], info: ValidationInfo) -> list[str]:
        if len(set(names)) != len(names):
            raise ValueError("must not repeat a name")
        labels = info.data.get("label_list")
        if labels is not None and len(labels) != len(names):
            raise ValueError(f"must hold one name for each of the {len(labels)} labels in label_list")
        return names


class SamConfig(Section):
    """The frozen SAM or SAM2: its size, its input, and the released implementation's quirks as options.

    `img_size` holds for the baselines too. `encoder_attention` and `pos_embed_resize` are SAM's, `high_res_features`
    SAM2's.
    """

    img_size: ImageSize = 512
    num_classes: Annotated[int, Field(ge=1)] = 2
    sam_type: Literal["nano", "tiny", "small", "base", "base_plus", "large", "huge"] = "base"
    encoder_attention: Literal["official", "released"] = "official"
    pos_embed_resize: Literal["bicubic", "avg_pool"] = "bicubic"
    high_res_features: bool = True
    weights: Literal["pretrained", "random"] = "pretrained"


class BaselineConfig(Section):
    """A traditional network: the paper's size, or a nano one for tests and small CPU runs."""

    size: Literal["paper", "nano"] = "paper"


class PromptsConfig(Section):
    """The prompt: a label's text, or for evaluation alone a box. The three visual-prompt keys at the end are unused.

    `type` box_full prompts with the whole image, box_oracle with the box around the true mask.
    """

    USE_TEXT_PROMPT: Annotated[bool, only(True)] = True
    NUM_TEXT_REPEAT: Annotated[int, Field(ge=1)] = 1
    USE_IMAGE_PROMPT: NotBuiltUnlessFalse = False
    USE_SLICE_NUM: NotBuiltUnlessFalse = False
    type: Literal["text", "box_full", "box_oracle"] = "text"
    text_encoder: Literal["clip", "learned"] = "clip"
    clip_path: FilePath | None = None
    templates: Annotated[list[str], Field(min_length=1)] = ["{label}"]
    text_affine_norm: Literal["layernorm", "batchnorm"] = "layernorm"
    LOCATION: Any = None
    DROPOUT: Any = None
    NUM_TOKENS: Any = None

    @field_validator("templates")
    @classmethod
    def _templates_name_the_label(cls, templates: list[str]) -> list[str]:
        if not all("{label}" in template for template in templates):
            raise ValueError("must hold {label} in each text")
        return templates


class TrainingConfig(Section):
    """Optimizer, schedule, loss, and how a step is computed.

    `schedule_step` and `steps` count epochs, `warmup_steps` optimizer steps. `batch_size` is what one step of the
    optimizer sees, over all processes; each computes its share in `accumulate_steps` parts.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: Positive = 1e-4
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    batch_size: Annotated[int, Field(ge=1)] = 5
    num_epochs: Annotated[int, Field(ge=1)] = 200
    schedular: Literal["step", "multistep", "cosine", "constant"] = "step"
    schedule_step: Annotated[int, Field(ge=1)] = 100
    schedule_step_factor: Positive = 0.2
    steps: list[Annotated[int, Field(ge=1)]] = Field([], validate_default=True)
    decay_factor: Positive = 0.1
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    weight_decay: NotNegative = 1e-2
    loss: str = "focal+dice"
    focal_alpha: Annotated[float, Field(ge=0, le=1)] = 0.75
    focal_gamma: NotNegative = 3.0
    focal_on: Literal["logits", "probabilities"] = "logits"
    reg_multiplier: NotNegative = 0.01
    clip_grad_norm: Positive | None = None
    val_every: Annotated[int, Field(ge=1)] = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    accumulate_steps: Annotated[int, Field(ge=1)] = 1
    gradient_checkpointing: bool = False
    compile: bool = False
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    sync_batch_norm: bool = True
    deterministic: bool = False

    @field_validator("accumulate_steps")
    @classmethod
    def _parts_divide_the_batch(cls, parts: int, info: ValidationInfo) -> int:
        batch_size = info.data.get("batch_size")
        if batch_size is not None and batch_size % parts:
            raise ValueError(f"must divide batch_size = {batch_size}, which is what one step sees in all")
        return parts

    @field_validator("steps")
    @classmethod
    def _steps_serve_multistep(cls, steps: list[int], info: ValidationInfo) -> list[int]:
        if info.data.get("schedular") == "multistep" and not steps:
            raise ValueError("must list at least one epoch where schedular is multistep")
        if sorted(set(steps)) != steps:
            raise ValueError("must list epochs in rising order")
        return steps

    @field_validator("focal_gamma")
    @classmethod
    def _slope_is_finite(cls, gamma: float) -> float:
        if 0 < gamma < 1:
            raise ValueError("must be 0 or at least 1: in between, the focal loss has infinite slopes")
        return gamma

    @field_validator("loss")
    @classmethod
    def _known_loss_parts(cls, loss: str) -> str:
        parts = loss.split("+")
        if not set(parts) <= set(LOSS_PARTS) or len(set(parts)) != len(parts):
            raise ValueError(f"must join some of {', '.join(LOSS_PARTS)} with '+', each at most once")
        return loss


class RankPattern(Section):
    """Ranks of the layers whose name matches one pattern; what is left out stays as the section `ft` says."""

    svd_rank: Rank | None = None
    r_lora: Rank | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.svd_rank is None and self.r_lora is None:
            raise ValueError("must set svd_rank, r_lora or both")
        return self


class FtConfig(Section):
    """The adapters: kind, ranks (a rank above a layer's own is found when the layer is built), targets and start.

    `svd_ratio`, where it is set, stands for both svd ranks: that share of each layer's min(out, in). `relu` is SALT's:
    where ReLU acts on its core, `adapters.salt`. `svd_cache` keeps the decompositions of a base file's weights on disk.
    """

    type: AdapterType | None = None
    svd_rank_linear: Rank = 500
    svd_rank_conv2d: Rank = 250
    svd_ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    r_lora: Rank = 4
    r_lora_above_rank: Literal["error", "clamp", "allow"] = "error"
    rank_pattern: dict[str, RankPattern] = {}
    targets: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] | None = None
    salt_init: Literal["identity", "normal"] = "identity"
    salt_init_std: NotNegative = 0.01
    relu: Literal["core", "diagonal", "none"] = "core"
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    svd_cache: bool = True
