"""The record of benchmarks/gpu.py as Markdown, for docs/speed.md."""

import json
from typing import Any


def gpu_tables(record: dict[str, Any], size: int, batch_size: int) -> str:
    """The record as Markdown tables; its steps are of images `size` x `size` in batches of `batch_size`."""
    machine = record["environment"]
    lines = [
        f"{machine['device_name']}, torch {machine['packages']['torch']}, CUDA {machine['cuda']}: "
        f"SALT-256 on ViT-B, {size} x {size}, batch {batch_size}.",
        "",
        "| precision | compile | checkpointing | ms a step | images a second | peak MiB | estimate MiB |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for step in record["steps"]:
        options = [step["precision"], *("yes" if step[key] else "no" for key in ("compile", "gradient_checkpointing"))]
        if "error" in step:
            cells = [step["error"].replace("|", "/"), "", "", ""]
        else:
            estimated = step["estimated_mib"]
            cells = [f"{step['ms']:.1f}", f"{step['images_per_second']:.1f}", f"{step['peak_mib']:.0f}"]
            cells.append("-" if estimated is None else f"{estimated:.0f}")
        lines.append(f"| {' | '.join([*options, *cells])} |")
    lines += ["", "| check | result |", "|---|---|"]
    checks = {f"gradients in {name} beside the CPU's": found for name, found in record["numerics"].items()}
    others = {"nccl": "one nccl process", "nano run": "nano run in bf16"}
    checks |= {name: record[part] for part, name in others.items() if part in record}
    for name, found in checks.items():
        result = found.get("error") or json.dumps({key: value for key, value in found.items() if key != "passed"})
        lines.append(f"| {name} | {'passed' if found.get('passed') else 'FAILED'}: {result.replace('|', '/')} |")
    return "\n".join(lines) + "\n"
