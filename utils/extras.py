"""Packages that only some uses need."""

from importlib import import_module
from types import ModuleType

from utils.errors import UserError

EXTRAS_FILE = "requirements-extras.txt"


def extra(module: str, purpose: str) -> ModuleType:
    """The optional package `module`, imported.

    Args:
        purpose: what needs it, to begin the error with.

    Raises:
        UserError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise UserError(
            f"{purpose} needs the package {package}, which cannot be imported ({error}); "
            f"pip install {package}, or all extras: pip install -r {EXTRAS_FILE}"
        ) from error
