"""Draws docs/architecture.png and lists its steps in docs/architecture.md: `python -m benchmarks.architecture`.

It trains a nano SAM with SALT for one epoch on generated images. Then it records every call between the project's files
while the model is scored and the scores become a table. The picture therefore shows what the code does today.
"""

import ast
import logging
import sys
import tempfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from utils.files import PROJECT_ROOT

PAGE, PICTURE = PROJECT_ROOT / "docs" / "architecture.md", PROJECT_ROOT / "docs" / "architecture.png"
BEGIN, END = "<!-- steps: begin -->\n", "<!-- steps: end -->\n"
# The files at the top stand on a floor of their own, above the one that holds this room.
ROOM_BELOW_THE_TOP = "prediction"
TOP = {"train.py", "test.py", "model.py"}
LEFT_OUT = (".venv", "benchmarks", "utils", "training")  # used by all, or not what becomes of an image
BOXES_PER_ROW, ROW, BOX = 6, 1.0, (2.2, 0.42)


@dataclass
class Trace:
    """Calls between the project's files: the first function called in each file, and the pairs of files."""

    first: dict[str, tuple[str, int]] = field(default_factory=dict)
    calls: set[tuple[str, str]] = field(default_factory=set)

    def record(self, frame: FrameType, event: str, _: Any) -> None:
        """A profile function for `sys.setprofile`."""
        file = _project_file(frame)
        if event != "call" or file is None:
            return
        caller = frame.f_back
        while caller is not None and _project_file(caller) is None:
            caller = caller.f_back
        origin = _project_file(caller) if caller is not None else None
        if origin == file:
            return
        self.first.setdefault(file, (frame.f_code.co_name, frame.f_code.co_firstlineno))
        if origin is not None:
            self.calls.add((origin, file))


def _project_file(frame: FrameType) -> str | None:
    """The file of a named function of the project, unless it is left out."""
    path = Path(frame.f_code.co_filename)
    if PROJECT_ROOT not in path.parents or path.suffix != ".py" or frame.f_code.co_name.startswith("<"):
        return None
    name = path.relative_to(PROJECT_ROOT).as_posix()
    return None if name.startswith(LEFT_OUT) else name


def record_calls(work: Callable[[], Any]) -> Trace:
    """The calls of `work` in this thread."""
    trace = Trace()
    sys.setprofile(trace.record)
    try:
        work()
    finally:
        sys.setprofile(None)
    return trace


def prepare_work(folder: Path) -> Callable[[], Any]:
    """Trains a model in `folder`; returns a function that scores it and makes the table."""
    import torch

    from datasets.data import GeneralDataset
    from datasets.preparation.prepare import prepare
    from evaluation.results import Scores, write_per_image
    from experiments.experiment import train_and_evaluate
    from experiments.scoring import score_dataset
    from model import load_trained
    from report.gather import gather
    from report.markdown import to_markdown
    from report.table import build_table
    from training.run_folder import RunFolder
    from utils.config import load_config

    prepare("synthetic", None, folder / "data", count=12, size=64)
    overrides = [f"data.root_path={folder / 'data'}", "data.name=DRIVE", "training.num_epochs=1"]
    overrides += ["sam.img_size=64", "data_transforms.img_size=64"]
    configs, base = PROJECT_ROOT / "configs", PROJECT_ROOT / "weights" / "nano_sam.safetensors"
    files = configs / "model" / "nano_salt.yaml", configs / "data" / "synthetic.yaml"
    weights, device = folder / "run" / "model.safetensors", torch.device("cpu")
    train_and_evaluate(load_config(*files, overrides, "salt", base), weights, device)
    model, config = load_trained(weights)

    def work() -> None:
        dataset = GeneralDataset(config, "test", train=False)
        scores = score_dataset(model, dataset, config, device, RunFolder(folder / "scores"))
        Scores.of(scores)
        write_per_image(folder / "scores", {"last": scores})
        gathered = gather(folder / "run")
        to_markdown(build_table(gathered.runs, "last", "native"), gathered.left_out())

    return work


def floors() -> list[set[str]]:
    """The rooms of each floor, top to bottom, from the import contracts."""
    content = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = content["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    found: list[set[str]] = []
    for layer in layers:
        rooms = {room.strip() for room in layer.split(":")}
        found += [TOP, rooms] if ROOM_BELOW_THE_TOP in rooms else [rooms]
    return found


def draw(trace: Trace, path: Path) -> None:
    """One box per file, on its floor, numbered by the first call; one arrow for each pair of files that call."""
    numbers = {file: number for number, file in enumerate(trace.first, 1)}
    by_floor = [[file for file in trace.first if file.partition("/")[0] in floor] for floor in floors()]
    rows = [files[i : i + BOXES_PER_ROW] for files in by_floor for i in range(0, len(files), BOXES_PER_ROW)]
    width, height = 15.0, ROW * len(rows)
    figure = Figure(figsize=(width, height), dpi=80)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, width), ylim=(-height, 0))
    axis.axis("off")
    places = {
        file: (width * (column + 0.5) / len(row), -ROW * (index + 0.5))
        for index, row in enumerate(rows)
        for column, file in enumerate(row)
    }
    arrow = {"arrowstyle": "-|>", "color": "#2f6ea8", "alpha": 0.55, "shrinkA": 14, "shrinkB": 18}
    for origin, file in sorted(trace.calls):
        if origin in places:
            axis.annotate("", xy=places[file], xytext=places[origin], arrowprops=arrow)
    for file, (x, y) in places.items():
        corner, style = (x - BOX[0] / 2, y - BOX[1] / 2), "round,pad=0.04"
        axis.add_patch(FancyBboxPatch(corner, *BOX, boxstyle=style, fc="#f4f6f8", ec="#33475b", zorder=2))
        folder, _, name = file.rpartition("/")
        label = f"{numbers[file]}  {name}"
        axis.text(x, y + 0.08 * bool(folder), label, ha="center", va="center", fontsize=11, zorder=3)
        axis.text(x, y - 0.12, folder, ha="center", va="center", fontsize=7.5, zorder=3)
    FigureCanvasAgg(figure).print_png(str(path))


def steps_table(trace: Trace) -> str:
    """Each file in the order of its first call, with the function called first and what it does."""
    lines = ["| | file | first called | the function or class around it |", "|---|---|---|---|"]
    for number, (file, (name, line)) in enumerate(trace.first.items(), 1):
        lines.append(f"| {number} | [{file}](../{file}) | `{name}` | {_summary(PROJECT_ROOT / file, line)} |")
    return "\n".join(lines) + "\n"


def _summary(file: Path, line: int) -> str:
    """The docstring's first line of the innermost function or class around `line` that has one, else the file's."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    around: list[ast.FunctionDef | ast.ClassDef | ast.Module] = [tree]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            if first <= line <= (node.end_lineno or 0):
                around.append(node)
    texts = [text for node in around if (text := ast.get_docstring(node)) and not text.startswith("Args:")]
    return texts[-1].splitlines()[0].replace("|", "\\|") if texts else ""


def main() -> None:
    """Writes the picture and the page's table."""
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        trace = record_calls(prepare_work(Path(folder)))
    draw(trace, PICTURE)
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(head + BEGIN + steps_table(trace) + END + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
