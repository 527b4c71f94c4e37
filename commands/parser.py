"""The table of commands, and the parser of their options."""

import argparse
import difflib
from collections.abc import Sequence
from typing import NoReturn, Protocol

from commands import check, demo, download, export, params, predict, prepare, score, sweep, table, test, train, view
from commands.version import ShowVersion
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
    "score": score,
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


START = """SALT: parameter-efficient fine-tuning of SAM for medical images. From your own images to masks:

  python main.py prepare folder --images DIR --masks DIR --output data/MINE
  python main.py train --data_config data/MINE/data.yaml --model_config configs/model/nano_sam2_detail.yaml \\
      --pretrained_path weights/nano_sam2.safetensors --save_path runs/MINE/model.safetensors
  python main.py predict --checkpoint runs/MINE --images DIR --output masks

All commands: python main.py --help. One: python main.py prepare --help. README.md and docs/ have the rest."""


class Parser(argparse.ArgumentParser):
    """Raises ConfigError, one line, for a command line that it does not accept."""

    _given: Sequence[str] = ()

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        self._given = [] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        # argparse asks for what is missing first, which an option with a mistyped name seems to be.
        for word in self._given:
            name = word.partition("=")[0]
            if name.startswith("--") and not any(option.startswith(name) for option in self._option_string_actions):
                near = difflib.get_close_matches(name, self._option_string_actions, n=1)
                hint = f"did you mean {near[0]}?" if near else "see --help"
                raise ConfigError(f"{self.prog}: unknown option {name}; {hint}")
        raise ConfigError(f"{self.prog}: {message}; see --help")


def parse(argv: list[str]) -> tuple[Command, argparse.Namespace]:
    """The command that `argv` names, by default train, and its options. Raises: ConfigError."""
    if not argv[0].startswith("-") and argv[0] not in COMMANDS:
        near = difflib.get_close_matches(argv[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(COMMANDS)}"
        raise ConfigError(f"main.py: no command '{argv[0]}'; {hint}")
    if argv[0] not in (*COMMANDS, "-h", "--help", "--version"):
        argv = ["train", *argv]
    parser = Parser(prog="main.py", description="SALT: parameter-efficient fine-tuning of SAM for medical images.")
    parser.add_argument("--version", action=ShowVersion, help="show the versions of this project and its packages")
    subparsers = parser.add_subparsers(dest="command", required=True)
    common = Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parsers: dict[str, Parser] = {}
    for name, command in COMMANDS.items():
        parsers[name] = subparsers.add_parser(name, help=command.HELP, description=command.HELP, parents=[common])
        command.add_arguments(parsers[name])
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        parsers[args.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    return COMMANDS[args.command], args
