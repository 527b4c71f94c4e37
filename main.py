"""SALT's command line: parse, load the configs, call the part that does the work."""

import argparse
import json
import logging
import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, get_args

from datasets.options import OF_CONVERTERS, add_options, report
from utils.config import Config, load_config
from utils.config_schema import Strategy
from utils.errors import ConfigError, UserError

STRATEGIES = get_args(Strategy)
COMMANDS = (
    "train", "test", "predict", "params", "prepare", "check", "export", "view", "download", "sweep", "table", "demo"
)  # fmt: skip


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error here does."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog}: {message}; see --help")


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    parser = Parser(prog="main.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    common = Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def add(name: str, help_text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=help_text, description=help_text, parents=[common])

    train = add("train", "train, then evaluate (the default command)")
    _add_configs(train)
    train.add_argument("--save_path", type=Path, help="where the final weights go; the run's records go beside it")
    train.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    train.add_argument(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        type=_resume,
        metavar="auto",
        help="go on where the run stopped; auto: where there is such a run, else start, and leave a finished one",
    )

    test = add("test", "evaluate a checkpoint")
    test.add_argument("--checkpoint", type=Path, required=True)
    test.add_argument("--data_config", type=Path, help="another dataset than the checkpoint's own")
    test.add_argument("--pretrained_path", type=Path, help="where the base weights lie now")
    test.add_argument("--split", default="test", choices=("train", "val", "test"))
    test.add_argument("--device", default="auto")

    predict = add("predict", "write masks of images of any size")
    predict.add_argument("--checkpoint", type=Path, required=True)
    predict.add_argument(
        "--images", nargs="+", required=True, help="folders, searched with their subfolders, files, or quoted patterns"
    )
    predict.add_argument("--output", type=Path, required=True, help="folder of the masks: PNG, 0/255 or label values")
    predict.add_argument("--probabilities", nargs="?", const="png", choices=("png", "npy"), help="write these as well")
    predict.add_argument("--overlay", action="store_true", help="write the masks over their images as well")
    predict.add_argument("--threshold", type=_probability, default=0.5, help="probability above which a pixel counts")
    predict.add_argument("--tta", choices=("none", "flips"), default="none", help="flips: mean over mirror images")
    predict.add_argument("--tile", action="store_true", help="slide windows over images larger than the model's")
    predict.add_argument("--tile_overlap", type=_share, default=0.25, help="share of a window in common with the next")
    predict.add_argument("--skip_existing", action="store_true", help="leave out images whose masks are there")
    predict.add_argument("--pretrained_path", type=Path, help="where the base weights lie now")
    predict.add_argument("--device", default="auto")

    params = add("params", "count a model's parameters, without weights")
    _add_configs(params)
    params.add_argument("--json", action="store_true", help="print one JSON object")

    prepare = add("prepare", "bring a dataset into this project's layout")
    prepare.add_argument("--seed", type=_seed, default=0, help="of the split, and of generated images")
    add_options(prepare)

    check = add("check", "check a dataset: files, sizes, labels, splits, duplicates")
    check.add_argument("--data_config", type=Path, required=True)
    check.add_argument("--output", type=Path, metavar="PNG", help="contact sheet; default: beside data_split.csv")

    export = add("export", "write a trained model in another format")
    export.add_argument("--checkpoint", type=Path, required=True)
    export.add_argument("--output", type=Path, required=True)
    export.add_argument("--format", default="sam", choices=("sam", "onnx", "full"))
    export.add_argument("--half", action="store_true", help="store float16")
    export.add_argument("--pretrained_path", type=Path, help="where the base weights lie now")

    view = add("view", "serve a page to this machine alone: drop an image, see its mask")
    view.add_argument("--checkpoint", type=Path, required=True)
    view.add_argument("--compare", type=Path, help="a second checkpoint, shown beside the first")
    view.add_argument("--port", type=int, default=7860)
    view.add_argument("--pretrained_path", type=Path, help="where the base weights lie now")
    view.add_argument("--device", default="auto")

    download = add("download", "fetch official weights, with a hash check")
    download.add_argument("name", nargs="?", help="sam_vit_b, clip_vit_b32, ...; --list names them all")
    download.add_argument("--list", action="store_true", help="the names, addresses and files")
    download.add_argument("--output", type=Path, default=Path("weights"), help="the folder to keep the file in")
    download.add_argument("--url", help="another address of the same file; its hash is checked all the same")

    sweep = add("sweep", "run every row of a plan on every dataset with every seed, as far as not done")
    sweep.add_argument("--plan", type=Path, required=True, help="YAML: output, seeds, datasets, rows, overrides")
    sweep.add_argument("--only", nargs="+", default=[], metavar="RUN", help="names row/dataset/seed, * allowed")
    sweep.add_argument("--device", default="auto")
    sweep.add_argument("--dry_run", action="store_true", help="say what is done and what would run")
    sweep.add_argument("--list", action="store_true", help="print the runs' names alone, one a line")

    table = add("table", "gather finished runs into the paper's Table 1 and figures")
    table.add_argument("--runs", type=Path, required=True, help="the folder that holds the runs, at any depth")
    table.add_argument("--output", type=Path, help="where tables, page and figures go (default: RUNS/table)")
    table.add_argument("--weights", default="last", choices=("last", "best_val"), help="never mixed in one table")
    table.add_argument("--size", default="img_size", choices=("img_size", "native"), help="the scores' image size")

    demo = add("demo", "nano SAM before and after SALT on generated vessels, in a few minutes on a CPU")
    demo.add_argument("--output", type=Path, default=Path("runs/demo"))
    demo.add_argument("--epochs", type=int, help="fewer or more epochs than the demo's own")
    return parser


def _add_configs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data_config", type=Path, help="YAML with the sections data and data_transforms")
    parser.add_argument("--model_config", type=Path, required=True, help="YAML with the model and training sections")
    parser.add_argument("--pretrained_path", type=Path, help="base weights: a SAM checkpoint")
    parser.add_argument("--training_strategy", choices=STRATEGIES)
    parser.add_argument("--seed", type=_seed)
    parser.add_argument("--set", dest="overrides", nargs="+", action="extend", default=[], metavar="KEY=VALUE")


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, not '{text}'")
    return int(text)


def _resume(text: str) -> str:
    if text != "auto":
        raise argparse.ArgumentTypeError(f"is given alone or with auto, not '{text}'")
    return text


def _probability(text: str) -> float:
    return _between(text, lambda value: 0 < value < 1, "between 0 and 1")


def _share(text: str) -> float:
    return _between(text, lambda value: 0 <= value < 1, "from 0 up to, but not, 1")


def _between(text: str, allowed: Callable[[float], bool], words: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not allowed(value):
        raise argparse.ArgumentTypeError(f"must be a number {words}, not '{text}'")
    return value


def _config(args: argparse.Namespace) -> Config:
    return load_config(
        args.model_config, args.data_config, args.overrides, args.training_strategy, args.pretrained_path, args.seed
    )


# Each command imports what it needs: torch takes seconds, which a mistyped option should not wait for.
def run_train(args: argparse.Namespace) -> None:
    from utils.signals import StopRequests

    with StopRequests() as stop:
        with stop.at_once("before training began"):
            config = _config(args)
            data = config.require_data()
            from experiment import train_and_evaluate
            from utils.environment import resolve_device

        fold = f"_fold{data.fold_num}" if data.fold_num else ""
        name = f"{data.name}_{config.strategy}_{config.seed}{fold}"
        save_path = args.save_path or Path("runs") / name / "model.safetensors"
        results = train_and_evaluate(config, save_path, resolve_device(args.device), args.resume, stop)
    if _process_index():
        return
    for weights in ("last", "best_val"):
        if results[weights]:
            _print_summary(f"{weights} (epoch {results[weights]['epoch']})", results[weights])
    if results["checkpoint"]["path"]:
        print(f"weights: {save_path}")


def run_test(args: argparse.Namespace) -> None:
    from experiment import evaluate_checkpoint
    from utils.environment import resolve_device

    data = load_config(None, args.data_config) if args.data_config else None
    results = evaluate_checkpoint(args.checkpoint, resolve_device(args.device), args.split, data, args.pretrained_path)
    _print_summary(f"{results['dataset']} {results['split']}", results)


def run_predict(args: argparse.Namespace) -> None:
    from model import load_model
    from predict import predict_files
    from prediction.outputs import Outputs
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
    from models.strategies import parameter_counts

    counts = parameter_counts(build_model(config, counted_only=True))
    if args.json:
        print(json.dumps({**counts, "percent": round(counts["percent"], 2)}))
        return
    print(f"{'module':<16}{'trainable':>14}{'total':>14}")
    for name, module in {**counts["modules"], "all": counts}.items():
        print(f"{name:<16}{module['trainable']:>14,}{module['total']:>14,}")
    print(f"{counts['percent']:.2f}% trainable")


def run_prepare(args: argparse.Namespace) -> None:
    from datasets.prepare import prepare

    options = {key: getattr(args, key) for key in OF_CONVERTERS}
    summary = prepare(
        args.name, args.source, args.output, args.seed, args.force, folds=args.folds, dry_run=args.dry_run, **options
    )
    print(report(summary))
    if args.dry_run:
        print("dry run: nothing was written")


def run_check(args: argparse.Namespace) -> None:
    from datasets.check import check
    from datasets.contact_sheet import save_contact_sheet
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
    from export import export

    print(export(args.format, args.checkpoint, args.output, args.half, args.pretrained_path))


def run_view(args: argparse.Namespace) -> None:
    from utils.environment import resolve_device
    from view import serve

    checkpoints = [args.checkpoint] + ([args.compare] if args.compare else [])
    serve(checkpoints, args.pretrained_path, resolve_device(args.device), args.port)


def run_download(args: argparse.Namespace) -> None:
    from utils.downloads import DOWNLOADS

    if args.list or args.name is None:
        for name, published in DOWNLOADS.items():
            print(f"{name:<16} {published.file_name:<26} {published.url}")
        return
    from download import download

    print(download(args.name, args.output, args.url))


def run_sweep(args: argparse.Namespace) -> None:
    from sweep import cells, read_plan, sweep

    chosen = cells(read_plan(args.plan), args.only)
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
    from demo import demo

    print(demo(args.output, args.epochs))


def _process_index() -> int:
    """Which of the processes that torchrun started this is; only the first one prints and logs."""
    return int(os.environ.get("RANK", "0"))


def _print_summary(title: str, result: dict[str, Any]) -> None:
    for size, name in (("img_size", "at the model's image size"), ("native", "at the images' own size")):
        dice, hd95, n, n_empty = (result[size][key] for key in ("dice", "hd95", "n", "n_empty"))
        low, high = dice["ci95"]
        print(
            f"{title}: Dice {dice['mean']:.4f} [{low:.4f}, {high:.4f}], HD95 {hd95['mean']:.2f} px, "
            f"n {n}, {n_empty} with one mask empty, {name}"
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
