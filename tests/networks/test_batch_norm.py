"""BatchNorm of single values: running statistics where the stock layers fail, the stock layers everywhere else."""

import pytest
import torch
from torch import nn

from networks.batch_norm import SingleValueBatchNorm

SHAPES = [(1, 3), (1, 3, 1, 1)]


def stock_like(shape):
    return nn.BatchNorm1d(3) if len(shape) == 2 else nn.BatchNorm2d(3)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_single_value_in_training_uses_the_running_statistics_and_leaves_them(shape):
    stock, norm = stock_like(shape), SingleValueBatchNorm(3)
    stock(torch.randn(8, *shape[1:]))
    norm.load_state_dict(stock.state_dict(), strict=True)
    x = torch.randn(shape)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        stock(x)
    assert torch.equal(norm(x), stock.eval()(x))
    assert torch.equal(norm.running_mean, stock.running_mean)
    assert norm.num_batches_tracked == 1


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1, 1), (1, 3, 2, 1)])
def test_several_values_are_normalized_as_by_the_stock_layers(shape):
    stock, norm, x = stock_like(shape), SingleValueBatchNorm(3), torch.randn(shape)
    assert torch.equal(norm(x), stock(x))
    assert torch.equal(norm.running_var, stock.running_var)
