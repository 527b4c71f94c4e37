"""metrics.jsonl and TensorBoard's files, through restarts, halves of lines and damage."""

import json
import os

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.run_log import RunLog, read_metrics, scalars
from utils.errors import UserError


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def events(folder):
    """Return {name: [(step, value)]} as TensorBoard shows them."""
    accumulator = EventAccumulator(str(folder / "tensorboard"))
    accumulator.Reload()
    return {
        name: [(event.step, pytest.approx(event.value)) for event in accumulator.Scalars(name)]
        for name in accumulator.Tags()["scalars"]
    }


def record(epoch, total=1.0):
    return {"epoch": epoch, "loss": {"total": total, "dice": 0.5}, "lr": 1e-4}


def fill(folder, *epochs):
    with RunLog(folder) as log:
        for epoch in epochs:
            log.epoch(record(epoch))


def test_a_line_an_epoch_in_a_folder_made_for_it(tmp_path):
    folder = tmp_path / "runs" / "x"
    with RunLog(folder) as log:
        for epoch in (1, 2):
            log.epoch(record(epoch))
            # On the disk at once, not when the log closes.
            assert lines(folder) == [record(e) for e in range(1, epoch + 1)]
    assert read_metrics(folder / "metrics.jsonl") == [record(1), record(2)]


def test_tensorboard_reads_the_same_numbers(tmp_path):
    with RunLog(tmp_path) as log:
        log.epoch({**record(1, 2.5), "best": True, "note": "text", "list": [1, 2], "val": {"dice": {"mean": 0.25}}})
        log.epoch(record(2, 1.5))
    assert events(tmp_path) == {
        "loss/total": [(1, 2.5), (2, 1.5)],
        "loss/dice": [(1, 0.5), (2, 0.5)],
        "lr": [(1, 1e-4), (2, 1e-4)],
        "val/dice/mean": [(1, 0.25)],
    }


def test_scalars_pass_over_what_is_no_finite_number():
    mixed = {"epoch": 3, "a": 1, "b": {"c": 0.5, "epoch": 2}, "d": True, "e": None, "f": "1", "g": float("inf")}
    assert list(scalars(mixed)) == [("a", 1.0), ("b/c", 0.5), ("b/epoch", 2.0)]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_refused_and_nothing_written(tmp_path, bad):
    with RunLog(tmp_path) as log:
        log.epoch(record(1))
        with pytest.raises(ValueError, match="JSON"):
            log.epoch(record(2, bad))
        log.epoch(record(2))
    assert lines(tmp_path) == [record(1), record(2)]
    assert events(tmp_path)["loss/total"] == [(1, 1.0), (2, 1.0)]


@pytest.mark.parametrize(
    ("bad", "error"),
    [({"loss": 1.0}, KeyError), ({"epoch": 2.0}, TypeError), ({"epoch": "2"}, TypeError), ({"epoch": True}, TypeError)],
)
def test_an_epoch_that_could_not_be_read_back_is_refused(tmp_path, bad, error):
    with RunLog(tmp_path) as log:
        with pytest.raises(error, match="epoch"):
            log.epoch(bad)
        log.epoch(record(1))
    assert lines(tmp_path) == [record(1)]


def test_an_earlier_log_is_refused_without_resume(tmp_path):
    fill(tmp_path, 1)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError) as caught:
        RunLog(tmp_path)
    assert str(tmp_path / "metrics.jsonl") in str(caught.value)
    assert "--resume" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_an_empty_log_is_no_earlier_run(tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    fill(tmp_path, 1)
    assert lines(tmp_path) == [record(1)]


def test_resume_goes_on_where_the_log_ends(tmp_path):
    fill(tmp_path, 1, 2)
    with RunLog(tmp_path, resume=True) as log:
        log.epoch(record(3))
    assert lines(tmp_path) == [record(1), record(2), record(3)]
    assert events(tmp_path)["loss/total"] == [(1, 1.0), (2, 1.0), (3, 1.0)]


def test_resume_starts_a_log_that_is_not_there(tmp_path):
    with RunLog(tmp_path, resume=True) as log:
        log.truncate_after(0)
        log.epoch(record(1))
    assert lines(tmp_path) == [record(1)]


def test_epochs_beyond_the_checkpoint_are_dropped_from_both_logs(tmp_path):
    fill(tmp_path, 1, 2, 3)
    with RunLog(tmp_path, resume=True) as log:
        log.truncate_after(1)
        assert lines(tmp_path) == [record(1)]
        log.epoch(record(2, 7.0))
    assert lines(tmp_path) == [record(1), record(2, 7.0)]
    assert events(tmp_path)["loss/total"] == [(1, 1.0), (2, 7.0)]


def test_truncation_in_the_middle_of_a_run(tmp_path):
    with RunLog(tmp_path) as log:
        for epoch in (1, 2, 3):
            log.epoch(record(epoch))
        log.truncate_after(2)
        log.epoch(record(3, 7.0))
    assert lines(tmp_path) == [record(1), record(2), record(3, 7.0)]
    assert events(tmp_path)["loss/total"] == [(1, 1.0), (2, 1.0), (3, 7.0)]


def test_truncation_after_the_last_epoch_drops_nothing(tmp_path):
    fill(tmp_path, 1, 2)
    with RunLog(tmp_path, resume=True) as log:
        log.truncate_after(2)
        log.truncate_after(9)
    assert lines(tmp_path) == [record(1), record(2)]


@pytest.mark.parametrize("half", ['{"epoch": 3, "lo', "{", '{"epoch": 3, "note": "\udce2'])
def test_a_half_line_is_repaired_on_resume(tmp_path, warned, half):
    fill(tmp_path, 1, 2)
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8", errors="surrogateescape") as file:
        file.write(half)
    assert read_metrics(tmp_path / "metrics.jsonl") == [record(1), record(2)]
    assert "half-written last line" in warned()[0]
    with RunLog(tmp_path, resume=True) as log:
        log.epoch(record(3))
    assert lines(tmp_path) == [record(1), record(2), record(3)]


def test_a_whole_last_line_without_its_newline_is_kept(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(record(1)))
    with RunLog(tmp_path, resume=True) as log:
        log.epoch(record(2))
    assert lines(tmp_path) == [record(1), record(2)]


@pytest.mark.parametrize(
    "line", ['{"epoch": 2, "lo', "[1]", "", "{}", '{"epoch": true}', '{"epoch": "2"}', '{"epoch": 2.0}', "null"]
)
def test_damage_before_the_end_is_named_by_its_line(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f"{json.dumps(record(1))}\n{line}\n{json.dumps(record(3))}\n")
    before = path.read_bytes()
    for read in (lambda: read_metrics(path), lambda: RunLog(tmp_path, resume=True)):
        with pytest.raises(UserError) as caught:
            read()
        assert str(caught.value).startswith(f"{path}: line 2 ")
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_a_log_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"metrics\.jsonl: cannot be read"):
        read_metrics(tmp_path / "metrics.jsonl")
    with pytest.raises(UserError, match="cannot be read"):
        read_metrics(tmp_path)


def test_a_closed_log_may_go_on(tmp_path):
    log = RunLog(tmp_path)
    log.epoch(record(1))
    log.close()
    log.close()
    log.epoch(record(2))
    log.close()
    assert lines(tmp_path) == [record(1), record(2)]
    assert events(tmp_path)["lr"] == [(1, 1e-4), (2, 1e-4)]


def test_a_line_is_forced_to_the_disk_whole(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    with RunLog(tmp_path) as log:
        log.epoch(record(1))
    assert synced == [(tmp_path / "metrics.jsonl").stat().st_size]
