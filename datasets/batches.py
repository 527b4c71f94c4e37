"""Which samples each step, process and part of a step trains on."""

from collections.abc import Iterator, Sized

from torch.utils.data import Sampler

from datasets.data import EpochSampler


class StepBatches(Sampler[list[tuple[int, int]]]):
    """One process' batches of an epoch: `parts` a step, each a list of (epoch, index).

    `batch_size` samples make a step of the optimizer, over all processes and parts, so the steps of an epoch are the
    same for any number of them. Every process gets as many batches: where the last step has too few samples, a batch is
    one sample of padding, whose `share` is 0.
    """

    def __init__(
        self, dataset: Sized, batch_size: int, seed: int, parts: int = 1, process: int = 0, processes: int = 1
    ) -> None:
        self.samples, self.batch_size = len(dataset), batch_size
        self.parts, self.process, self.processes = parts, process, processes
        self.part_size = batch_size // (parts * processes)
        self.steps = -(-self.samples // batch_size)
        self.first_step = 0
        self._order = EpochSampler(dataset, seed)

    def set_position(self, epoch: int, first_step: int = 0) -> None:
        """The next pass is over `epoch`, without the steps before `first_step`."""
        self._order.set_epoch(epoch)
        self.first_step = first_step

    def step_samples(self, step: int) -> int:
        """How many samples a step has, over all processes."""
        return min(self.batch_size, self.samples - step * self.batch_size)

    def share(self, step: int, part: int) -> float:
        """The part of a step's samples that are in one batch of this process."""
        first, last = self._bounds(step, part)
        return (last - first) / self.step_samples(step)

    def __len__(self) -> int:
        return (self.steps - self.first_step) * self.parts

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = list(self._order)
        for step in range(self.first_step, self.steps):
            for part in range(self.parts):
                first, last = self._bounds(step, part)
                yield order[first:last] or order[:1]

    def _bounds(self, step: int, part: int) -> tuple[int, int]:
        first = step * self.batch_size + (part * self.processes + self.process) * self.part_size
        end = step * self.batch_size + self.step_samples(step)
        return min(first, end), min(first + self.part_size, end)
