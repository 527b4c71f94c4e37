"""`main.py download`: fetches official weights."""

import argparse
from pathlib import Path

HELP = "fetch official weights, with a hash check"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("name", nargs="?", help="sam_vit_b, clip_vit_b32, ...; --list names them all")
    parser.add_argument("--list", action="store_true", help="the names, addresses and files")
    parser.add_argument("--output", type=Path, help="the folder to keep the file in; default: the project's weights")
    parser.add_argument("--url", help="another address of the same file; its hash is checked all the same")


def run(args: argparse.Namespace) -> None:
    """Downloads one file, or lists all."""
    from checkpointing.published import DOWNLOADS

    if args.list or args.name is None:
        for name, published in DOWNLOADS.items():
            print(f"{name:<16} {published.file_name:<26} {published.url}")
        return
    from checkpointing.download import download

    print(download(args.name, args.output, args.url))
