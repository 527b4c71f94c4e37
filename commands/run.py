"""Runs a command. Errors that a user can act on become one line and an exit status here; others show a traceback."""

import os
import re
import sys

from commands.output import process_index
from commands.parser import START, parse
from utils.errors import ConfigError, UserError

STOPPED = 3  # as training.signals.StoppedError, whose import would take longer than a mistyped option should wait


def run_command(argv: list[str]) -> int:
    """Runs one command; returns the exit status (0, 1 failed, 2 bad command line or config, 3 stopped by a signal)."""
    if not argv:
        print(START)
        return ConfigError.exit_code
    debug = "--debug" in argv
    try:
        command, args = parse(argv)
        command.run(args)
    except (UserError, OSError, MemoryError) as error:
        if debug:
            raise
        if not (isinstance(error, UserError) and error.already_reported):
            print(f"error: {error_line(error)}", file=sys.stderr)
        return error.exit_code if isinstance(error, UserError) else UserError.exit_code
    except RuntimeError as error:
        # With several processes, the likely reason is that another one ended; it reports why.
        if debug or int(os.environ.get("WORLD_SIZE", "1")) == 1:
            raise
        reason = str(error).strip().splitlines()[0]
        print(f"error: process {process_index()}: {reason} (--debug shows where)", file=sys.stderr)
        return UserError.exit_code
    except KeyboardInterrupt:
        print("error: stopped by Ctrl-C", file=sys.stderr)
        return STOPPED
    return 0


def error_line(error: Exception) -> str:
    """The last line of an error's message.

    torch raises the error of a data loader's worker again, of the same class, with the worker's traceback as its
    message. The last line of that is `<class>: <message>`.
    """
    text = str(error).strip()
    line = (text or type(error).__name__).splitlines()[-1]
    return re.sub(r"^[\w.]+: ", "", line) if text.startswith(f"Caught {type(error).__name__} in ") else line
