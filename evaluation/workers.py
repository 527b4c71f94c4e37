"""Scores samples in worker processes, while this one predicts the next."""

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from evaluation.metrics import PAPER_METRICS, PairScore, score_pair
from utils.config.evaluation import EvaluationConfig
from utils.errors import UserError
from utils.pools import end_with_parent, end_workers

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


@dataclass(frozen=True)
class Comparison:
    """A prediction and its truth at one size: masks (H, W) bool, the probability (H, W), and the field of view."""

    pred: np.ndarray
    truth: np.ndarray
    probability: np.ndarray
    fov: np.ndarray | None = None

    def score(self, settings: EvaluationConfig) -> PairScore:
        """The metrics that `settings` names."""
        return score_pair(self.pred, self.truth, settings.metrics, self.probability, self.fov, settings.nsd_tolerance)


Submit = Callable[[Comparison], Future[PairScore]]


@contextmanager
def scoring(settings: EvaluationConfig, workers: int) -> Iterator[Submit]:
    """Context manager: a function that scores a comparison, in one of `workers` processes where that is worth it.

    Dice and HD95 alone take less time than their masks take to another process, and are computed at once.

    Raises: UserError if a worker is killed.
    """
    if workers < 2 or set(settings.metrics) <= set(PAPER_METRICS):
        yield lambda comparison: _done(comparison.score(settings))
        return
    # Imports what the workers need, once for all.
    dot = np.eye(3, dtype=bool)
    Comparison(dot, dot, np.full((3, 3), 0.5, np.float32)).score(settings)
    pool = ProcessPoolExecutor(workers, initializer=_prepare_worker)

    def submit(comparison: Comparison) -> Future[PairScore]:
        # The workers start with the first; they inherit a mask that blocks the stop signals, which a cluster sends to
        # every process of a job.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        try:
            return pool.submit(comparison.score, settings)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    try:
        yield submit
    except BrokenProcessPool as error:
        raise UserError("evaluation: a worker process was killed, perhaps out of memory; run it again") from error
    finally:
        end_workers(pool)


def _done(score: PairScore) -> Future[PairScore]:
    future: Future[Any] = Future()
    future.set_result(score)
    return future


def _prepare_worker() -> None:
    torch.set_num_threads(1)
    end_with_parent()
