"""Measures and checks what only a GPU can show, in under 8 minutes.

    python benchmarks/gpu.py [--output runs/bench] [--minutes 8]

It writes gpu.json and gpu.md (tables for docs/speed.md):
    steps      a SALT-256 ViT-B training step at 512, batch 5, by precision, torch.compile and gradient checkpointing:
               time, and peak memory beside the estimate of benchmarks/memory.py
    numerics   gradients of the nano model on the GPU beside those on the CPU, in each precision
    nccl       training steps of a single process that communicates through nccl
    nano run   `main.py` on the synthetic set in bf16, from training to results

A part that fails, or for which no time is left, is recorded with its error, and the others go on. The first three need
torch, torchvision, accelerate, safetensors, numpy and the packages segment-anything, sam2, pydantic and pyyaml; the
nano run needs all of requirements.txt. Without a GPU the program prints one line and ends with status 0.
"""

import argparse
import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu_tables import gpu_tables  # noqa: E402
from benchmarks.memory import Step, estimate, objective, random_batch, random_model  # noqa: E402
from benchmarks.peak_memory import MEGABYTE  # noqa: E402
from model import build_model  # noqa: E402
from networks.encoder_options import compile_encoder  # noqa: E402
from training.optimizer import build_optimizer  # noqa: E402
from training.processes import Processes  # noqa: E402
from training.run_folder import RunFolder  # noqa: E402
from utils.config import load_config  # noqa: E402
from utils.config.options import SAM_ARCH, Precision  # noqa: E402
from utils.environment import environment_info  # noqa: E402
from utils.errors import last_line  # noqa: E402
from utils.files import write_json, write_text  # noqa: E402

_RANKS_256 = ("ft.svd_rank_linear=410", "ft.svd_rank_conv2d=256", "ft.r_lora=256")  # configs/table1/salt_256.yaml
SALT_256 = Step(SAM_ARCH, "base", 512, "salt", batch_size=5, overrides=_RANKS_256)
NANO = Step(SAM_ARCH, "nano", 256, "salt", batch_size=2)
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
# (torch.compile, gradient checkpointing); what takes longest comes last.
OPTIONS = ((False, False), (False, True), (True, False))
WARMUP, TIMED = 3, 10  # steps
NANO_EPOCHS = 4
NANO_CONFIG, NANO_WEIGHTS = "configs/model/nano_salt.yaml", "weights/nano_sam.safetensors"
LOSS_SCALE = 256
# Largest relative difference of the gradients from those in float32 on the CPU. cuDNN's convolutions take TF32.
TOLERANCES = {"fp32": 0.01, "bf16": 0.2, "fp16": 0.05}
ONE_PROCESS = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29517"}


def attempt(end: float, part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `part` returns; {"error"} where it fails, gives NaN, or where time.monotonic() is past `end`."""
    if time.monotonic() > end:
        return {"error": "not started: no time left"}
    try:
        found = part()
        json.dumps(found, allow_nan=False)  # raises where a loss is not finite
        return found
    except Exception as error:
        return {"error": f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"}
    finally:
        torch._dynamo.reset()
        with suppress(RuntimeError):  # after some errors no call of CUDA works
            torch.cuda.empty_cache()


def training_step(
    step: Step,
    device: torch.device,
    compiled: bool = False,
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
) -> Callable[[], float]:
    """A function that performs one step as training does, with Accelerate's precision and scaler. Returns the loss."""
    processes = Processes(device, step.precision)
    model = random_model(step, device)
    optimizer = build_optimizer(model, step.config().training)
    if compiled:
        compile_encoder(model)
    prepared, prepared_optimizer = processes.prepare(wrap(objective(model, step)), optimizer)
    batch = random_batch(step, device)

    def perform() -> float:
        prepared_optimizer.zero_grad()
        _, losses = prepared(*batch)
        processes.accelerator.backward(losses["total"])
        prepared_optimizer.step()
        return float(losses["total"].detach())

    return perform


def measure_step(step: Step, compiled: bool, device: torch.device) -> dict[str, Any]:
    """Milliseconds, images a second and peak MiB of a step, and the estimated peak."""
    torch.cuda.reset_peak_memory_stats(device)
    perform = training_step(step, device, compiled)
    started = time.perf_counter()
    perform()
    first = time.perf_counter() - started  # compilation included
    for _ in range(WARMUP - 1):
        perform()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    for _ in range(TIMED):
        loss = perform()
    torch.cuda.synchronize(device)
    seconds = (time.perf_counter() - started) / TIMED
    return {
        "ms": 1e3 * seconds,
        "images_per_second": step.batch_size / seconds,
        "first_step_seconds": first,
        "loss": loss,
        "peak_mib": torch.cuda.max_memory_allocated(device) / MEGABYTE,
        "estimated_mib": None if compiled else estimate(step)["peak"] / MEGABYTE,
    }


def compare_gradients(precision: Precision, device: torch.device) -> dict[str, Any]:
    """The relative difference of nano SAM's gradients from those in float32 on the CPU, all parameters together."""
    config = load_config(ROOT / NANO_CONFIG, None, [], "salt", ROOT / NANO_WEIGHTS)
    torch.manual_seed(0)
    reference = build_model(config)
    images, labels, masks = random_batch(NANO, torch.device("cpu"))
    model = copy.deepcopy(reference).to(device)
    _, losses = objective(reference, NANO)(images, labels, masks)
    losses["total"].backward()
    prepared, _ = Processes(device, precision).prepare(objective(model, NANO), build_optimizer(model, config.training))
    _, losses = prepared(images.to(device), labels, masks.to(device))
    (LOSS_SCALE * losses["total"]).backward()  # against underflow in fp16
    expected = torch.cat([p.grad.flatten() for p in reference.parameters() if p.grad is not None])
    found = torch.cat([p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None]) / LOSS_SCALE
    difference = float((found - expected).norm() / expected.norm())
    return {"relative_difference": difference, "passed": difference < TOLERANCES[precision]}


def nccl_process(device: torch.device) -> dict[str, Any]:
    """Steps of this script in a new process that is started as torchrun does, so that Accelerate takes nccl."""
    command = [sys.executable, __file__, "--single-process", str(device)]
    done = subprocess.run(command, env={**os.environ, **ONE_PROCESS}, capture_output=True, text=True, timeout=180)
    if done.returncode:
        return {"error": last_line(done.stderr)}
    return json.loads(done.stdout.splitlines()[-1])


def distributed_steps(device: torch.device) -> dict[str, Any]:
    """Two steps of the nano model in bf16 in DistributedDataParallel, which Accelerate leaves out for one process."""
    wrap = partial(DistributedDataParallel, broadcast_buffers=False, find_unused_parameters=True)
    perform = training_step(replace(NANO, precision="bf16"), device, wrap=wrap)
    losses = [perform() for _ in range(2)]
    total = torch.ones(1, device=device)
    torch.distributed.all_reduce(total)
    backend = torch.distributed.get_backend()
    torch.distributed.destroy_process_group()
    return {"backend": backend, "losses": losses, "passed": "nccl" in backend and float(total) == 1}


def nano_run(output: Path, device: torch.device) -> dict[str, Any]:
    """Makes the synthetic set, trains nano SAM in bf16 and evaluates it, by the command line."""
    data, model = output / "synthetic", output / "gpu_nano" / "model.safetensors"
    if model.parent.is_dir():  # of an earlier call
        RunFolder(model.parent).remove(model)
    if not (data / "data_split.csv").is_file():
        _main("prepare", "synthetic", "--output", str(data))
    started = time.perf_counter()
    text = _main(
        *("--data_config", "configs/data/synthetic.yaml", "--model_config", NANO_CONFIG),
        *("--pretrained_path", NANO_WEIGHTS, "--save_path", str(model), "--device", str(device)),
        *("--set", f"data.root_path={data}", "training.precision=bf16", f"training.num_epochs={NANO_EPOCHS}"),
    )
    scores = [line for line in text.splitlines() if line.startswith(("last", "best_val"))]
    return {"seconds": time.perf_counter() - started, "scores": scores, "passed": model.is_file() and bool(scores)}


def _main(*arguments: str) -> str:
    command = [sys.executable, str(ROOT / "main.py"), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"main.py {arguments[0]}: {last_line(done.stderr)}")
    return done.stdout


def measure(device: torch.device, output: Path, minutes: float) -> None:
    """Runs all parts as one record, which is written to `output` again and again: a part may outlive a time limit."""
    record: dict[str, Any] = {"environment": environment_info(device), "steps": []}
    run = partial(attempt, time.monotonic() + 60 * minutes)

    def save() -> None:
        write_json(output / "gpu.json", record)
        write_text(output / "gpu.md", gpu_tables(record, SALT_256.img_size, SALT_256.batch_size))

    record["numerics"] = {precision: run(partial(compare_gradients, precision, device)) for precision in PRECISIONS}
    record["nccl"] = run(partial(nccl_process, device))
    save()
    record["nano run"] = run(partial(nano_run, output, device))
    save()
    for (compiled, checkpointed), precision in product(OPTIONS, PRECISIONS):
        step = replace(SALT_256, precision=precision, gradient_checkpointing=checkpointed)
        case = {"precision": precision, "compile": compiled, "gradient_checkpointing": checkpointed}
        record["steps"].append({**case, **run(partial(measure_step, step, compiled, device))})
        save()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs all parts and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/bench"), help="folder for gpu.json and gpu.md")
    parser.add_argument("--minutes", type=float, default=8, help="parts start only within this time")
    parser.add_argument("--single-process", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("benchmarks/gpu.py: no CUDA GPU found, nothing measured")
        return 0
    if options.single_process:
        print(json.dumps(distributed_steps(torch.device(options.single_process))))
        return 0
    measure(torch.device("cuda", 0), options.output.resolve(), options.minutes)
    print((options.output / "gpu.md").read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
