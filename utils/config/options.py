"""The allowed values of the options: named choices, ranges and paths."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from adapters.registry import METHODS
from utils.files import portable_path

BaselineArch = Literal[
    "unet", "unetr", "regunet", "segnet", "deeplabv3plus", "segformer", "unetplusplus", "segresnet", "dynunet",
    "detail_head",
]  # fmt: skip
Architecture = Literal["Prompt Adapted SAM", "Prompt Adapted SAM 2", BaselineArch]
SAM_ARCH: Literal["Prompt Adapted SAM"] = "Prompt Adapted SAM"
SAM2_ARCH: Literal["Prompt Adapted SAM 2"] = "Prompt Adapted SAM 2"
BASELINE_ARCHS: tuple[str, ...] = get_args(BaselineArch)

SamType = Literal["base", "large", "huge", "nano"]
Sam2Type = Literal["base_plus", "tiny", "small", "large", "nano"]
# The sizes of each SAM, the default first.
SAM_TYPES: dict[str, tuple[str, ...]] = {SAM_ARCH: get_args(SamType), SAM2_ARCH: get_args(Sam2Type)}
NetworkSize = Literal["paper", "nano"]

Profile = Literal["official", "released"]

# The adapter type of each strategy; None for those without adapters. A method of `adapters.METHODS` is a strategy too.
ADAPTER_TYPE: dict[str, str | None] = {
    **{name: name for name in METHODS},
    "svdbiastuning": "svd",
    "biastuning": None,
    "decoder": None,
    "full": None,
    "none": None,
}
if TYPE_CHECKING:
    Strategy = str
    AdapterType = str
else:
    Strategy = Literal[tuple(ADAPTER_TYPE)]
    AdapterType = Literal[tuple(METHODS)]

# Copies of the types in adapters/, whose files need torch. A test keeps both equal.
RankChoice = Literal["fixed", "energy", "stable_rank", "prune"]
RLoraAboveRank = Literal["error", "clamp", "allow"]
SaltInit = Literal["identity", "normal"]
Relu = Literal["core", "diagonal", "none"]

EncoderAttention = Literal["official", "released"]
PosEmbedResize = Literal["bicubic", "avg_pool"]
TestTimeAugmentation = Literal["none", "flips"]
Scale = Literal["fit", "native"]  # the longest side becomes img_size, or every pixel stays one
MaskHead = Literal["official", "detail"]
BaseWeights = Literal["pretrained", "random"]
TrainedPrompt = Literal["text", "box", "points", "mixed"]
PromptType = Literal[TrainedPrompt, "box_full", "box_oracle"]
TextEncoderType = Literal["clip", "learned"]
TextAffineNorm = Literal["layernorm", "batchnorm"]

Split = Literal["train", "val", "test"]
# What `data.val` means for the best epoch.
EPOCH_CHOSEN_ON: dict[Split, str] = {"train": "training images", "val": "validation images", "test": "test images"}
Weights = Literal["last", "best_val"]  # after the last epoch, or of the epoch with the best validation Dice
Size = Literal["img_size", "native"]  # scored at the model's image size (the paper's way) or at the image's own
Region = Literal["whole", "fov"]  # the whole image, or the field of view alone
MetricName = Literal[
    "dice", "iou", "sensitivity", "specificity", "precision", "accuracy", "mcc", "auc_roc", "average_precision", "ece",
    "cldice", "hd95", "assd", "nsd", "betti0_error", "thin_sensitivity",
]  # fmt: skip
# Those that need no probability.
MASK_METRIC_NAMES = [name for name in get_args(MetricName) if name not in ("auc_roc", "average_precision", "ece")]
OptimizerName = Literal["adamw", "sgd"]
Schedule = Literal["step", "multistep", "cosine", "constant"]
Precision = Literal["fp32", "bf16", "fp16"]
TrackerName = Literal["tensorboard", "wandb", "mlflow", "comet"]
LossPart = Literal["focal", "dice", "bce", "cldice", "tversky", "focal_tversky", "boundary"]
FocalInput = Literal["logits", "probabilities"]


def loss_parts(loss: str) -> dict[LossPart, float]:
    """The weights of a loss's parts: "focal+dice" or "focal:1+dice:1+cldice:0.5", 1 where none is given.

    Raises: ValueError for a part that is unknown or named twice, or a weight that is not above 0.
    """
    known = {part: part for part in get_args(LossPart)}
    parts: dict[LossPart, float] = {}
    for text in loss.split("+"):
        name, colon, weight = (piece.strip() for piece in text.partition(":"))
        if name not in known or name in parts:
            raise ValueError(f"must join some of {', '.join(known)} with '+', each at most once")
        try:
            parts[known[name]] = float(weight) if colon else 1.0
        except ValueError:
            parts[known[name]] = 0.0
        if not 0 < parts[known[name]] < float("inf"):
            raise ValueError(f"has '{weight}' as the weight of {name}; it must be a number above 0, as in {name}:0.5")
    return parts


def only(allowed: Any) -> AfterValidator:
    """A validator for a published key that has one supported value."""
    shown = str(allowed).lower() if isinstance(allowed, bool) else allowed
    return _rule(
        lambda value: value == allowed, f"asks for something that is not built; the only value so far is {shown}"
    )


def _rule(holds: Callable[[Any], bool], message: str) -> AfterValidator:
    def check(value: Any) -> Any:
        if not holds(value):
            raise ValueError(message)
        return value

    return AfterValidator(check)


def to_path(value: Any) -> Path:
    """A path, with the home folder for ~. Raises: ValueError for what is no path."""
    if not isinstance(value, str | Path):
        raise ValueError("must be a path")
    if not str(value).strip():
        raise ValueError("must be a path, not an empty text")
    if "\0" in str(value) or any("\ud800" <= letter <= "\udfff" for letter in str(value)):
        raise ValueError("must be a path of UTF-8 text")
    try:
        return Path(value).expanduser()
    except RuntimeError:  # HOME is not set
        raise ValueError("begins with ~, and there is no home folder; write the path in full") from None


def _is_plain(name: str) -> bool:
    return name.isprintable() and name.strip() == name


def _is_file_name(name: str) -> bool:
    return _is_plain(name) and not set(name) & set("/\\") and name not in (".", "..") and len(name.encode()) <= 100


def _make_distinct_files(names: list[str]) -> bool:
    return _are_distinct([name.replace("/", "_") for name in names])


def _threshold(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value != "val" and not (is_number and 0 < value < 1):
        raise ValueError("must be a number between 0 and 1, or val")
    return value


def _are_distinct(values: list[Any]) -> bool:
    return len(set(values)) == len(values)


FilePath = Annotated[Path, BeforeValidator(to_path), PlainSerializer(portable_path, when_used="json")]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
CountOrZero = Annotated[int, Field(ge=0, lt=2**31)]
Name = Annotated[str, Field(min_length=1)]
# A folder or file is named after it.
FileName = Annotated[Name, _rule(_is_file_name, "must be a plain name of at most 100 bytes, without slashes")]
NotBuiltUnlessFalse = Annotated[bool, only(False)]

ImageSize = Annotated[int, Field(gt=0, multiple_of=16)]
Mean = Annotated[list[float], Field(min_length=3, max_length=3)]
Std = Annotated[list[Positive], Field(min_length=3, max_length=3)]
ScaleRange = Annotated[
    list[Positive],
    Field(min_length=2, max_length=2),
    _rule(lambda bounds: bounds[0] <= bounds[1], "must be [smallest, largest]"),
]
MaskValue = Annotated[int, Field(ge=0, le=255)]
Labels = Annotated[list[MaskValue], Field(min_length=2), _rule(_are_distinct, "must not repeat a label")]
LabelNames = Annotated[
    list[Annotated[Name, _rule(_is_plain, "must be printable text without spaces around it")]],
    _rule(_are_distinct, "must not repeat a name"),
    _rule(_make_distinct_files, "names two labels whose files would have one name, since / becomes _"),
]
Workers = Annotated[int, Field(ge=0, le=256)]
Templates = Annotated[
    list[str],
    Field(min_length=1),
    _rule(lambda texts: all("{label}" in text for text in texts), "must hold {label} in each text"),
]
Metrics = Annotated[list[MetricName], _rule(_are_distinct, "must not repeat a metric")]
ProbabilityThreshold = Annotated[
    float | Literal["val"],
    BeforeValidator(_threshold),
]
TrackerNames = Annotated[list[TrackerName], _rule(_are_distinct, "must not repeat a tracker")]
Epochs = Annotated[list[Count], _rule(lambda epochs: sorted(set(epochs)) == epochs, "must list epochs in rising order")]
Loss = Annotated[str, AfterValidator(lambda loss: loss_parts(loss) and loss)]
FocalGamma = Annotated[
    float,
    Field(ge=0),
    # A saturated pixel would have a NaN gradient: the slope at p_t = 1 is infinite.
    _rule(
        lambda gamma: gamma == 0 or gamma >= 1,
        "must be 0 or at least 1: in between, the focal loss has infinite slopes",
    ),
]

# Published keys without effect here, each with the values that need no warning.
UNUSED_KEYS: dict[tuple[str, ...], tuple[Any, ...]] = {
    ("model",): (),
    ("Hiera",): (),
    ("prompts", "LOCATION"): (),
    ("prompts", "DROPOUT"): (),
    ("prompts", "NUM_TOKENS"): (),
    ("data", "volume_channel"): (-1,),
    ("data", "negative_to_positive_ratio"): (-1,),
}
