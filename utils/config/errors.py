"""Pydantic's errors as one line that names the file, the dotted key, the value and what is allowed."""

import difflib
import re
import types
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from utils.config.sources import Draft, KeyPath, dotted, show


def first_error(error: ValidationError, schema: type[BaseModel], draft: Draft) -> str:
    """Return one of `error`'s complaints as a line: an unknown key if there is one, since it may explain the others.

    Args:
        error: what validating `draft.values` raised.
        schema: the model it was checked against, for the names of known keys.
        draft: where each key was written.
    """
    complaints = sorted(error.errors(), key=lambda complaint: complaint["type"] != "extra_forbidden")
    line = _describe(complaints[0], schema, draft)
    return f"{line} (and {len(complaints) - 1} more)" if len(complaints) > 1 else line


def _describe(complaint: Any, schema: type[BaseModel], draft: Draft) -> str:
    location, kind = complaint["loc"], complaint["type"]
    origin = draft.origin(tuple(str(part) for part in location))
    key = dotted(location)
    if kind == "extra_forbidden":
        return f"{origin}: unknown key {key}; {_suggest(location, schema)}"
    if kind == "missing":
        return f"{origin}: {key} is missing"
    return f"{origin}: {key} = {show(complaint['input'])}: {_allowed(complaint)}"


def _allowed(complaint: Any) -> str:
    if complaint["type"] == "value_error":
        return str(complaint["ctx"]["error"])
    if complaint["type"] in ("model_type", "dict_type"):
        return "must be a section of `key: value` lines"
    return re.sub(r"^\w+ should\b", "must", complaint["msg"])


def _suggest(location: KeyPath, schema: type[BaseModel]) -> str:
    """Name the nearest key of the same section, else the nearest of any section, else every key of the section."""
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
            kind = _plain(kind.model_fields[part].annotation)
        else:  # dict[str, RankPattern]: every key leads to the same kind of section
            kind = _plain(get_args(kind)[-1])
    return list(kind.model_fields)


def _all_keys(schema: type[BaseModel], prefix: KeyPath = ()) -> list[KeyPath]:
    paths = []
    for name, field in schema.model_fields.items():
        kind = _plain(field.annotation)
        paths.append((*prefix, name))
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            paths += _all_keys(kind, (*prefix, name))
    return paths


def _plain(annotation: Any) -> Any:
    """Strip `Annotated[...]` and `... | None` off a type."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif get_origin(annotation) in (Union, types.UnionType):
            annotation = next(kind for kind in get_args(annotation) if kind is not type(None))
        else:
            return annotation
