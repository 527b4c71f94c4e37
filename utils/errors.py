"""Errors that a user can mend: each is one line that names the file, key or row, and what to do."""


class UserError(Exception):
    """A run that cannot go on because of something outside the code (exit status 1)."""

    exit_code = 1


class ConfigError(UserError):
    """A bad command line or config (exit status 2)."""

    exit_code = 2
