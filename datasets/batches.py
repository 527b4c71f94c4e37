"""Batches of an epoch, split over optimizer steps, processes and micro-batches."""

from collections.abc import Iterator, Sequence, Sized

from torch.utils.data import Sampler

from datasets.data import EpochSampler


class StepBatches(Sampler[list[tuple[int, ...]]]):
    """The micro-batches of one process in an epoch: `micro_batches` a step, each a list of `EpochSampler`'s keys.

    An optimizer step takes `batch_size` samples over all processes and micro-batches, so an epoch has the same steps
    for any number of them. Every process gets the same number of micro-batches. Where the last step has too few
    samples for that, a micro-batch is one sample whose `share` is 0.
    """

    def __init__(
        self,
        dataset: Sized,
        batch_size: int,
        seed: int,
        micro_batches: int = 1,
        process: int = 0,
        processes: int = 1,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.samples, self.batch_size = len(dataset), batch_size
        self.micro_batches, self.process, self.processes = micro_batches, process, processes
        self.micro_batch_size = batch_size // (micro_batches * processes)
        self.steps = -(-self.samples // batch_size)
        self.first_step = 0
        self._order = EpochSampler(dataset, seed, weights)

    def set_position(self, epoch: int, first_step: int = 0) -> None:
        """Set the epoch of the next pass, and the step it starts at."""
        self._order.set_epoch(epoch)
        self.first_step = first_step

    def step_samples(self, step: int) -> int:
        """Return the number of samples of a step, over all processes."""
        return min(self.batch_size, self.samples - step * self.batch_size)

    def share(self, step: int, micro_batch: int) -> float:
        """Return the share, 0..1, of a step's samples that one micro-batch of this process holds."""
        first, last = self._bounds(step, micro_batch)
        return (last - first) / self.step_samples(step)

    def __len__(self) -> int:
        return (self.steps - self.first_step) * self.micro_batches

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        order = list(self._order)
        for step in range(self.first_step, self.steps):
            for micro_batch in range(self.micro_batches):
                first, last = self._bounds(step, micro_batch)
                yield order[first:last] or order[:1]

    def _bounds(self, step: int, micro_batch: int) -> tuple[int, int]:
        first = step * self.batch_size + (micro_batch * self.processes + self.process) * self.micro_batch_size
        end = step * self.batch_size + self.step_samples(step)
        return min(first, end), min(first + self.micro_batch_size, end)
