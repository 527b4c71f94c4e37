"""Turns pydantic's errors into one line that names the file, the dotted key, the value and what is allowed."""

import difflib
import re
import types
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from utils.config.sources import Draft, KeyPath, dotted, read_yaml, show
from utils.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


def validated(schema: type[Model], draft: Draft) -> Model:
    """The values of a draft as a `schema`.

    Raises:
        ConfigError: one line on the first error; on an unknown key if there is one, since it may explain the others.
    """
    try:
        return schema.model_validate(draft.values)
    except ValidationError as error:
        errors = sorted(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        line = _describe(errors[0], schema, draft)
        raise ConfigError(f"{line} (and {len(errors) - 1} more)" if len(errors) > 1 else line) from error


def read_as(schema: type[Model], path: Path) -> Model:
    """The content of a YAML file as a `schema`. Raises: ConfigError that names file, key and fix."""
    draft = Draft()
    draft.add(read_yaml(path), str(path))
    return validated(schema, draft)


def _describe(error: Any, schema: type[BaseModel], draft: Draft) -> str:
    location, kind = error["loc"], error["type"]
    origin = draft.origin(tuple(str(part) for part in location))
    key = dotted(location)
    if kind == "extra_forbidden":
        return f"{origin}: unknown key {key}; {_suggest(location, schema)}"
    if kind == "missing":
        return f"{origin}: {key} is missing"
    return f"{origin}: {key} = {show(error['input'])}: {_allowed(error)}"


def _allowed(error: Any) -> str:
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if error["type"] in ("model_type", "dict_type"):
        return "must be a section of `key: value` lines"
    return re.sub(r"^\w+ should\b", "must", error["msg"])


def _suggest(location: KeyPath, schema: type[BaseModel]) -> str:
    """Names the nearest key of the same section, else the nearest of any section, else all keys of the section."""
    *section, name = location
    siblings = _keys_at(section, schema)
    near = difflib.get_close_matches(name, siblings, n=1)
    if near:
        return f"did you mean {dotted((*section, near[0]))}?"
    everywhere = {path[-1]: path for path in reversed(_all_keys(schema))}
    near = difflib.get_close_matches(name, everywhere, n=1, cutoff=0.8)
    if near:
        return f"did you mean {dotted(everywhere[near[0]])}?"
    return f"known keys here: {', '.join(siblings)}"


def _keys_at(section: list[Any], schema: type[BaseModel]) -> list[str]:
    kind: Any = schema
    for part in section:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = _plain(_fields(kind)[part].annotation)
        else:  # dict[str, RankPattern]: all keys have the same type of section
            kind = _plain(get_args(kind)[-1])
    return list(_fields(kind))


def _fields(kind: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a section by the keys that users write."""
    return {field.alias or name: field for name, field in kind.model_fields.items()}


def _all_keys(schema: type[BaseModel], prefix: KeyPath = ()) -> list[KeyPath]:
    paths = []
    for name, field in _fields(schema).items():
        kind = _plain(field.annotation)
        paths.append((*prefix, name))
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            paths += _all_keys(kind, (*prefix, name))
    return paths


def _plain(annotation: Any) -> Any:
    """A type without `Annotated[...]` and `... | None`."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif get_origin(annotation) in (Union, types.UnionType):
            annotation = next(kind for kind in get_args(annotation) if kind is not type(None))
        else:
            return annotation
