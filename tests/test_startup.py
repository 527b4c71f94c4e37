import subprocess
import sys


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
    code = f"import sys, {', '.join(modules)}; sys.exit('monai' in sys.modules)"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
