"""SAM2's trunk is the package's own; adapters inside keep its windows right."""

import pytest
import torch
from sam2.modeling.backbones.hieradet import Hiera
from torch import nn

import adapters

SMALL = {"embed_dim": 16, "num_heads": 1, "stages": (1, 2, 4, 2), "global_att_blocks": (5,), "drop_path_rate": 0.0}


@pytest.mark.parametrize("method", ["salt", "lora"])
@pytest.mark.parametrize("img_size", [224, 352])  # windows of 8, 4, 14, 7 tokens at strides of 4 to 32
def test_adapted_projections_keep_windows_right(method, img_size):
    """Padding tokens are zeros, of which an adapted layer makes its bias as the plain one does."""
    torch.manual_seed(0)
    plain, adapted = Hiera(**SMALL), Hiera(**SMALL)
    for name, parameter in plain.named_parameters():
        if "pos_embed" in name or name.endswith("bias"):
            nn.init.normal_(parameter, std=0.5)
    adapted.load_state_dict(plain.state_dict())
    adapters.inject(adapted, method, ["blocks.*.attn.*", "blocks.*.mlp.*"], adapters.RankRule(8, 4, 2))
    images = torch.randn(1, 3, img_size, img_size)
    with torch.no_grad():
        for first, second in zip(adapted.eval()(images), plain.eval()(images), strict=True):
            assert torch.allclose(first, second, atol=1e-5)
