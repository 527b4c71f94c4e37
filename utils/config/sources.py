"""The user's config: YAML files and `a.b=value` overrides, merged, with the origin of each key."""

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from utils.config.options import UNUSED_KEYS
from utils.errors import ConfigError

logger = logging.getLogger(__name__)

KeyPath = tuple[str, ...]

COMMAND_LINE = "--set"
_MAX_NODES = 100_000  # values in a file, aliases expanded

_UNUSED_NAMES = {path[-1] for path in UNUSED_KEYS}

# YAML 1.1 reads 1e-4 as text. This is its float, with the dot and the exponent's sign optional.
_FLOAT = re.compile(
    r"""^[-+]?(?:
        (?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?
        |[0-9][0-9_]*[eE][-+]?[0-9]+
        |\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)
    )$""",
    re.VERBOSE,
)


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 as a number and refuses a key with two values.

    Attributes:
        repeated: the keys that stand twice with one value, with their lines.
    """

    repeated: list[tuple[str, int]]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: dict[str, yaml.Node] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not text", key_node.start_mark)
            if key in seen and key not in _UNUSED_NAMES:
                values = [self.construct_object(each, deep=True) for each in (seen[key], value_node)]
                if values[0] != values[1]:
                    problem = f"key {key!r} is given twice, with two values; keep one"
                    raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
                self.repeated.append((key, key_node.start_mark.line + 1))
            seen[key] = value_node
        return super().construct_mapping(node, deep=deep)

    def get_single_node(self) -> yaml.Node | None:
        """Refuses aliases that make a few lines a document of billions, or one without end."""
        node = super().get_single_node()
        if node is not None and _expanded_size(node, {}) > _MAX_NODES:
            raise yaml.constructor.ConstructorError(None, None, "aliases (*name) repeat too much", node.start_mark)
        return node


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes each text that _Loader would read as a number."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def _expanded_size(node: yaml.Node, known: dict[int, float]) -> float:
    """The number of values in a node, an alias counted with all that it stands for; inf where it holds itself."""
    if id(node) not in known:
        known[id(node)] = math.inf
        inner = [each for pair in node.value for each in pair] if isinstance(node, yaml.MappingNode) else node.value
        of_inner = [_expanded_size(each, known) for each in inner] if isinstance(inner, list) else []
        known[id(node)] = 1 + sum(of_inner)
    return known[id(node)]


@dataclass
class Draft:
    """Raw config values, each with its origin: a file's path, `--set`, or a command line option.

    A null value means that the key is not set, so null is never stored; `empty` says where there was one.
    """

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[KeyPath, str] = field(default_factory=dict)
    empty: dict[KeyPath, str] = field(default_factory=dict)

    def get(self, path: KeyPath) -> Any:
        """Returns the value at `path`, or None if it is not set."""
        node: Any = self.values
        for part in path:
            if not isinstance(node, dict) or part not in node:
                return None
            node = node[part]
        return node

    def set(self, path: KeyPath, value: Any, origin: str) -> None:
        """Sets the value at `path`; None removes the key. Raises: ConfigError if `path` leads through a value."""
        node = self.values
        for depth, part in enumerate(path[:-1], start=1):
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise ConfigError(f"{origin} {dotted(path)}: {dotted(path[:depth])} is a value, not a section")
            self.origins.setdefault(path[:depth], origin)
        if value is None:
            node.pop(path[-1], None)
            return
        node[path[-1]] = value
        self.origins = {known: place for known, place in self.origins.items() if known[: len(path)] != path}
        self.origins[path] = origin

    def origin(self, path: KeyPath) -> str:
        """Returns the origin of `path`, or of the innermost section around it that has one."""
        for depth in range(len(path), 0, -1):
            if path[:depth] in self.origins:
                return self.origins[path[:depth]]
        return "config"

    def add(self, values: dict[str, Any], origin: str, prefix: KeyPath = ()) -> None:
        """Merges `values` in. Raises: ConfigError if a key already has another value."""
        for key, value in values.items():
            path = (*prefix, key)
            present = self.get(path)
            if value is None:
                self.empty[path] = origin
            elif isinstance(value, dict) and (present is None or isinstance(present, dict)):
                if present is None:
                    self.set(path, {}, origin)
                self.add(value, origin, path)
            elif present is None:
                self.set(path, value, origin)
            elif present != value:
                first = f"{self.origin(path)} says {show(present)}"
                raise ConfigError(f"{origin}: {dotted(path)} = {show(value)}, but {first}; keep it in one of the two")


def dotted(path: Sequence[Any]) -> str:
    """Returns a key path as users write it: ('training', 'steps', 0) -> 'training.steps[0]'."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def show(value: Any) -> str:
    """Returns a value as one short line for an error."""
    text = "true" if value is True else "false" if value is False else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML file. Raises: ConfigError with the file, and the line of a syntax error."""
    if Path(path).exists() and not Path(path).is_file():
        raise ConfigError(f"{path}: cannot be read (no regular file)")  # a pipe without a writer would wait for ever
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, origin: str) -> dict[str, Any]:
    """Reads a YAML mapping from text; `origin` names it in errors. Raises: ConfigError."""
    values = _load(text, origin)
    if not isinstance(values, dict):
        raise ConfigError(f"{origin}: is not a YAML mapping of `key: value` lines")
    return values


def parse_override(text: str) -> tuple[KeyPath, Any]:
    """Splits `a.b=value` into its path and its value, read as YAML. Raises: ConfigError."""
    key, equals, value = text.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        raise ConfigError(f"{COMMAND_LINE} {text}: write it as section.key=value")
    return path, _load(value, f"{COMMAND_LINE} {text}")


def dump_yaml(values: dict[str, Any]) -> str:
    """Returns `values` as YAML, from which `parse_yaml` reads the same values."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _load(text: str, origin: str) -> Any:
    loader = None
    try:
        loader = _Loader(text)
        loader.repeated = []
        values = loader.get_single_data()
        for key, line in loader.repeated:
            logger.warning("%s:%d: key '%s' is given twice, with one value; remove one", origin, line, key)
        return values
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        place = f"{origin}:{mark.line + 1}" if mark and not origin.startswith(COMMAND_LINE) else origin
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "not valid YAML"
        raise ConfigError(f"{place}: {' '.join(str(problem).split())}") from error
    except ValueError as error:  # an impossible date such as 2020-13-01
        raise ConfigError(f"{origin}: not valid YAML ({error})") from error
    except RecursionError as error:
        raise ConfigError(f"{origin}: is nested too deeply") from error
    finally:
        if loader is not None:
            loader.dispose()
