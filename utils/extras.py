"""Packages that only some uses need, imported where they are used."""

from importlib import import_module
from types import ModuleType

from utils.errors import UserError

REQUIREMENTS_FILE = "requirements.txt"
EXTRAS_FILE = "requirements-extras.txt"


def extra(module: str, purpose: str, requirements: str = EXTRAS_FILE) -> ModuleType:
    """Imports an optional package, or one that takes seconds to import.

    Args:
        purpose: what needs the package, for the error message.
        requirements: the file that lists the package.

    Raises:
        UserError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise UserError(
            f"{purpose} needs the package {package}, which cannot be imported ({error}); "
            f"pip install {package}, or pip install -r {requirements}"
        ) from error
