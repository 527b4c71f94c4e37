"""Kills train, sweep and prepare at random system calls; run again, each must end as if it had never been killed.

`python -m tests.crash` kills 100 times, which takes about half an hour on two cores. `--seed` chooses other moments.
Needs Linux and strace.
"""

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from checkpointing.weights_file import read_weights
from tests.conftest import make_workspace_in

ROOT = Path(__file__).resolve().parents[1]
# What changes files. Each kind is as likely as any other, however often it is called.
CALLS = ("write", "rename", "unlink", "unlinkat", "mkdir", "rmdir", "fsync", "chmod")
# Between the first line of metrics.jsonl and the first epoch's state: no run that was killed here went on once.
FIXED = tuple(("train", "rename", number) for number in (7, 8, 9))
IN_A_ROW = 3  # kills at most, before the command may end
TIMEOUT = 900

# Of results.json: what differs from run to run.
_MEASURED = ("seconds", "seconds_per_epoch", "peak_memory_bytes")


@dataclass
class Command:
    """A command that writes to `{target}`, and what to run in the empty folder before it."""

    arguments: list[str]
    before: list[str] = field(default_factory=list)
    reference: dict[str, object] = field(default_factory=dict)
    moments: dict[str, list[int]] = field(default_factory=dict)  # of each call: which of them concern the target

    def line(self, target: Path, arguments: list[str]) -> list[str]:
        """The command line for a target."""
        return [sys.executable, "main.py", *(word.replace("{target}", str(target)) for word in arguments)]


def commands(folder: Path) -> dict[str, Command]:
    """The commands that are killed; `folder` gets what they need."""
    workspace = make_workspace_in(folder)
    configs = ["--data_config", str(workspace.data_config), "--model_config", str(workspace.model_config)]
    lora, cpu = ["--training_strategy", "lora"], ["--device", "cpu"]
    plan = folder / "plan.yaml"
    model = str(workspace.model_config)
    rows = {name: {"model_config": model, "overrides": [f"strategy={name}"]} for name in ("lora",)}
    plan.write_text(
        yaml.safe_dump({"output": str(folder / "runs"), "datasets": {"bars": str(workspace.data_config)}, "rows": rows})
    )
    prepare = ["prepare", "synthetic", "--count", "8", "--size", "64", "--output", "{target}"]
    return {
        "train": Command(["train", *configs, *lora, *cpu, "--save_path", "{target}/m.safetensors", "--resume", "auto"]),
        "sweep": Command(["sweep", "--plan", "{target}.yaml", *cpu]),
        "prepare": Command([*prepare, "--force"]),
        "prepare again": Command([*prepare, "--force"], [*prepare, "--seed", "1"]),
    }


def run(line: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False)


def prepared(command: Command, folder: Path, target: Path) -> None:
    """Does what comes before the command."""
    target.parent.mkdir(parents=True)
    if "{target}.yaml" in command.arguments:
        plan = yaml.safe_load((folder / "plan.yaml").read_text())
        Path(f"{target}.yaml").write_text(yaml.safe_dump({**plan, "output": str(target)}))
    if command.before:
        done = run(command.line(target, command.before))
        assert done.returncode == 0, done.stderr


def observe(command: Command, folder: Path, target: Path) -> None:
    """Runs the command undisturbed: its results, and which of its calls concern the target."""
    prepared(command, folder, target)
    log = folder / "strace.log"
    trace = ["strace", "-f", "--seccomp-bpf", "-y", "-s", "0", "-o", str(log), "-e", f"trace={','.join(CALLS)}"]
    done = run([*trace, *command.line(target, command.arguments)])
    assert done.returncode == 0, done.stderr
    numbers: Counter[tuple[str, str]] = Counter()
    found: dict[str, dict[str, list[int]]] = {}
    for process, call, rest in re.findall(r"^(\d+) +(\w+)\((.*)$", log.read_text(errors="replace"), re.MULTILINE):
        numbers[process, call] += 1  # strace counts each process by itself
        if str(target.parent) in rest:
            found.setdefault(process, {}).setdefault(call, []).append(numbers[process, call])
    command.moments = max(found.values(), key=lambda calls: sum(map(len, calls.values())))  # of the one that writes
    command.reference = dict(contents(target))


def kill(command: Command, target: Path, call: str, number: int, log: Path) -> tuple[bool, str]:
    """Runs the command and kills it at a call; returns whether it came to that, and what it said."""
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"]
    # Without --seccomp-bpf, which observing has for its speed: strace 6.1 then injects nothing.
    line = ["strace", "-f", "-o", str(log), *inject, *command.line(target, command.arguments)]
    process = subprocess.Popen(
        line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    output, _ = process.communicate(timeout=TIMEOUT)
    return "+++ killed by SIGKILL +++" in log.read_text(errors="replace"), output


def contents(target: Path) -> Iterator[tuple[str, object]]:
    """(name, content) of every file around the target, hidden ones too, as far as it is the same in every run."""
    for path in sorted(target.parent.rglob("*")):
        name = path.relative_to(target.parent).as_posix().replace(target.name, "target", 1)
        if path.is_dir() or "/tensorboard/" in name:
            continue
        if re.search(r"/last/state_\d+\.pth", name):
            yield re.sub(r"_\d+", "", name), len(list(path.parent.iterdir()))
        elif path.name in ("environment.json", "log.txt", "curves.png") or name == "target.yaml":
            yield name, "is there"
        elif path.suffix == ".safetensors":  # metadata are in no order
            weights = read_weights(path)
            yield name, ({key: tensor.numpy().tobytes() for key, tensor in weights.tensors.items()}, weights.metadata)
        elif path.name == "metrics.jsonl":
            yield name, [{**json.loads(line), "seconds": 0} for line in path.read_text().splitlines()]
        elif path.name == "results.json":
            results = json.loads(path.read_text())
            results["checkpoint"] |= {"path": None, "sha256": None}
            yield name, {key: value for key, value in results.items() if key not in _MEASURED}
        else:
            yield name, path.read_bytes()


def problem(command: Command, target: Path) -> str:
    """Runs the command to its end; says how the outcome differs from the reference, or ""."""
    done = run(command.line(target, command.arguments))
    if done.returncode:
        return f"exit status {done.returncode}: {done.stderr.strip().splitlines()[-1]}"
    found = dict(contents(target))
    differing = [
        name for name in found.keys() | command.reference.keys() if found.get(name) != command.reference.get(name)
    ]
    return f"differs in {', '.join(sorted(differing))}" if differing else ""


def crash(kills: int, seed: int, folder: Path) -> list[str]:
    """Kills `kills` times; returns a line for each command that did not end as the undisturbed one."""
    every = commands(folder)
    for name, command in every.items():
        observe(command, folder, folder / "reference" / name.replace(" ", "_") / "t")
        print(f"{name}: { ({call: len(numbers) for call, numbers in command.moments.items()}) }", flush=True)
    moments, fixed, problems, killed, number = random.Random(seed), list(FIXED), [], 0, 0
    while killed < kills:
        name = moments.choice(list(every))
        command, number = every[name], number + 1
        row = moments.randint(1, min(IN_A_ROW, kills - killed))
        calls = moments.choices(sorted(command.moments), k=row)
        points = [(call, moments.choice(command.moments[call])) for call in calls]
        if fixed:
            name, *point = fixed.pop(0)
            command, points = every[name], [tuple(point)]
        target = folder / "trials" / str(number) / "t"
        prepared(command, folder, target)
        story = []
        for call, when in points:
            hit, output = kill(command, target, call, when, folder / "strace.log")
            if hit:
                killed += 1
                story.append(f"{call} {when}")
            elif "Traceback" in output:
                problems.append(f"{name}, killed at {story}: {output}")
        wrong = problem(command, target)
        print(
            f"{killed:4d} {name}: killed at {', '.join(story) or 'no call'}: {wrong or 'as if never killed'}",
            flush=True,
        )
        if wrong:
            problems.append(f"{name}, killed at {', '.join(story)}: {wrong} ({target})")
        else:
            shutil.rmtree(target.parent)
    return problems


def main() -> int:
    """Parses the options, kills, and prints what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="crash_"))
    problems = crash(arguments.kills, arguments.seed, folder)
    print("\n".join(problems) or f"{arguments.kills} kills: all ended as if never killed, and nothing was left behind")
    if not problems:
        shutil.rmtree(folder)
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
