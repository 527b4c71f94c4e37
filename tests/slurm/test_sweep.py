"""slurm/*.sbatch on a real Slurm: a sweep as an array, one task signalled, one cancelled and requeued."""

import json
import sys
import time
from pathlib import Path

import pytest
import yaml
from slurm_cluster import Cluster, missing

from training.run_log import read_metrics

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 40
# The test's node has no GPU and little memory.
NODE = ("--gres=none", "--cpus-per-task=1", "--mem=0")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=f"no Slurm here: {missing()}"),
    pytest.mark.xdist_group("slurm"),  # one cluster for all of these tests
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("slurm") / "slurm") as cluster:
        cluster.environment |= {"SALT_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
        yield cluster


def wait_for(condition, what, seconds=400):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.3)


def epochs(folder):
    path = folder / "metrics.jsonl"
    return [line["epoch"] for line in read_metrics(path)] if path.exists() else []


def test_a_sweep_as_an_array_survives_a_signal_and_a_cancellation(workspace, cluster):
    names = ("lora/set/0", "lora/set/1", "lora/set/2")
    folders = {name: workspace.folder / "sweep" / name for name in names}
    plan = workspace.folder / "plan.yaml"
    row = {"model_config": str(workspace.model_config), "overrides": ["strategy=lora"]}
    content = {
        "output": str(workspace.folder / "sweep"),
        "seeds": [0, 1, 2],
        "datasets": {"set": str(workspace.data_config)},
        "rows": {"lora": row},
        "overrides": [f"training.num_epochs={EPOCHS}"],
    }
    plan.write_text(yaml.safe_dump(content))
    log = workspace.folder / "%A_%a.out"
    submitted = cluster.command(
        "bash", "slurm/sweep.sbatch", str(plan), *NODE, f"--output={log}", "--time=30", cwd=ROOT
    )
    job = submitted.split()[-1]

    # Two CPUs: tasks 0 and 1 run, 2 waits.
    signalled, cancelled = folders[names[0]], folders[names[1]]
    wait_for(lambda: epochs(signalled) and epochs(cancelled), "two tasks to train")
    cluster.command("scancel", "--batch", "--signal=USR1", f"{job}_0")
    cluster.command("scancel", f"{job}_1")
    wait_for(lambda: cluster.states(job).get("1") == "CANCELLED", "the cancellation")
    assert not (cancelled / "results.json").exists()
    done_before = len(epochs(cancelled))
    assert done_before < EPOCHS
    cluster.command("scontrol", "requeue", f"{job}_1")
    wait_for(lambda: all((folder / "results.json").exists() for folder in folders.values()), "all results")
    wait_for(lambda: set(cluster.states(job).values()) == {"COMPLETED"}, "the end of every task")

    outputs = "\n".join(path.read_text() for path in workspace.folder.glob("*.out"))
    assert "stopped by Slurm's warning (exit status 3); requeued" in outputs
    assert outputs.count("error: stopped by a signal in lora/set/") == 2
    assert (outputs.count(": starts"), outputs.count(": resumes")) == (3, 2)
    logs = [(folder / "log.txt").read_text() for folder in folders.values()]
    assert [log.count(": resumed after epoch") for log in logs] == [1, 1, 0]
    for folder in folders.values():
        assert epochs(folder) == list(range(1, EPOCHS + 1))  # every epoch once
        assert json.loads((folder / "results.json").read_text())["epochs"] == EPOCHS

    # Submitted again: nothing runs twice.
    before = {folder: (folder / "results.json").stat().st_mtime_ns for folder in folders.values()}
    options = ("--array=0", *NODE, f"--output={log}", "--parsable")
    again = cluster.command("sbatch", *options, "slurm/sweep.sbatch", str(plan), cwd=ROOT)
    wait_for(lambda: set(cluster.states(again).values()) == {"COMPLETED"}, "the task to find nothing to do")
    assert before == {folder: (folder / "results.json").stat().st_mtime_ns for folder in folders.values()}
    assert "lora/set/0: done before" in "\n".join(path.read_text() for path in workspace.folder.glob("*.out"))
    assert epochs(signalled) == list(range(1, EPOCHS + 1))


def test_one_run_saves_at_the_warning_and_goes_on(workspace, cluster):
    """slurm/train.sbatch, submitted again when it is done: it stays as it is."""
    folder, output = workspace.folder / "one", workspace.folder / "one.out"
    arguments = workspace.train_arguments("one/m.safetensors", "--set", f"training.num_epochs={EPOCHS}")
    submit = ("sbatch", *NODE, f"--output={output}", "--parsable", "slurm/train.sbatch", *arguments)
    job = cluster.command(*submit, cwd=ROOT)
    wait_for(lambda: epochs(folder), "the training")
    cluster.command("scancel", "--batch", "--signal=USR1", job)
    wait_for(lambda: "stopped by Slurm's warning (exit status 3); requeued" in output.read_text(), "the warning")
    assert not (folder / "results.json").exists()
    wait_for(lambda: cluster.states(job) == {"N/A": "COMPLETED"}, "the end of the job")
    assert epochs(folder) == list(range(1, EPOCHS + 1))
    assert output.read_text().count(": resumed after epoch") == 1
    before = (folder / "results.json").stat().st_mtime_ns
    again = cluster.command(*submit, cwd=ROOT)
    wait_for(lambda: cluster.states(again) == {"N/A": "COMPLETED"}, "the job to find nothing to do")
    assert (folder / "results.json").stat().st_mtime_ns == before


def test_two_processes_by_srun_and_torchrun_save_at_the_warning_and_go_on(workspace, cluster, monkeypatch):
    """slurm/multi_gpu.sbatch, with gloo on the test's two CPUs."""
    monkeypatch.setitem(cluster.environment, "SALT_PROCESSES_PER_NODE", "2")
    folder = workspace.folder / "multi"
    output = workspace.folder / "multi.out"
    arguments = workspace.train_arguments("multi/m.safetensors", "--set", f"training.num_epochs={EPOCHS}")
    node = ("--gpus-per-node=0", "--cpus-per-task=2", "--mem=0", f"--output={output}", "--parsable")
    job = cluster.command("sbatch", *node, "slurm/multi_gpu.sbatch", *arguments, cwd=ROOT)
    wait_for(lambda: epochs(folder), "the training")
    cluster.command("scancel", "--batch", "--signal=USR1", job)
    wait_for(lambda: "; requeued" in output.read_text(), "the job to be requeued")
    # torchrun's own status after SIGTERM; it is another one where USR1 reached and ended it.
    assert "stopped by Slurm's warning (exit status 1); requeued" in output.read_text()
    assert "error: stopped by a signal" in output.read_text()
    assert not (folder / "results.json").exists()
    wait_for(lambda: (folder / "results.json").exists(), "the results")
    assert epochs(folder) == list(range(1, EPOCHS + 1))
    assert json.loads((folder / "results.json").read_text())["processes"] == 2
    assert output.read_text().count(": resumed after epoch") == 1
