"""SALT's command line: hands its arguments to commands/."""

import io
import logging
import sys
import warnings
from collections.abc import Sequence

from commands.output import process_index
from commands.run import run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command, by default train; returns the exit status: see `run_command`."""
    level = logging.ERROR if process_index() else logging.INFO
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # paths need not be valid text
    # From a library that imports torch.jit. Not actionable for users.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.jit")
    # Pillow's, about images that an error of this project refuses.
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")
    return run_command(list(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    sys.exit(main())
