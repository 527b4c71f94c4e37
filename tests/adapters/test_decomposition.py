"""The decomposition is right, canonical, and recognized again."""

import pytest
import torch

from adapters.decomposition import decompose, fingerprint, same_basis


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (16, 16), (1, 5), (7, 1)])
def test_factors_are_orthonormal_sorted_and_give_the_weight(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    d = decompose(weight)
    rank = min(shape)
    assert d.U.shape == (shape[0], rank)
    assert d.Vh.shape == (rank, shape[1])
    assert torch.allclose(d.U.double().T @ d.U.double(), torch.eye(rank).double(), atol=1e-6)
    assert torch.allclose(d.Vh.double() @ d.Vh.double().T, torch.eye(rank).double(), atol=1e-6)
    assert torch.allclose(d.U.double() * d.s.double() @ d.Vh.double(), weight.double(), atol=1e-6)
    assert torch.allclose(d.s.double(), torch.linalg.svdvals(weight.double()), atol=1e-6)
    assert (d.s.diff() <= 0).all()


def test_signs_do_not_depend_on_the_routine_that_found_the_vectors():
    weight = torch.randn(20, 12, generator=torch.Generator().manual_seed(0))
    d = decompose(weight)
    assert (d.U.gather(0, d.U.abs().argmax(0, keepdim=True)) > 0).all()
    # A transposed problem takes another path through LAPACK, up to which side fixes the sign.
    U, _, _ = torch.linalg.svd(weight.double(), full_matrices=False)
    sign = U.gather(0, U.abs().argmax(0, keepdim=True)).sign()
    assert torch.allclose(d.U.double(), U * sign, atol=1e-6)


@pytest.mark.parametrize("small", [0.0, 1e-9, 1e-6])
def test_small_singular_values_keep_orthonormal_vectors(small):
    generator = torch.Generator().manual_seed(0)
    U, _ = torch.linalg.qr(torch.randn(24, 8, generator=generator, dtype=torch.float64))
    V, _ = torch.linalg.qr(torch.randn(8, 8, generator=generator, dtype=torch.float64))
    s = torch.tensor([5.0, 2, 1, 0.5, 0.1, 0.01, small, small], dtype=torch.float64)
    d = decompose((U * s) @ V.T)
    assert torch.allclose(d.U.T @ d.U, torch.eye(8).double(), atol=1e-9)
    assert torch.allclose((d.U * d.s) @ d.Vh, (U * s) @ V.T, atol=1e-12)


def test_zero_weight():
    d = decompose(torch.zeros(4, 3))
    assert torch.equal(d.s, torch.zeros(3))
    assert torch.isfinite(d.U).all()


def test_fingerprint_sees_signs_and_mixtures_and_forgives_rounding():
    weight = torch.randn(96, 64, generator=torch.Generator().manual_seed(0))
    d = decompose(weight)
    mark = fingerprint(d.U, d.Vh)
    assert mark.shape == (2, 4)
    assert same_basis(mark, fingerprint(d.U + 1e-7 * torch.randn_like(d.U), d.Vh))
    for k in range(64):
        sign = torch.ones(64)
        sign[k] = -1
        assert not same_basis(mark, fingerprint(d.U * sign, d.Vh * sign[:, None])), k
    for k in range(63):
        rotation = torch.eye(64)
        rotation[k : k + 2, k : k + 2] = torch.tensor([[0.8, -0.6], [0.6, 0.8]])
        assert not same_basis(mark, fingerprint(d.U @ rotation, rotation.T @ d.Vh)), k
