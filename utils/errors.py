"""Errors that users can act on. Each is one line that names the file, key or row, and the fix."""


class UserError(Exception):
    """A run that fails because of its files or its machine (exit status 1)."""

    exit_code = 1
    already_reported = False  # whether another process reports the error


class ConfigError(UserError):
    """A bad command line or config (exit status 2)."""

    exit_code = 2
