"""salt_adapters, as `pip install .` makes it: alone in a fresh environment, on other people's models."""

import ast
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "package.md").read_text(encoding="utf-8")
# By heading: the example that makes a model and trains it.
EXAMPLES = dict(re.findall(r"^## (\w+)\n[^#]*?```python\n(import.*?)```", PAGE, re.DOTALL | re.MULTILINE))

# Run after an example: saves, loads on the base, compares, refuses another base, merges.
ROUND_TRIP = """
import copy, pathlib, sys

import salt_adapters

assert "adapters" not in sys.modules
assert pathlib.Path(salt_adapters.__file__).is_relative_to(sys.prefix)
state = salt_adapters.adapter_state_dict(model)
assert any((state[key] != start[key]).any() for key in start)
also = [pattern for pattern in ("head*",) if any(key.startswith("head") for key, _ in model.named_parameters())]
salt_adapters.save_adapters(model, "saved", also=also)
assert {path.name for path in pathlib.Path("saved").iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
assert pathlib.Path("saved/adapter_model.safetensors").stat().st_size < whole / 2
assert salt_adapters.load_adapters(base, "saved") == [name for name, _ in salt_adapters.adapted_layers(model)]
with torch.no_grad():
    expected = call(model.eval())
    assert torch.equal(call(base.eval()), expected)
    assert not torch.allclose(call(other.eval()), expected, rtol=1e-2, atol=0)
    salt_adapters.merge(base)
    assert not list(salt_adapters.adapted_layers(base))
    torch.testing.assert_close(call(base), expected, atol=1e-4, rtol=1e-4)
try:
    salt_adapters.load_adapters(other, "saved")
except salt_adapters.AdapterError as error:
    assert "its singular vectors differ" in str(error), error
else:
    raise SystemExit("another base was not noticed")
"""
CALLS = {
    "timm": "call = lambda m: m(images)",
    "torchvision": "call = lambda m: m(images)",
    "transformers": "call = lambda m: m(pixel_values=images, input_points=points, multimask_output=False).pred_masks",
}


def test_the_package_imports_itself_and_its_dependencies_alone():
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    assert [re.match(r"[a-z]+", name)[0] for name in project["dependencies"]] == ["torch", "safetensors"]
    allowed = {*sys.stdlib_module_names, "torch", "safetensors"}
    for path in (ROOT / "adapters").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert {alias.name.partition(".")[0] for alias in node.names} <= allowed, path
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 1 or node.module.partition(".")[0] in allowed, path


@pytest.fixture(scope="module")
def fresh_python(tmp_path_factory):
    """An environment with the wheel alone; torch, timm and transformers are the running interpreter's."""
    folder = tmp_path_factory.mktemp("fresh")
    source = folder / "source"
    source.mkdir()
    shutil.copytree(ROOT / "adapters", source / "adapters", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, source]
    subprocess.run(build, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = {name.partition("/")[0] for name in archive.namelist()}
        assert "salt_adapters/py.typed" in archive.namelist()
    assert {name for name in inside if not name.endswith(".dist-info")} == {"salt_adapters"}
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(where, check=True, capture_output=True, text=True).stdout.strip())
    (packages / "outside.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps", wheel]
    subprocess.run(pip, check=True)
    return python


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_pages_example_trains_saves_loads_and_merges(fresh_python, tmp_path, name):
    head, injected, tail = EXAMPLES[name].partition("model.requires_grad_(False)")
    assert injected
    before, made, after = tail.partition("optimizer =")
    remembered = (
        "import copy\nbase = copy.deepcopy(model)\nother = copy.deepcopy(model)\n"
        "whole = sum(p.numel() * 4 for p in model.parameters())\n"
        "for p in other.parameters():\n    torch.nn.init.normal_(p, std=0.02)\n"
    )
    script = (
        f"{head}{remembered}{injected}{before}start = salt_adapters.adapter_state_dict(model)\n{made}{after}"
        f"{CALLS[name]}\n{ROUND_TRIP}"
    )
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    result = subprocess.run([fresh_python, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_the_command_line_finds_the_package_and_its_version(fresh_python, tmp_path):
    code = "import salt_adapters, importlib.metadata as m; print(salt_adapters.__version__, m.version('salt-adapters'))"
    result = subprocess.run([fresh_python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    first, second = result.stdout.split()
    assert first == second
