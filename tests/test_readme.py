"""The README's Python section, run as it stands on a small model."""

import doctest
import re
from pathlib import Path

import numpy as np
from PIL import Image

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_python_section_is_true(sam_weights, tmp_path, monkeypatch):
    """Every printed answer holds; `runs/rose/best_val.safetensors` is an untrained nano SAM here."""
    section = README.read_text(encoding="utf-8").split("\n## Python\n")[1].split("\n## ")[0]
    [block] = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (tmp_path / "runs" / "rose").mkdir(parents=True)
    (tmp_path / "runs" / "rose" / "best_val.safetensors").write_bytes(sam_weights.read_bytes())
    image = np.random.default_rng(0).integers(0, 255, (384, 512, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "eye.png")
    monkeypatch.chdir(tmp_path)
    test = doctest.DocTestParser().get_doctest(block, {}, "README.md", str(README), 0)
    assert len(test.examples) >= 5
    said = []
    results = doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert results.failed == 0, "".join(said)
