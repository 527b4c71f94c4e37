"""The four files at the top keep to the floors that pyproject.toml sets for the folders."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {"main", "model", "train", "test"}
ABOVE_THE_LOOPS = {"main", "commands", "benchmarks", "study", "report", "experiments"}
FORBIDDEN = {
    "main": ROOMS - {"commands"},
    "train": ABOVE_THE_LOOPS | {"train", "model"},
    "test": ABOVE_THE_LOOPS | {"train", "test", "model"},
    "model": ABOVE_THE_LOOPS | {"train", "test", "model"},
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_file_at_the_top_imports_from_below_alone(name):
    imported = set()
    for node in ast.walk(ast.parse((ROOT / f"{name}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.partition(".")[0])
    assert imported & FORBIDDEN[name] == set()


def test_only_these_four_files_are_at_the_top():
    assert {path.stem for path in ROOT.glob("*.py")} == {"main", "model", "train", "test"}
