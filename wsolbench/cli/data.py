"""`wsolbench data ...`: look at a data set, check it, draw from it, make one; nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import argparse
from pathlib import Path

from wsolbench.cli import pseudo_boxes
from wsolbench.cli.parser import Verb, no_flags, parsers_of
from wsolbench.config.overrides import names_in
from wsolbench.errors import UsageError, unknown
from wsolbench.system.interrupt import request_of
from wsolbench.system.preflight import check_writable


def _add_name_and_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="see 'wsolbench list datasets'")
    parser.add_argument("--root", metavar="PATH", help="folder in which the data set lies")


# --- show -------------------------------------------------------------------------------------------------------------


def _show_flags(parser: argparse.ArgumentParser) -> None:
    _add_name_and_root(parser)
    parser.add_argument("--split", default="val", metavar="NAME", help="train, val or test (default: val)")
    parser.add_argument("--count", default=24, type=int, metavar="N", help="number of images (default: 24)")
    parser.add_argument("--seed", default=0, type=int, metavar="N", help="which images are drawn (default: 0)")
    parser.add_argument("-o", "--out", metavar="FILE", type=Path, help="default: NAME-SPLIT.png")


def show_sheet(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Draw some images of a split with their ground truth."""
    from wsolbench.config.compose import dataset_options
    from wsolbench.data.dataset import create_dataset

    dataset = create_dataset(arguments.name, root=arguments.root, **dataset_options(arguments.name, rest))
    if arguments.split not in dataset.splits:
        raise unknown("split", arguments.split, dataset.splits)
    path = arguments.out or Path(f"{arguments.name}-{arguments.split}.png")
    check_writable(path.parent)
    from wsolbench.data.contact_sheet import write_contact_sheet

    print(write_contact_sheet(dataset, arguments.split, path, arguments.count, arguments.seed))
    return 0


# --- init -------------------------------------------------------------------------------------------------------------


def _init_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", type=Path, help="is made where it does not exist")


def init(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Make a folder for one's own images."""
    from wsolbench.data.init_folder import init_folder

    print(*init_folder(arguments.folder), sep="\n")
    return 0


# --- check ------------------------------------------------------------------------------------------------------------


def _check_flags(parser: argparse.ArgumentParser) -> None:
    _add_name_and_root(parser)
    parser.add_argument("--splits", metavar="A,B", help="train, val, test (default: all)")
    parser.add_argument("--quick", action="store_true", help="read headers only: nothing is decoded or compared")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write everything that was found there")
    parser.add_argument("--workers", metavar="N", type=int, help="threads (default: one per processor)")


def check(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Look at everything; 1 if there is a problem, 130 if Ctrl-C left some of it."""
    if arguments.workers is not None and arguments.workers < 1:
        raise UsageError(f"--workers {arguments.workers}: expected at least 1")
    if arguments.json is not None:
        check_writable(arguments.json.parent)
    from rich.console import Console

    from wsolbench.config.compose import dataset_options
    from wsolbench.data.check import check_dataset
    from wsolbench.data.check.report import print_report
    from wsolbench.system.files import write_json
    from wsolbench.system.progress import Reporter

    report = check_dataset(
        arguments.name,
        root=arguments.root,
        options=dataset_options(arguments.name, rest),
        splits=names_in(arguments.splits),
        quick=arguments.quick,
        workers=arguments.workers,
        reporter=Reporter(),
    )
    print_report(report, Console())
    if arguments.json is not None:
        write_json(arguments.json, report.as_json())
    return request_of(KeyboardInterrupt()).status if not report.complete else 1 if report.problems else 0


# --- draw -------------------------------------------------------------------------------------------------------------


def _draw_flags(parser: argparse.ArgumentParser) -> None:
    _add_name_and_root(parser)
    parser.add_argument("--shots", required=True, type=int, metavar="K", help="training images per class")
    parser.add_argument("--val-per-class", type=int, metavar="K", help="also draw so many images per class of val")
    parser.add_argument("--seed", default=0, type=int, metavar="N", help="default: 0")
    parser.add_argument("-o", "--out", metavar="FILE", type=Path, help="default: NAME-<K>shot-s<SEED>.json")


def draw(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Write the draw of a few-shot protocol."""
    for flag, value in (("--shots", arguments.shots), ("--val-per-class", arguments.val_per_class)):
        if value is not None and value < 1:
            raise UsageError(f"{flag} {value}: expected at least 1 image per class")
    from wsolbench.config.compose import dataset_options
    from wsolbench.data.dataset import create_dataset
    from wsolbench.data.subsets import draw_subset
    from wsolbench.system.files import write_json

    path = arguments.out or Path(f"{arguments.name}-{arguments.shots}shot-s{arguments.seed}.json")
    check_writable(path.parent)
    dataset = create_dataset(arguments.name, root=arguments.root, **dataset_options(arguments.name, rest))
    options = {"shots": arguments.shots, "val_per_class": arguments.val_per_class, "seed": arguments.seed}
    write_json(path, draw_subset(dataset, **options))
    print(path)
    return 0


# --- all of them -----------------------------------------------------------------------------------------------------


def say_which(arguments: argparse.Namespace, rest: list[str]) -> int:
    """`wsolbench data` alone."""
    known = parsers_of(arguments.parser)
    raise UsageError(f"say what to do with a data set: {', '.join(known)}; see 'wsolbench data --help'")


VERB = Verb(
    "data",
    "Look at a data set, or make one.",
    "wsolbench data show badges",
    no_flags,
    say_which,
    verbs=(
        Verb(
            "show",
            "Write a contact sheet of a data set with its ground truth. dataset.KEY=value sets its options, as in run.",
            "wsolbench data show badges --split val -o badges.png",
            _show_flags,
            show_sheet,
            takes_overrides=True,
        ),
        Verb(
            "init",
            "Make a folder for your own images, with its layout explained inside; nothing is overwritten.",
            "wsolbench data init my-images",
            _init_flags,
            init,
        ),
        Verb(
            "check",
            "Look at every image and list of a data set; exit status 1 if there is a problem. dataset.KEY=value sets its "
            "options, as in run. See docs/data-check.md.",
            "wsolbench data check badges",
            _check_flags,
            check,
            takes_overrides=True,
        ),
        Verb(
            "draw",
            "Write the images that a few-shot protocol draws, to be given back as data.subset=FILE.",
            "wsolbench data draw badges --shots 5 --seed 0 -o five.json",
            _draw_flags,
            draw,
            takes_overrides=True,
        ),
        pseudo_boxes.VERB,
    ),
)
