"""The benchmark of kept embeddings: both ways train the same small run."""

from contextlib import nullcontext

from benchmarks.embeddings import WAYS, compare, epoch_of
from datasets.preparation.prepare import prepare


def test_an_epoch_runs_in_both_ways(tmp_path):
    prepare("synthetic", None, tmp_path / "data", count=6, size=64)
    (tmp_path / "m.yaml").write_text(
        "sam: {sam_type: nano, img_size: 64, weights: random}\nprompts: {text_encoder: learned}\nstrategy: decoder\n"
        f"data: {{root_path: {tmp_path / 'data'}, label_names: [Background, Vessel]}}\ntraining: {{batch_size: 2}}\n"
    )
    for gibibytes in WAYS.values():
        epoch = epoch_of(tmp_path / "m.yaml", tmp_path / "run", gibibytes)
        epoch()
        epoch()


def test_the_comparison_has_both_ways(monkeypatch):
    monkeypatch.setattr("benchmarks.embeddings.in_own_process", lambda make: nullcontext(make()))
    comparison = compare(64, 4, 1, "nano")
    assert list(comparison.seconds) == list(WAYS)
    assert comparison.record()["ways"]["embeddings kept"]["times_faster"] > 0
