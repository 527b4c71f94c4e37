"""How attention's windows lie on the grid of tokens, where they divide it and where they do not."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from torch import Tensor


@dataclass(frozen=True)
class Band:
    """Windows side by side along an axis of the grid: `count` from `start` on, each with `inside` tokens of it."""

    start: int
    count: int
    inside: int

    def pooled(self, stride: int) -> "Band":
        """The same windows on an axis pooled by a divisor of their tokens."""
        return Band(self.start // stride, self.count, self.inside // stride)

    def of(self, grid: Tensor, dim: int) -> Tensor:
        """The axis `dim` of its tokens as two: window, token in the window. A view."""
        return grid.narrow(dim, self.start, self.count * self.inside).unflatten(dim, (self.count, self.inside))


@dataclass(frozen=True)
class Part:
    """The windows of a band of rows and a band of columns, all with equally many real tokens."""

    rows: Band
    columns: Band

    @property
    def inside(self) -> tuple[int, int]:
        """Rows and columns of real tokens in each of its windows."""
        return self.rows.inside, self.columns.inside

    def pooled(self, stride: tuple[int, int]) -> "Part":
        """The same windows on a grid pooled by (rows, columns)."""
        return Part(self.rows.pooled(stride[0]), self.columns.pooled(stride[1]))

    def of(self, grid: Tensor) -> Tensor:
        """(B, grid height, grid width, n, d) -> (B, window rows, window columns, n, h, w, d), a view: n heads of d."""
        return self.rows.of(self.columns.of(grid, 2), 1).permute(0, 1, 3, 5, 2, 4, 6)


def parts(grid: Sequence[int], window: Sequence[int]) -> list[Part]:
    """The windows of `window` (height, width) tokens that cover a grid from its first row and column on."""
    rows, columns = (_bands(length, size) for length, size in zip(grid, window, strict=True))
    return [Part(*bands) for bands in product(rows, columns)]


def _bands(length: int, window: int) -> list[Band]:
    """The windows that fill an axis of `length` tokens: whole ones, then one that begins inside and ends outside."""
    whole = length // window
    rest = length - whole * window
    return ([Band(0, whole, window)] if whole else []) + ([Band(whole * window, 1, rest)] if rest else [])
