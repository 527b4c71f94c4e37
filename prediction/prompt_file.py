"""Reads the files of `predict --points` and `--boxes`: CSV with a header, or a JSON list of the same objects."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from prediction.interaction import Prompt
from prediction.sources import Source
from utils.errors import UserError

Number = Annotated[float, Field(allow_inf_nan=False)]
Prompts = Mapping[str, Prompt]  # by label


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    image: Annotated[str, Field(min_length=1)]
    label: Annotated[str, Field(min_length=1)]


class PointRow(_Row):
    """A click on a label, or, not positive, on what is not the label; x and y in the image's own pixels."""

    x: Number
    y: Number
    positive: bool

    @property
    def corners(self) -> list[tuple[float, float]]:
        """The points that must lie in the image."""
        return [(self.x, self.y)]


class BoxRow(_Row):
    """A box around a label, or a part of it, in the image's own pixels."""

    x0: Number
    y0: Number
    x1: Number
    y1: Number

    @model_validator(mode="after")
    def _corners_in_order(self) -> Self:
        if self.x0 > self.x1 or self.y0 > self.y1:
            raise ValueError("x0, y0 must be the upper left corner and x1, y1 the lower right one")
        return self

    @property
    def corners(self) -> list[tuple[float, float]]:
        """The points that must lie in the image."""
        return [(self.x0, self.y0), (self.x1, self.y1)]


@dataclass(frozen=True)
class PromptFile:
    """The rows of a file, each with where it stands: "points.csv: line 3"."""

    path: Path
    rows: list[tuple[str, PointRow | BoxRow]]

    @classmethod
    def read(cls, path: Path, kind: type[PointRow] | type[BoxRow]) -> Self:
        """Reads and checks every row by itself. Raises: UserError that names the file, or the row."""
        rows = []
        for where, values in _values(path):
            try:
                rows.append((where, kind.model_validate(values)))
            except ValidationError as error:
                raise UserError(f"{where}: {_problem(error)}") from None
        if not rows:
            raise UserError(f"{path}: holds no row")
        return cls(path, rows)

    def of_sources(self, sources: Sequence[Source], labels: Sequence[str]) -> "dict[Path, ImagePrompts]":
        """The rows of each image, by the name of its mask.

        A row names an image by its path below the folder that is predicted, or its file name alone, with or without
        suffix; a frame by the name of its mask.

        Raises: UserError that names a row whose image or label is unknown, or whose image's name is ambiguous.
        """
        names: dict[str, set[Path]] = {}
        for source in sources:
            for stem in source.stems():
                for name in (stem.as_posix(), stem.name):
                    for given in (name, name + source.path.suffix):
                        names.setdefault(given, set()).add(stem)
        found: dict[Path, list[tuple[str, PointRow | BoxRow]]] = {}
        for where, row in self.rows:
            stems = names.get(row.image, set())
            if not stems:
                raise UserError(f"{where}: image '{row.image}' is not among --images")
            if len(stems) > 1:
                shown = ", ".join(sorted(map(str, stems)))
                raise UserError(f"{where}: image '{row.image}' is {len(stems)} images ({shown}); write its folder")
            if row.label not in labels:
                raise UserError(f"{where}: label '{row.label}' is not one of {', '.join(labels)}")
            found.setdefault(next(iter(stems)), []).append((where, row))
        return {stem: ImagePrompts(rows) for stem, rows in found.items()}


@dataclass(frozen=True)
class ImagePrompts:
    """The rows of one image."""

    rows: list[tuple[str, PointRow | BoxRow]]

    def prompts(self, size: tuple[int, int]) -> Prompts:
        """The prompt of each label, for an image of `size` (H, W). Raises: UserError that names a row outside it."""
        height, width = size
        clicks: dict[str, list[tuple[float, float, bool]]] = {}
        boxes: dict[str, list[tuple[float, float, float, float]]] = {}
        for where, row in self.rows:
            if not all(0 <= x < width and 0 <= y < height for x, y in row.corners):
                raise UserError(f"{where}: lies outside of {row.image}, which has {width} x {height} pixels")
            if isinstance(row, PointRow):
                clicks.setdefault(row.label, []).append((row.x, row.y, row.positive))
            else:
                boxes.setdefault(row.label, []).append((row.x0, row.y0, row.x1, row.y1))
        labels = clicks.keys() | boxes.keys()
        return {label: Prompt(clicks.get(label, ()), boxes.get(label, ())) for label in labels}


def _values(path: Path) -> Iterator[tuple[str, Any]]:
    """Where each row stands, and what it holds."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8 text'})") from error
    if path.suffix.lower() != ".json":
        rows = csv.DictReader(text.splitlines(), strict=True)
        try:
            for row in rows:
                yield f"{path}: line {rows.line_num}", {key or "a further value": row[key] for key in row}
        except csv.Error as error:
            raise UserError(f"{path}: line {rows.line_num}: is no CSV ({error})") from error
        return
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}: is no JSON ({error})") from error
    if not isinstance(content, list):
        raise UserError(f"{path}: is not a JSON list of objects")
    yield from ((f"{path}: entry {number}", value) for number, value in enumerate(content, 1))


def _problem(error: ValidationError) -> str:
    first = error.errors()[0]
    key, value, message = ".".join(map(str, first["loc"])), first["input"], first["msg"]
    if first["type"] == "model_type":
        return "is no object with the columns as keys"
    if first["type"] == "missing" or value is None:
        return f"has no {key}"
    if first["type"] == "extra_forbidden":
        return f"has '{key}', which is no column of this file"
    message = message.removeprefix("Value error, ").removeprefix("Input ")
    return f"{key} = '{value}' {message}" if key else message
