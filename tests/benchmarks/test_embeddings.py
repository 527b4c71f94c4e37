"""The benchmark of kept embeddings: both ways train the same small run."""

from contextlib import nullcontext

from benchmarks.embeddings import WAYS, compare


def test_the_comparison_has_both_ways(monkeypatch):
    monkeypatch.setattr("benchmarks.embeddings.in_own_process", lambda make: nullcontext(make()))
    comparison = compare(64, 4, 1, "nano")
    assert list(comparison.seconds) == list(WAYS)
    assert comparison.record()["ways"]["embeddings kept"]["times_faster"] > 0
