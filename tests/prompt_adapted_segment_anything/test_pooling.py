"""Maxima over tokens against max_pool2d."""

import torch
from torch.nn.functional import max_pool2d

from prompt_adapted_segment_anything.pooling import pooled


def test_maxima_and_their_gradients_are_max_pools_ties_too():
    torch.manual_seed(0)
    tokens = torch.randint(0, 3, (2, 3, 6, 4, 5)).float().requires_grad_()
    images = tokens.movedim(-1, 2).flatten(0, 1)
    expected = max_pool2d(images, (3, 2)).unflatten(0, (2, 3)).movedim(2, -1)
    found = pooled(tokens, (3, 2))
    assert torch.equal(found, expected)
    grad = torch.randn(found.shape)
    first, second = (torch.autograd.grad(each, tokens, grad)[0] for each in (found, expected))
    assert torch.equal(first, second)


def test_of_a_view_only_the_view_is_kept():
    tokens = torch.randn(1, 4, 4, 6, requires_grad=True) * 1
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        pooled(tokens[..., :2], (2, 2))
    assert [t.untyped_storage().data_ptr() for t in kept] == [tokens.untyped_storage().data_ptr()]
