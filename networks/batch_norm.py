"""Batch normalization for batches of one."""

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class SingleValueBatchNorm(_BatchNorm):
    """BatchNorm of (B, C) or (B, C, H, W) that uses its running statistics where a channel has a single value.

    This happens in training with a batch of one: (1, C), or (1, C, 1, 1) after global pooling. The stock layers
    raise an error there, since one value has no variance. State dicts are those of the stock layers.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)

    def _check_input_dim(self, input: Tensor) -> None:
        """Takes any number of dimensions."""
