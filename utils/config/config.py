"""Configs: YAML files and `--set` overrides in, one checked and resolved `Config` out.

A section may be in either file. A key in both files must have the same value; the command line overrides both. A null
value means that the key is not set. A relative path in a file starts at that file; where nothing is there, at the
working directory, and else at the project. Saved configs hold paths in the project relative to it, others absolute.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field

from utils.config.adapters import FtConfig
from utils.config.errors import validated
from utils.config.evaluation import EvaluationConfig
from utils.config.options import SAM_ARCH, Architecture, FilePath, NotBuiltUnlessFalse, Profile, Strategy, only
from utils.config.released import accept_released
from utils.config.resolve import STRATEGY_OPTION, resolve
from utils.config.schema import (
    BaselineConfig,
    DataConfig,
    DataTransformsConfig,
    PromptsConfig,
    SamConfig,
    Section,
    TrainingConfig,
)
from utils.config.sources import COMMAND_LINE, Draft, dump_yaml, parse_override, parse_yaml, read_yaml
from utils.errors import ConfigError
from utils.files import find_path

_PATH_KEYS = (("pretrained_path",), ("data", "root_path"), ("data", "data_split_csv"), ("prompts", "clip_path"))


class Config(Section):
    """The config of a run. `load_config` and `Config.from_yaml` make one, and set the keys that follow from others.

    `data` is None if only a model config was given. `ft.type` agrees with `strategy` (None: no adapters), and
    `sam.img_size` equals `data_transforms.img_size`. Published configs have `model`, `Hiera`, `use_salt` and some keys
    in `prompts` and `data` that have no effect here; all but `use_salt` are None.
    """

    profile: Profile = "official"
    strategy: Strategy = "salt"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    pretrained_path: FilePath | None = None
    data_transforms: DataTransformsConfig = DataTransformsConfig()
    data: DataConfig | None = None
    sam: SamConfig = SamConfig()
    baseline: BaselineConfig = BaselineConfig()
    img_type: Annotated[str, only("image")] = "image"
    arch: Architecture = SAM_ARCH
    use_fdn: NotBuiltUnlessFalse = False
    decoder_training: bool = False
    mlp_transform: NotBuiltUnlessFalse = False
    model: Any = None
    use_salt: bool | None = None
    Hiera: dict[str, Any] | None = None
    prompts: PromptsConfig = PromptsConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    ft: FtConfig = FtConfig()

    def require_data(self) -> DataConfig:
        """Returns the `data` section. Raises: ConfigError if there is none."""
        if self.data is None:
            raise ConfigError("config: the section data is missing; give --data_config")
        return self.data

    def to_yaml(self) -> str:
        """Returns the resolved config as YAML, from which `from_yaml` makes an equal Config."""
        return dump_yaml(self.model_dump(mode="json", exclude_none=True))

    @classmethod
    def from_yaml(cls, text: str, origin: str, overrides: Sequence[str] = ()) -> Self:
        """Reads a config from YAML text, such as a checkpoint's metadata; `origin` names it in errors.

        `overrides` are as for `load_config`.

        Raises:
            ConfigError: a bad key or value, or two that contradict each other.
        """
        draft = Draft()
        draft.add(parse_yaml(text, origin), origin)
        strategy, ft_type = draft.get(("strategy",)), draft.get(("ft", "type"))
        for override in overrides:
            draft.set(*parse_override(override), COMMAND_LINE)
        return cls._from_draft(draft, strategy, ft_type)

    @classmethod
    def from_resolved(cls, text: str, origin: str) -> Self:
        """Reads what `to_yaml` wrote: as `from_yaml`, but nothing is resolved again, so that nothing is warned of."""
        draft = Draft()
        draft.add(parse_yaml(text, origin), origin)
        return validated(cls, draft)

    @classmethod
    def _from_draft(cls, draft: Draft, file_strategy: Any, file_type: Any) -> Self:
        """Checks the user's keys, resolves them, and checks the result."""
        accept_released(draft)
        validated(cls, draft)
        _find_paths(draft)
        resolve(draft, file_strategy, file_type)
        return validated(cls, draft)


def load_config(
    model_config: Path | None,
    data_config: Path | None = None,
    overrides: Sequence[str] = (),
    strategy: str | None = None,
    pretrained_path: Path | None = None,
    seed: int | None = None,
) -> Config:
    """Reads, merges, checks and resolves a config. Opens no other files.

    Args:
        model_config: YAML with the model and training sections, or a run's resolved config. None: only `data_config`.
        data_config: YAML with the `data` and `data_transforms` sections.
        overrides: `section.key=value` texts, the value in YAML; the last one of a key counts.
        strategy: the command line's `--training_strategy`; `utils.config.resolve` says how it combines with `ft.type`.
        pretrained_path: the command line's `--pretrained_path`.
        seed: the command line's `--seed`.

    Raises:
        ConfigError: one line that names the file (or option), the key and the fix.
    """
    files = [find_path(Path(path)) for path in (data_config, model_config) if path is not None]
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


def _find_paths(draft: Draft) -> None:
    """Replaces each relative path by the place that it means. Raises nothing: what is missing is found out on use."""
    for key in _PATH_KEYS:
        if (value := draft.get(key)) is not None:
            origin = draft.origin(key)
            folders = [] if origin.startswith("--") else [Path(origin).parent]
            draft.set(key, str(find_path(Path(value).expanduser(), *folders)), origin)
