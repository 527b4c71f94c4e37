"""`main.py check`: checks a dataset."""

import argparse
from pathlib import Path

from commands.arguments import add_set_option
from utils.config import load_config
from utils.errors import UserError

HELP = "check a dataset: files, sizes, labels, splits, duplicates"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options."""
    parser.add_argument("--data_config", type=Path, required=True)
    add_set_option(parser, "keys of the config, such as data.root_path=DIR")
    parser.add_argument("--output", type=Path, metavar="PNG", help="contact sheet; default: beside data_split.csv")


def run(args: argparse.Namespace) -> None:
    """Prints the report and writes the contact sheet. Raises: UserError if the dataset has errors."""
    from datasets.checks.check import check
    from datasets.checks.contact_sheet import save_contact_sheet
    from datasets.split import split_csv

    config = load_config(None, args.data_config, args.overrides)
    data = config.require_data()
    report = check(config)
    print("\n".join(report.lines()))
    sheet = args.output or split_csv(data).with_name("contact_sheet.png")
    try:
        if save_contact_sheet(sheet, data, report.files, report.splits):
            print(f"contact sheet: {sheet}")
    except OSError as error:  # the dataset's folder may be read-only
        print(f"contact sheet: not written ({error}); give --output")
    if not report.ok:
        raise UserError(f"{args.data_config}: the dataset has errors, listed above")
