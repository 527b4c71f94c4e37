"""`main.py --version`: what a report of an error should name."""

import argparse
from collections.abc import Sequence
from typing import Any


class ShowVersion(argparse.Action):
    """Prints the commit and the versions of what results depend on, and ends the program."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Prints; torch, which takes seconds to import, is imported here."""
        import torch

        from utils.environment import environment_info

        facts = environment_info(torch.device("cpu"))
        git = facts["git"]
        commit = f"commit {git['commit'][:12]}{', changed' if git['dirty'] else ''}" if git else "no git checkout"
        print(f"SALT ({commit}), Python {facts['python']}, {facts['platform']}")
        print(", ".join(f"{name} {found}" for name, found in facts["packages"].items() if found))
        parser.exit()
