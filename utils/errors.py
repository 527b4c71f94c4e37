"""Errors that users can act on. Each is one line that names the file, key or row, and the fix."""


class UserError(Exception):
    """A run that fails because of its files or its machine (exit status 1)."""

    exit_code = 1
    already_reported = False  # whether another process reports the error


class ConfigError(UserError):
    """A bad command line or config (exit status 2)."""

    exit_code = 2


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def last_line(output: str) -> str:
    """The last line that a program has written to standard error, such as its `error: ...`."""
    return next(reversed(output.strip().splitlines()), "no message")
