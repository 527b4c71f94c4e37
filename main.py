"""SALT's command line: parse, load the configs, call the part that does the work."""

import argparse
import json
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from command_line import COMMANDS, build_parser
from datasets.preparation.options import OF_CONVERTERS, report
from utils.config import Config, load_config
from utils.errors import UserError


def _config(args: argparse.Namespace) -> Config:
    return load_config(
        args.model_config, args.data_config, args.overrides, args.training_strategy, args.pretrained_path, args.seed
    )


# Each command imports what it needs: torch takes seconds, which a mistyped option should not wait for.
def run_train(args: argparse.Namespace) -> None:
    from training.signals import StopRequests

    with StopRequests() as stop:
        with stop.at_once("before training began"):
            config = _config(args)
            data = config.require_data()
            from experiments.experiment import train_and_evaluate
            from utils.environment import resolve_device

        fold = f"_fold{data.fold_num}" if data.fold_num else ""
        name = f"{data.name}_{config.strategy}_{config.seed}{fold}"
        save_path = args.save_path or Path("runs") / name / "model.safetensors"
        results = train_and_evaluate(config, save_path, resolve_device(args.device), args.resume, stop)
    if _process_index():
        return
    for weights, scores in (("last", results.last), ("best_val", results.best_val)):
        if scores:
            _print_summary(f"{weights} (epoch {scores.epoch})", scores)
    if results.checkpoint.path:
        print(f"weights: {save_path}")


def run_test(args: argparse.Namespace) -> None:
    from experiments.experiment import evaluate_checkpoint
    from utils.environment import resolve_device

    data = load_config(None, args.data_config) if args.data_config else None
    results = evaluate_checkpoint(args.checkpoint, resolve_device(args.device), args.split, data, args.pretrained_path)
    _print_summary(f"{results.dataset} {results.split}", results)


def run_predict(args: argparse.Namespace) -> None:
    from model import load_model
    from prediction.outputs import Outputs
    from prediction.predict import predict_files
    from prediction.sources import find_sources
    from utils.environment import resolve_device

    sources = find_sources(args.images, args.output)
    predictor = load_model(args.checkpoint, args.pretrained_path, resolve_device(args.device))
    predictor = replace(predictor, tile_overlap=args.tile_overlap)
    outputs = Outputs(args.output, predictor, args.probabilities, args.overlay, args.threshold)
    flips = args.tta == "flips"
    summary = predict_files(sources, outputs, tile=args.tile, flips=flips, skip_existing=args.skip_existing)
    print(f"written: {args.output}, {summary.written} masks" + (f", {summary.kept} kept" if summary.kept else ""))
    for problem in summary.problems:
        print(f"failed: {problem}", file=sys.stderr)
    if summary.problems:
        raise UserError(f"{len(summary.problems)} of {len(sources)} files could not be predicted, listed above")


def run_params(args: argparse.Namespace) -> None:
    config = _config(args)
    from model import build_model
    from networks.strategies import parameter_counts

    counts = parameter_counts(build_model(config, counted_only=True))
    if args.json:
        print(json.dumps({**counts, "percent": round(counts["percent"], 2)}))
        return
    print(f"{'module':<16}{'trainable':>14}{'total':>14}")
    for name, module in {**counts["modules"], "all": counts}.items():
        print(f"{name:<16}{module['trainable']:>14,}{module['total']:>14,}")
    print(f"{counts['percent']:.2f}% trainable")


def run_prepare(args: argparse.Namespace) -> None:
    from datasets.preparation.prepare import prepare

    options = {key: getattr(args, key) for key in OF_CONVERTERS}
    summary = prepare(
        args.name, args.source, args.output, args.seed, args.force, folds=args.folds, dry_run=args.dry_run, **options
    )
    print(report(summary))
    if args.dry_run:
        print("dry run: nothing was written")


def run_check(args: argparse.Namespace) -> None:
    from datasets.checks.check import check
    from datasets.checks.contact_sheet import save_contact_sheet
    from datasets.split import split_csv

    config = load_config(None, args.data_config)
    config.require_data()
    report = check(config)
    print("\n".join(report.lines()))
    sheet = args.output or split_csv(config.data).with_name("contact_sheet.png")
    try:
        if save_contact_sheet(sheet, config.data, report.files, report.splits):
            print(f"contact sheet: {sheet}")
    except OSError as error:  # a set may lie where nothing can be written
        print(f"contact sheet: not written ({error}); give --output")
    if not report.ok:
        raise UserError(f"{args.data_config}: the dataset has errors, listed above")


def run_export(args: argparse.Namespace) -> None:
    from prediction.export import export

    print(export(args.format, args.checkpoint, args.output, args.half, args.pretrained_path))


def run_view(args: argparse.Namespace) -> None:
    from prediction.view import serve
    from utils.environment import resolve_device

    checkpoints = [args.checkpoint] + ([args.compare] if args.compare else [])
    serve(checkpoints, args.pretrained_path, resolve_device(args.device), args.port)


def run_download(args: argparse.Namespace) -> None:
    from checkpointing.published import DOWNLOADS

    if args.list or args.name is None:
        for name, published in DOWNLOADS.items():
            print(f"{name:<16} {published.file_name:<26} {published.url}")
        return
    from checkpointing.download import download

    print(download(args.name, args.output, args.url))


def run_sweep(args: argparse.Namespace) -> None:
    from experiments.sweep import read_plan, sweep, sweep_runs

    chosen = sweep_runs(read_plan(args.plan), args.only)
    if args.list or args.dry_run:
        for cell in chosen:
            print(cell.name if args.list else f"{cell.name}: {cell.state}")
        return
    failures = sweep(chosen, args.device)
    for name, problem in failures.items():
        print(f"failed: {name}: {problem}")
    if failures:
        raise UserError(
            f"{len(failures)} of {len(chosen)} runs failed, listed above; the same command tries them again"
        )


def run_table(args: argparse.Namespace) -> None:
    from report.write import write_report

    report = write_report(args.runs, args.output or args.runs / "table", args.weights, args.size)
    print(report.table.title)
    for line in report.missing:
        print(f"missing: {line}")
    print("written: " + ", ".join(str(path) for path in report.files))


def run_demo(args: argparse.Namespace) -> None:
    from experiments.demo import demo

    print(demo(args.output, args.epochs))


def _process_index() -> int:
    """Which of the processes that torchrun started this is; only the first one prints and logs."""
    return int(os.environ.get("RANK", "0"))


def _print_summary(title: str, scores: Any) -> None:
    for at_size, name in ((scores.img_size, "at the model's image size"), (scores.native, "at the images' own size")):
        low, high = at_size.dice.ci95
        print(
            f"{title}: Dice {at_size.dice.mean:.4f} [{low:.4f}, {high:.4f}], HD95 {at_size.hd95.mean:.2f} px, "
            f"n {at_size.n}, {at_size.n_empty} with one mask empty, {name}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status (0, 1 failed, 2 bad command line or config, 3 stopped by a signal)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or (argv[0] not in COMMANDS and argv[0] not in ("-h", "--help")):
        argv = ["train", *argv]
    level = logging.ERROR if _process_index() else logging.INFO
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    # Said by a library's use of torch at import; nothing that a user of this program can mend.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.jit")
    # Pillow's, about images that are refused in one line of our own.
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")
    debug = "--debug" in argv
    try:
        args = build_parser().parse_args(argv)
        globals()[f"run_{args.command}"](args)
    except (UserError, OSError, MemoryError) as error:
        if debug:
            raise
        # A data loader's worker puts its traceback before the message: the last line is what there is to say.
        message = (str(error).strip() or type(error).__name__).splitlines()[-1]
        if not getattr(error, "said_elsewhere", False):
            print(f"error: {message.removeprefix('utils.errors.UserError: ')}", file=sys.stderr)
        return error.exit_code if isinstance(error, UserError) else UserError.exit_code
    except RuntimeError as error:
        # With several processes, the likely reason is another one that ended and has said why.
        if debug or int(os.environ.get("WORLD_SIZE", "1")) == 1:
            raise
        reason = str(error).strip().splitlines()[0]
        print(f"error: process {_process_index()}: {reason} (--debug shows where)", file=sys.stderr)
        return UserError.exit_code
    except KeyboardInterrupt:
        print("error: stopped by Ctrl-C", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
