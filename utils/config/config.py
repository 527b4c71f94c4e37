"""Configs: YAML files and `--set` overrides in, one checked and resolved `Config` out.

Any section may stand in either file. A key that stands in both must have one value; the command line overrides both.
A key set to null is a key left out.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError

from utils.config.errors import first_error
from utils.config.resolve import STRATEGY_OPTION, resolve
from utils.config.schema import (
    ARCHITECTURES,
    BaselineConfig,
    DataConfig,
    DataTransformsConfig,
    FilePath,
    FtConfig,
    NotBuiltUnlessFalse,
    PromptsConfig,
    SamConfig,
    Section,
    Strategy,
    TrainingConfig,
    only,
)
from utils.config.sources import COMMAND_LINE, Draft, dump_yaml, parse_override, parse_yaml, read_yaml
from utils.errors import ConfigError


def _known_architecture(arch: str) -> str:
    if arch not in ARCHITECTURES:
        raise ValueError(f"must be one of those built so far: {', '.join(ARCHITECTURES)}")
    return arch


class Config(Section):
    """A whole run. Make one with `load_config` or `Config.from_yaml`: they fill in what follows from other keys.

    `data` is None where only a model config was given. `ft.type` agrees with `strategy` (None: no adapters), and
    `sam.img_size` equals `data_transforms.img_size`. The keys `model`, `Hiera`, `use_salt` and some in `prompts` and
    `data` are accepted for the sake of published configs and never act; all but `use_salt` are None here.
    """

    profile: Literal["official", "released"] = "official"
    strategy: Strategy = "salt"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    pretrained_path: FilePath | None = None
    data_transforms: DataTransformsConfig = DataTransformsConfig()
    data: DataConfig | None = None
    sam: SamConfig = SamConfig()
    baseline: BaselineConfig = BaselineConfig()
    img_type: Annotated[str, only("image")] = "image"
    arch: Annotated[str, AfterValidator(_known_architecture)] = ARCHITECTURES[0]
    use_fdn: NotBuiltUnlessFalse = False
    decoder_training: bool = False
    mlp_transform: NotBuiltUnlessFalse = False
    model: Any = None
    use_salt: bool | None = None
    Hiera: dict[str, Any] | None = None
    prompts: PromptsConfig = PromptsConfig()
    training: TrainingConfig = TrainingConfig()
    ft: FtConfig = FtConfig()

    def require_data(self) -> DataConfig:
        """Return the `data` section. Raises ConfigError where there is none."""
        if self.data is None:
            raise ConfigError("config: the section data is missing; give --data_config")
        return self.data

    def to_yaml(self) -> str:
        """Return the resolved config as YAML; read back on its own it gives an equal Config."""
        return dump_yaml(self.model_dump(mode="json", exclude_none=True))

    @classmethod
    def from_yaml(cls, text: str, origin: str) -> Self:
        """Read a config from YAML text, such as a checkpoint's metadata; `origin` names it in errors.

        Raises:
            ConfigError: a bad key or value, or two that contradict each other.
        """
        draft = Draft()
        draft.add(parse_yaml(text, origin), origin)
        return cls._from_draft(draft, draft.get(("strategy",)), draft.get(("ft", "type")))

    @classmethod
    def _from_draft(cls, draft: Draft, file_strategy: Any, file_type: Any) -> Self:
        """Check what the user wrote, key by key, then resolve it and check the result."""
        cls._validate(draft)
        resolve(draft, file_strategy, file_type)
        return cls._validate(draft)

    @classmethod
    def _validate(cls, draft: Draft) -> Self:
        try:
            return cls.model_validate(draft.values)
        except ValidationError as error:
            raise ConfigError(first_error(error, cls, draft)) from error


def load_config(
    model_config: Path | None,
    data_config: Path | None = None,
    overrides: Sequence[str] = (),
    strategy: str | None = None,
    pretrained_path: Path | None = None,
    seed: int | None = None,
) -> Config:
    """Read, merge, check and resolve a config. No file but the configs is opened.

    Args:
        model_config: YAML with the model and training sections, or a run's resolved config. None: `data_config` alone.
        data_config: YAML with the `data` and `data_transforms` sections.
        overrides: `section.key=value` texts, the value read as YAML; a later one wins.
        strategy: the command line's `--training_strategy`; see `config_resolve` for how it meets `ft.type`.
        pretrained_path: the command line's `--pretrained_path`.
        seed: the command line's `--seed`.

    Raises:
        ConfigError: one line that names the file (or option), the key, and the mend.
    """
    files = [path for path in (data_config, model_config) if path is not None]
    if not files:
        raise ConfigError("no config given; use --model_config, --data_config or both")
    draft = Draft()
    for path in files:
        draft.add(read_yaml(path), str(path))
    file_strategy, file_type = draft.get(("strategy",)), draft.get(("ft", "type"))
    for override in overrides:
        draft.set(*parse_override(override), COMMAND_LINE)
    options = {"strategy": strategy, "pretrained_path": pretrained_path, "seed": seed}
    for key, value in options.items():
        if value is not None:
            draft.set((key,), value, STRATEGY_OPTION if key == "strategy" else f"--{key}")
    return Config._from_draft(draft, file_strategy, file_type)
