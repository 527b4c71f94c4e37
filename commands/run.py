"""Runs a command. Errors that a user can act on become one line and an exit status here; others show a traceback."""

import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from commands.output import process_index
from commands.parser import START, parse
from utils.errors import ConfigError, UserError, first_line

STOPPED = 3  # as training.signals.StoppedError, whose import would take longer than a mistyped option should wait
_LESS_MEMORY = (
    "To train in less: --set training.accumulate_steps, training.gradient_checkpointing, training.precision=bf16, and "
    "then a smaller training.batch_size or sam.img_size. All commands run with --device cpu"
)
_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def run_command(argv: list[str]) -> int:
    """Runs one command; returns the exit status (0, 1 failed, 2 bad command line or config, 3 stopped by a signal)."""
    if not argv:
        print(START)
        return ConfigError.exit_code
    debug = "--debug" in argv
    try:
        command, args = parse(argv)
        with _cleaning_up_on_signals():
            command.run(args)
    except (UserError, OSError, MemoryError, UnicodeEncodeError) as error:
        if debug:
            raise
        if not (isinstance(error, UserError) and error.already_reported):
            print(f"error: {error_line(error)}", file=sys.stderr)
        return error.exit_code if isinstance(error, UserError) else UserError.exit_code
    except RuntimeError as error:
        if not debug and type(error).__name__ == "OutOfMemoryError":  # torch's, named so that torch is not imported
            print(f"error: {first_line(error).split('. ')[0]}. {_LESS_MEMORY}", file=sys.stderr)
            return UserError.exit_code
        # With several processes, the likely reason is that another one ended; it reports why.
        if debug or int(os.environ.get("WORLD_SIZE", "1")) == 1:
            raise
        print(f"error: process {process_index()}: {first_line(error)} (--debug shows where)", file=sys.stderr)
        return UserError.exit_code
    except _EndedError as error:
        print(f"error: stopped by {error}", file=sys.stderr)
        return STOPPED
    except KeyboardInterrupt:
        print("error: stopped by Ctrl-C", file=sys.stderr)
        return STOPPED
    return 0


class _EndedError(KeyboardInterrupt):
    """A signal that ends the command, as Ctrl-C does: what it holds for a while is removed on the way out."""


@contextmanager
def _cleaning_up_on_signals() -> Iterator[None]:
    """Context manager: SIGTERM and a closed terminal end the block by an exception, where they are not ignored."""

    def end(number: int, _: object) -> NoReturn:
        raise _EndedError(signal.Signals(number).name)

    before = {}
    if threading.current_thread() is threading.main_thread():  # others may not set handlers
        before = {number: signal.getsignal(number) for number in _ENDING_SIGNALS}
    for number in [number for number, handler in before.items() if handler == signal.SIG_DFL]:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def error_line(error: Exception) -> str:
    """An error's message in one line.

    torch raises the error of a data loader's worker again, of the same class, with the worker's traceback as its
    message. The last line of that is `<class>: <message>`.
    """
    text = str(error).strip() or type(error).__name__
    if text.startswith(f"Caught {type(error).__name__} in "):
        return re.sub(r"^[\w.]+: ", "", text.splitlines()[-1])
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object[:200]!a}: is not UTF-8 text; rename the file or folder"
    if isinstance(error, OSError) and isinstance(error.filename, str) and error.strerror:
        text = f"{error.filename}: {error.strerror}"
    return " ".join(text.split())
