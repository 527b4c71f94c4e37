"""BatchNorm in training by several processes."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

log = logging.getLogger(__name__)


def sync_batch_norm(model: nn.Module, device: torch.device) -> None:
    """Makes every BatchNorm in `model` normalize with the statistics of all processes' samples, on GPUs.

    torch's SyncBatchNorm runs on GPUs only. On CPUs each process keeps its own statistics, which the log says.
    """
    if not any(isinstance(module, _BatchNorm) for module in model.modules()):
        return
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    else:
        log.warning("training.sync_batch_norm: needs GPUs; each process normalizes by its own samples")


def batch_norm_buffers(model: nn.Module) -> list[Tensor]:
    """The running statistics of every BatchNorm in `model`."""
    norms = (module for module in model.modules() if isinstance(module, _BatchNorm))
    return [buffer for norm in norms for buffer in norm.buffers(recurse=False)]


@contextmanager
def frozen_batch_norm(model: nn.Module, frozen: bool) -> Iterator[None]:
    """Context manager: where `frozen`, a forward pass leaves the BatchNorms' statistics as they are.

    A SyncBatchNorm is left in training: the other processes wait for its part of the communication.
    """
    norms = [
        module
        for module in model.modules()
        if frozen and isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm) and module.training
    ]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()
