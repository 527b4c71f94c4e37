"""Windowed attention with SAM's decomposed relative positions, or SAM2's pooled queries, in PyTorch's fused kernels."""

from torch import Tensor
from torch.nn.functional import interpolate, scaled_dot_product_attention

from networks.recompute import remade, remakes
from prompt_adapted_segment_anything.operands import Extend, Join, Layout, Operands
from prompt_adapted_segment_anything.pooling import pooled
from prompt_adapted_segment_anything.windows import Part


def attend(
    qkv: Tensor,
    heads: int,
    window: tuple[int, int],
    bias: Tensor | None = None,
    rel_pos: tuple[Tensor, Tensor] | None = None,
    stride: tuple[int, int] = (1, 1),
) -> Tensor:
    """Attention in each window, without a bias of the size queries x keys and without queries outside the grid.

    The logits q.k / sqrt(d) + Rh[q, kh] + Rw[q, kw] are one inner product, of q extended by its rows of Rh
    and Rw and of k extended by one-hot codes of its row and column. The backward pass makes these operands again: only
    `qkv`, the output and its log-sum-exp are kept.

    Args:
        qkv: (B, H, W, 3 * C), the projections of a grid of tokens.
        heads: how many, of C / heads = d channels each.
        window: height and width in tokens. One that ends outside the grid is filled with the keys and values of zeros.
        bias: (3 * C,) of the projections, what they make of zeros; None for 0.
        rel_pos: SAM's tables of relative positions along height and width, (any length, d), or None.
        stride: each query is the maximum over so many rows and columns of tokens, which the grid and the windows are
            multiples of. Other strides than 1 have no relative positions.

    Returns:
        (B, H / stride, W / stride, C).
    """
    grid, d = tuple(qkv.shape[1:3]), qkv.shape[3] // (3 * heads)
    layout = Layout(grid, window, heads, d, rel_pos is not None, stride)
    if grid == window and layout.width == d:  # nothing to add or to rearrange: views will do
        q, k, v = layout.split(qkv)
        q = pooled(q.flatten(3), stride).unflatten(3, (heads, d))
        out = scaled_dot_product_attention(*(x.flatten(1, 2).transpose(1, 2) for x in (q, k, v)), scale=d**-0.5)
        return out.transpose(1, 2).reshape(*q.shape[:3], -1)
    tables = [relative_table(*each).to(qkv.dtype) for each in zip(rel_pos, window, strict=True)] if rel_pos else []
    tables = [table * d**0.5 for table in tables]  # the kernel multiplies all logits by d**-0.5
    operands = Extend.apply(layout, qkv, bias, *tables)
    given = [None if tensor is None else tensor.detach() for tensor in (qkv, bias, *tables)]
    joined: list[Tensor] = []  # filled below

    def kernel(part: Part, operands: Operands) -> Tensor:
        if not remakes():
            return scaled_dot_product_attention(*operands, scale=d**-0.5)
        make, write = lambda: layout.operands(part, *given), lambda out: layout.write(joined[0], part, out)
        with remade(operands, make, write):
            return scaled_dot_product_attention(*operands, scale=d**-0.5)

    outputs = [kernel(part, operands[3 * number : 3 * number + 3]) for number, part in enumerate(layout.parts)]
    out = Join.apply(layout, *outputs)
    joined.append(out.detach())  # in place of the parts' outputs; without the graph, which holds the functions above
    return out.flatten(3)


def relative_table(rel_pos: Tensor, size: int) -> Tensor:
    """SAM's relative positions (any length, d), resized for `size` tokens as SAM does: (2 * size - 1, d).

    Row `key - query + size - 1` is that of a query and a key; SAM's order is the reverse.
    """
    if rel_pos.shape[0] != 2 * size - 1:
        rel_pos = interpolate(rel_pos.mT[None], size=2 * size - 1, mode="linear")[0].mT
    return rel_pos.flip(0)
