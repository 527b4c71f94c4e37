"""The processes of a run, one or those that `torchrun` started: device, precision, accumulation, communication."""

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list, gather_object
from torch import nn

from utils.config.options import Precision
from utils.device import cpu_multiplies_bf16
from utils.errors import ConfigError, UserError

log = logging.getLogger(__name__)

Result = TypeVar("Result")

_MIXED_PRECISION: dict[Precision, str] = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


class Processes:
    """This process among `count`, over Hugging Face Accelerate: gloo between CPUs, nccl between GPUs.

    Process 0 is the main process: it alone writes files and logs. All processes must call a method that communicates.

    Args:
        device: as `resolve_device` gave it.
        precision: fp32, bf16 or fp16, of the forward passes in `accelerator.prepare`d models and `autocast`.
        accumulate_steps: micro-batches in a step of the optimizer.

    Raises:
        ConfigError: a precision that the device does not have.
    """

    def __init__(self, device: torch.device, precision: Precision = "fp32", accumulate_steps: int = 1) -> None:
        # Accelerate keeps one state per Python process; a second run in it may want another precision.
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        if precision == "fp16" and device.type == "cpu":
            raise ConfigError("training.precision = fp16: needs a GPU; on a CPU use bf16 or fp32")
        if device.type == "cuda":
            torch.cuda.set_device(device)
        # Buffers stay as they are: a broadcast before every step would send all frozen weights.
        ddp = DistributedDataParallelKwargs(broadcast_buffers=False)
        try:
            self.accelerator = Accelerator(
                cpu=device.type == "cpu",
                mixed_precision=_MIXED_PRECISION[precision],
                gradient_accumulation_steps=accumulate_steps,
                kwargs_handlers=[ddp],
            )
        except ValueError as error:
            raise ConfigError(f"training.precision = {precision}: {error}") from error
        self.device = device
        self.precision = precision
        self.count: int = self.accelerator.num_processes
        self.index: int = self.accelerator.process_index
        if precision == "bf16" and device.type == "cpu" and self.is_main and not cpu_multiplies_bf16():
            log.warning("training.precision = bf16: torch has no fast bf16 matrix products on this CPU; fp32 is faster")
        self.wait()  # the main process holds the store that the others connect to: it must not end with an error before

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes."""
        return self.index == 0

    def check_batch_size(self, batch_size: int) -> None:
        """Raises ConfigError unless every micro-batch of every process gets as many images."""
        steps = self.accelerator.gradient_accumulation_steps
        if batch_size % (self.count * steps):
            micro_batches = f" x {steps} accumulate_steps" if steps > 1 else ""
            raise ConfigError(
                f"training.batch_size = {batch_size}: must be divisible by {self.count} processes{micro_batches}"
            )

    def prepare(
        self, objective: nn.Module, optimizer: torch.optim.Optimizer, some_unused: bool = False
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Wraps both in Accelerate's classes: averaged gradients, mixed precision, the fp16 scaler.

        `some_unused`: a step may leave some trained parameters out. What was prepared before is forgotten.
        """
        self.accelerator.free_memory()
        # Parameters without elements (SALT's X and Y where every singular value is on the diagonal) get no gradient.
        empty = any(p.requires_grad and not p.numel() for p in objective.parameters())
        self.accelerator.ddp_handler.find_unused_parameters = empty or some_unused
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
            return self.accelerator.prepare(objective, optimizer)

    def on_main(self, work: Callable[[], Result]) -> Result:
        """Runs `work` in the main process; every process returns its result, or raises its error."""
        if self.count == 1:
            return work()
        outcome: list[Any] = [None, None]
        error: Exception | None = None
        if self.is_main:
            try:
                outcome = [work(), None]
            except (UserError, OSError) as raised:
                error, outcome = raised, [None, getattr(raised, "exit_code", UserError.exit_code)]
        broadcast_object_list(outcome)
        if error is not None:
            raise error
        if outcome[1] is not None:
            raise OtherProcessError(outcome[1])
        return outcome[0]

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each of the values, summed over the processes."""
        if self.count == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return total.tolist()

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any process."""
        return self.sum([float(flag)])[0] > 0

    def gather(self, items: list[Any]) -> list[Any]:
        """The items of all processes in one list, by process."""
        return items if self.count == 1 else gather_object(items)

    def copy_from_main(self, tensors: Sequence[torch.Tensor]) -> None:
        """Copies the main process' values into the tensors, in place."""
        for tensor in tensors if self.count > 1 else ():
            torch.distributed.broadcast(tensor, src=0)

    def wait(self) -> None:
        """Waits until all processes have called this."""
        self.accelerator.wait_for_everyone()

    def end(self) -> None:
        """Ends the communication after a run that succeeded."""
        self.accelerator.end_training()


class OtherProcessError(UserError):
    """The main process failed and reports why; this process ends with the same exit status."""

    already_reported = True

    def __init__(self, exit_code: int) -> None:
        super().__init__("the main process failed")
        self.exit_code = exit_code
