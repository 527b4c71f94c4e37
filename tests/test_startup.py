"""What is imported: a mistyped option is answered before torch loads, and most commands never need MONAI."""

import subprocess
import sys


def imports(code: str, module: str) -> bool:
    code = f"import sys\n{code}\nsys.exit('{module}' in sys.modules)"
    return subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode != 0


def test_no_command_imports_monai():
    """Its import takes longer than torch's own; only the traditional networks need it."""
    modules = (
        "checkpointing.download",
        "datasets.checks.check",
        "datasets.preparation.prepare",
        "experiments.demo",
        "prediction.export",
        "prediction.predict",
    )
    assert not imports(f"import {', '.join(modules)}", "monai")


def test_options_are_parsed_without_torch():
    arguments = ["params", "--model_config", "configs/table1/salt_4.yaml", "--sead", "1"]
    assert not imports(f"from main import main\nassert main({arguments}) == 2", "torch")
