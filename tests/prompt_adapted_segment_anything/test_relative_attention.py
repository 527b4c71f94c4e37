"""Windowed attention with relative positions against the equations written densely, in float64."""

from contextlib import nullcontext

import pytest
import torch
from segment_anything.modeling.image_encoder import get_rel_pos
from torch.nn.functional import pad

from networks.recompute import nothing_remade
from prompt_adapted_segment_anything.relative_attention import attend, relative_table
from prompt_adapted_segment_anything.windows import parts

HEADS, D = 2, 4
C = HEADS * D


def dense(qkv, window, bias, rel_pos, stride=(1, 1)):
    """Each window by itself, with a matrix of all its pairs of tokens."""
    B, H, W, C = *qkv.shape[:3], qkv.shape[3] // 3
    D = C // HEADS
    fill = torch.zeros(3 * C, dtype=qkv.dtype) if bias is None else bias
    below, right = -H % window[0], -W % window[1]
    inside = pad(torch.ones(H, W, dtype=torch.bool), (0, right, 0, below))
    qkv = torch.where(inside[..., None], pad(qkv, (0, 0, 0, right, 0, below)), fill)
    out = qkv.new_zeros(B, (H + below) // stride[0], (W + right) // stride[1], C)
    for top in range(0, H, window[0]):
        for left in range(0, W, window[1]):
            rows, columns = slice(top, top + window[0]), slice(left, left + window[1])
            q, k, v = qkv[:, rows, columns].unflatten(-1, (3, HEADS, D)).unbind(3)
            q = q.unflatten(1, (-1, stride[0])).unflatten(3, (-1, stride[1])).amax((2, 4))
            logits = torch.einsum("bhwnd,byxnd->bnhwyx", q, k) * D**-0.5
            if rel_pos is not None:
                rel_h, rel_w = (get_rel_pos(size, size, table) for size, table in zip(window, rel_pos, strict=True))
                logits = logits + torch.einsum("bhwnd,hyd->bnhwy", q, rel_h)[..., None]
                logits = logits + torch.einsum("bhwnd,wxd->bnhwx", q, rel_w)[..., None, :]
            weights = logits.flatten(-2).softmax(-1).view_as(logits)
            asking = [slice(each.start // s, each.stop // s) for each, s in zip((rows, columns), stride, strict=True)]
            out[:, *asking] = torch.einsum("bnhwyx,byxnd->bhwnd", weights, v).flatten(3)
    return out[:, : H // stride[0], : W // stride[1]]


@pytest.mark.parametrize("keeping", [nullcontext, nothing_remade])
@pytest.mark.parametrize("positions", ["own size", "resized", "none"])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(
    ("grid", "window"), [((4, 6), (4, 6)), ((4, 6), (2, 3)), ((5, 7), (3, 3)), ((2, 5), (3, 2)), ((1, 1), (1, 1))]
)
def test_attention_equals_the_dense_equations(grid, window, with_bias, positions, keeping):
    """Output and the gradients of everything."""
    torch.manual_seed(0)
    qkv = torch.randn(2, *grid, 3 * C, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3 * C, dtype=torch.float64, requires_grad=True) if with_bias else None
    rel_pos = None
    if positions != "none":
        sizes = [2 * size - 1 + 4 * (positions == "resized") for size in window]
        rel_pos = tuple(torch.randn(size, D, dtype=torch.float64, requires_grad=True) for size in sizes)
    given = [tensor for tensor in (qkv, bias, *(rel_pos or ())) if tensor is not None]
    with keeping():
        ours = attend(qkv, HEADS, window, bias, rel_pos)
    expected = dense(qkv, window, bias, rel_pos)
    assert torch.allclose(ours, expected, atol=1e-12)
    grad = torch.randn_like(ours)
    gradients = [torch.autograd.grad(out, given, grad, allow_unused=True) for out in (ours, expected)]
    for found, wanted in zip(*gradients, strict=True):
        assert torch.allclose(found, torch.zeros_like(found) if wanted is None else wanted, atol=1e-12)


@pytest.mark.parametrize("keeping", [nullcontext, nothing_remade])
@pytest.mark.parametrize("d", [8, 6])  # of the kernel's alignment, where views of one window do, and not
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (2, 1)])
@pytest.mark.parametrize(("grid", "window"), [((4, 6), (4, 6)), ((8, 4), (4, 2)), ((6, 10), (4, 4)), ((2, 2), (4, 4))])
def test_queries_that_are_maxima_equal_the_dense_equations(grid, window, stride, d, keeping):
    torch.manual_seed(0)
    qkv = torch.randn(2, *grid, 3 * HEADS * d, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3 * HEADS * d, dtype=torch.float64, requires_grad=True)
    with keeping():
        ours = attend(qkv, HEADS, window, bias, stride=stride)
    expected = dense(qkv, window, bias, None, stride)
    assert torch.allclose(ours, expected, atol=1e-12)
    grad = torch.randn_like(ours)
    for given in (qkv, bias):
        found, wanted = (torch.autograd.grad(x, given, grad, True, allow_unused=True)[0] for x in (ours, expected))
        wanted = torch.zeros_like(given) if wanted is None else wanted
        assert torch.allclose(torch.zeros_like(given) if found is None else found, wanted, atol=1e-12)


@pytest.mark.parametrize(
    ("grid", "window", "relative"), [((5, 6), (2, 2), False), ((6, 6), (3, 2), False), ((6, 6), (2, 2), True)]
)
def test_maxima_need_an_even_grid_and_even_windows_without_positions(grid, window, relative):
    rel_pos = (torch.randn(3, D),) * 2 if relative else None
    with pytest.raises(ValueError, match="divides, without relative positions"):
        attend(torch.randn(1, *grid, 3 * C), HEADS, window, None, rel_pos, stride=(2, 2))


def test_attention_keeps_the_projections_and_the_output():
    """And nothing of the operands' width; twice backward through one graph gives the same."""
    torch.manual_seed(0)
    qkv = torch.randn(1, 5, 5, 3 * C, requires_grad=True)
    rel_pos = (torch.randn(5, D), torch.randn(5, D))
    kept = {}
    for keeping in (nullcontext, nothing_remade):
        sizes = []
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: (sizes.append(t.shape), t)[1], lambda t: t
        )
        with hooks, keeping():
            out = attend(qkv, HEADS, (3, 3), None, rel_pos)
        kept[keeping] = [shape for shape in sizes if len(shape) == 4 and shape != qkv.shape]
        first, second = (torch.autograd.grad(out.square().sum(), qkv, retain_graph=True)[0] for _ in range(2))
        assert torch.equal(first, second)
    assert kept[nullcontext] == []
    assert len(kept[nothing_remade]) == 4 * len(parts((5, 5), (3, 3)))  # q, k, v and the output of each part


@pytest.mark.parametrize("length", [5, 9, 12])
def test_a_relative_table_holds_what_sam_looks_up(length):
    torch.manual_seed(0)
    rel_pos, size = torch.randn(length, 3), 5
    table, looked_up = relative_table(rel_pos, size), get_rel_pos(size, size, rel_pos)
    for query in range(size):
        for key in range(size):
            assert torch.equal(table[key - query + size - 1], looked_up[query, key])


@pytest.mark.parametrize(("grid", "window"), [((32, 32), (14, 14)), ((28, 5), (14, 14)), ((6, 6), (6, 6))])
def test_the_parts_cover_every_token_once(grid, window):
    count = torch.zeros(1, *grid, 1, 1)
    for part in parts(grid, window):
        part.of(count).add_(1)
        assert part.of(count).shape[4:6] == part.inside
    assert torch.equal(count, torch.ones_like(count))
