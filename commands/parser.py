"""The table of commands, and the parser of their options."""

import argparse
from typing import NoReturn, Protocol

from commands import check, demo, download, export, params, predict, prepare, sweep, table, test, train, view
from utils.errors import ConfigError


class Command(Protocol):
    """What a file of commands/ holds."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the command's options."""

    def run(self, args: argparse.Namespace) -> None:
        """Runs the command. torch takes seconds to import, so what needs it is imported here, after parsing."""


COMMANDS: dict[str, Command] = {
    "train": train,
    "test": test,
    "predict": predict,
    "params": params,
    "prepare": prepare,
    "check": check,
    "export": export,
    "view": view,
    "download": download,
    "sweep": sweep,
    "table": table,
    "demo": demo,
}


class Parser(argparse.ArgumentParser):
    """Raises ConfigError, one line, for a command line that it does not accept."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog}: {message}; see --help")


def parse(argv: list[str]) -> tuple[Command, argparse.Namespace]:
    """The command that `argv` names, by default train, and its options. Raises: ConfigError."""
    if not argv or (argv[0] not in COMMANDS and argv[0] not in ("-h", "--help")):
        argv = ["train", *argv]
    parser = Parser(prog="main.py", description="SALT: parameter-efficient fine-tuning of SAM for medical images.")
    subparsers = parser.add_subparsers(dest="command", required=True)
    common = Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    for name, command in COMMANDS.items():
        command.add_arguments(
            subparsers.add_parser(name, help=command.HELP, description=command.HELP, parents=[common])
        )
    args = parser.parse_args(argv)
    return COMMANDS[args.command], args
