"""What a command must not import before it has anything to do."""

import subprocess
import sys


def test_no_command_imports_monai():
    """Its import takes longer than torch's own; only the traditional networks need it."""
    code = "import sys, demo, download, experiment, export, predict, datasets.check, datasets.prepare; "
    subprocess.run([sys.executable, "-W", "ignore", "-c", code + "sys.exit('monai' in sys.modules)"], check=True)
