"""BatchNorm whose statistics are those of all processes' samples, on CPUs as well as GPUs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm


class SyncedBatchNorm(_BatchNorm):
    """A BatchNorm's parameters and buffers, normalizing with mean and variance over the batches of all processes.

    torch's own SyncBatchNorm runs on GPUs only. A process whose batch is padding sets `left_out`: it takes part in the
    exchange and counts for nothing. Where all together have one value a channel, the running statistics normalize.
    """

    left_out = False

    def _check_input_dim(self, x: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> the same shape."""
        if not self.training:
            return super().forward(x)
        kept = x.dtype
        x = x.float()
        dims = [i for i in range(x.ndim) if i != 1]
        weight = 0.0 if self.left_out else 1.0
        count = x.new_tensor([weight * x.numel() / x.shape[1]])
        torch.distributed.all_reduce(count)
        mean = all_reduce(x.sum(dims) * weight) / count
        centered = x - _as_channels(mean, x)
        variance = all_reduce((centered * centered).sum(dims) * weight) / count
        if count <= 1:
            mean, variance = self.running_mean, self.running_var
            centered = x - _as_channels(mean, x)
        else:
            self._update(mean.detach(), variance.detach() * count / (count - 1))
        x = centered * _as_channels(torch.rsqrt(variance + self.eps), x)
        if self.affine:
            x = x * _as_channels(self.weight, x) + _as_channels(self.bias, x)
        return x.to(kept)

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor) -> None:
        if not self.track_running_stats:
            return
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def sync_batch_norm(model: nn.Module) -> None:
    """Replaces every BatchNorm in `model` by a SyncedBatchNorm with the very same parameters and buffers."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm) and not isinstance(child, SyncedBatchNorm):
                synced = SyncedBatchNorm(
                    child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats
                )
                synced._parameters, synced._buffers = child._parameters, child._buffers
                synced.train(child.training)
                setattr(module, name, synced)


def batch_norm_buffers(model: nn.Module) -> list[Tensor]:
    """The running statistics of every BatchNorm in `model`."""
    norms = (module for module in model.modules() if isinstance(module, _BatchNorm))
    return [buffer for norm in norms for buffer in norm.buffers(recurse=False)]


@contextmanager
def batch_left_out(model: nn.Module, left_out: bool) -> Iterator[None]:
    """A block whose forward pass does not enter any BatchNorm's statistics, where `left_out`."""
    norms = [module for module in model.modules() if left_out and isinstance(module, _BatchNorm) and module.training]
    synced = [norm for norm in norms if isinstance(norm, SyncedBatchNorm)]
    own = [norm for norm in norms if not isinstance(norm, SyncedBatchNorm)]
    for norm in synced:
        norm.left_out = True
    for norm in own:
        norm.eval()
    try:
        yield
    finally:
        for norm in synced:
            norm.left_out = False
        for norm in own:
            norm.train()


def _as_channels(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *(1 for _ in x.shape[2:]))
