"""nano SAM before and after SALT on generated vessels: the whole path in a few minutes on a CPU."""

import shutil
from pathlib import Path

import torch

from datasets.preparation.prepare import prepare
from evaluation.results import RunResults
from experiments.experiment import train_and_evaluate
from training.run_folder import RunFolder
from utils.config import load_config
from utils.errors import UserError

NANO_WEIGHTS = Path("weights/nano_sam.safetensors")
DATA_CONFIG = Path("configs/data/synthetic.yaml")
MODEL_CONFIG = Path("configs/model/nano_salt.yaml")


def demo(output: Path, epochs: int | None = None) -> str:
    """Makes the synthetic set in `output`, scores nano SAM untrained and after SALT, and returns the table as text."""
    marker = output / "demo.txt"
    if output.exists() and not marker.exists():
        raise UserError(f"{output}: exists, and is not an earlier demo's; give another --output")
    output.mkdir(parents=True, exist_ok=True)
    marker.write_text("Made by `main.py demo`, which replaces what is in here.\n", encoding="utf-8")
    data = output / "data"
    if not (data / "data_split.csv").is_file():
        prepare("synthetic", None, data)
    overrides = [f"data.root_path={data}"] + ([f"training.num_epochs={epochs}"] if epochs else [])
    results = {}
    for strategy, title in (("none", "before"), ("salt", "after SALT")):
        folder = output / strategy
        shutil.rmtree(folder, ignore_errors=True)
        config = load_config(MODEL_CONFIG, DATA_CONFIG, overrides, strategy, NANO_WEIGHTS)
        results[title] = train_and_evaluate(config, folder / "model.safetensors", torch.device("cpu"))
    picture = sorted(RunFolder(output / "salt").overlays.glob("*.png"))[0]
    return "\n".join([*_table(results), f"overlay (image, truth, prediction, errors): {picture}"])


def _table(results: dict[str, RunResults]) -> list[str]:
    lines = [f"{'nano SAM, synthetic test':<26}{'Dice':>8}{'HD95 px':>10}{'trained':>10}{'of all':>9}"]
    for title, result in results.items():
        scores = result.last.native
        lines.append(
            f"{title:<26}{scores.dice.mean:>8.3f}{scores.hd95.mean:>10.2f}"
            f"{result.trainable:>10,}{result.percent:>8.2f}%"
        )
    return lines
