"""The canonical singular value decomposition whose basis SALT and S-SAM train in."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# The Gram matrix squares the singular values, so those below this fraction of the largest are too inaccurate for
# float32. Weights that have such values take the slower direct decomposition.
_GRAM_RELATIVE_LIMIT = 1e-5
# A flipped sign or a mixed pair of vectors moves a sketch by about 1; float32 rounding moves it by about 1e-5.
_FINGERPRINT_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Decomposition:
    """W = U diag(s) Vh with s descending: U (out, r), s (r,), Vh (r, in), r = min(out, in); dtype of W."""

    U: Tensor
    s: Tensor
    Vh: Tensor


# A function from a matrix (out, in) to its factors: `decompose`, or a cached version of it.
Decomposer = Callable[[Tensor], Decomposition]


def decompose(weight: Tensor) -> Decomposition:
    """Thin SVD of a matrix (out, in), the same on every machine.

    It is computed in float64 and rounded to `weight`'s dtype. Close singular values (a weight of 768 x 768 has pairs
    that differ by 1e-6) then get the same vectors from every LAPACK: to float32's rounding, and to 1e-3 for such pairs
    among the smallest values. The sign of each pair of vectors is the one that makes the largest component of the
    column of U positive.
    """
    matrix = weight.detach().to(torch.float64)
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.mT
    U, s, Vh = _gram_svd(tall)
    if s[-1] <= _GRAM_RELATIVE_LIMIT * s[0]:
        U, s, Vh = torch.linalg.svd(tall, full_matrices=False)
    if tall is not matrix:
        U, Vh = Vh.mT, U.mT
    largest = U.abs().argmax(dim=0, keepdim=True)
    sign = U.gather(0, largest).sign().squeeze(0)
    sign = torch.where(sign == 0, 1.0, sign)
    return Decomposition(
        (U * sign).to(weight.dtype).contiguous(),
        s.to(weight.dtype).contiguous(),
        (Vh * sign[:, None]).to(weight.dtype).contiguous(),
    )


def _gram_svd(tall: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """SVD of a tall float64 matrix by the eigenvectors of its small Gram matrix: several times faster than gesdd."""
    eigenvalues, vectors = torch.linalg.eigh(tall.mT @ tall)
    s = eigenvalues.clamp_min(0).sqrt().flip(0)
    V = vectors.flip(1)
    U = (tall @ V) / s.clamp_min(torch.finfo(s.dtype).tiny)
    return U, s, V.mT


def is_decomposition(factors: Decomposition, weight: Tensor) -> bool:
    """Whether `factors` are an SVD of `weight` (out, in), up to rounding.

    Tests U diag(s) Vh = W and that U and Vh are orthonormal, each on one random vector (Freivalds' algorithm). That
    takes a few passes over the factors, where full products would take as long as a decomposition.
    """
    (out, inside), rank = weight.shape, min(weight.shape)
    if factors.U.shape != (out, rank) or factors.s.shape != (rank,) or factors.Vh.shape != (rank, inside):
        return False
    generator = torch.Generator().manual_seed(0)  # the check must not change a run's random numbers
    x = torch.randn(inside, generator=generator).to(weight)
    z = torch.randn(rank, generator=generator).to(weight)
    pairs = (
        (factors.U @ (factors.s * (factors.Vh @ x)), weight @ x),
        (factors.U.mT @ (factors.U @ z), z),
        (factors.Vh @ (factors.Vh.mT @ z), z),
    )
    tolerance = torch.finfo(weight.dtype).eps ** 0.5
    return all(bool((found - wanted).norm() <= tolerance * wanted.norm()) for found, wanted in pairs)


def fingerprint(U: Tensor, Vh: Tensor) -> Tensor:
    """Eight float64 numbers that identify a basis: (2, 4), a row for U and one for V.

    Each is a weighted sum of the vectors' projections on a fixed direction. It changes when a vector changes its sign,
    or when two vectors are swapped or mixed, and not when only rounding differs.
    """
    return torch.stack([_sketch(U), _sketch(Vh.mT)])


def weight_fingerprint(weight: Tensor) -> Tensor:
    """Four float64 numbers that identify a matrix (out, in) up to its norm. They change as much as it, relatively."""
    return _sketch(weight / torch.linalg.matrix_norm(weight).clamp_min(torch.finfo(weight.dtype).tiny))


def same_basis(first: Tensor, second: Tensor) -> bool:
    """Whether two fingerprints belong to the same basis, or to the same weight, up to rounding."""
    return bool((first.cpu() - second.cpu()).abs().max() <= _FINGERPRINT_TOLERANCE)


def _sketch(basis: Tensor) -> Tensor:
    length, count = basis.shape
    basis = basis.detach().to("cpu", torch.float64)
    # Cosines of incommensurable steps replace random numbers, which could change with the version of torch.
    steps = torch.tensor([0.7548776662, 1.5698402910, 2.3571113170, 3.0411920334], dtype=torch.float64)
    rows = torch.cos(steps[:, None] * torch.arange(1, length + 1) ** 1.5) * 2**0.5
    columns = torch.cos(steps[:, None].flip(0) * torch.arange(1, count + 1) ** 1.5 + 0.5) * 2**0.5
    return ((rows @ basis) * columns).sum(dim=1)
