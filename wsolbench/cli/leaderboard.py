"""`wsolbench leaderboard`: finished runs as tables."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wsolbench.cli.parser import Verb, print_text
from wsolbench.errors import UsageError, unknown
from wsolbench.leaderboard.formats import FORMATS

if TYPE_CHECKING:
    from wsolbench.leaderboard.view import View

_AXES = {  # what is kept by each
    "dataset": "data sets, by our name or the printed one",
    "protocol": "protocols",
    "method": "methods",
    "backbone": "backbones; what uses none stays for reference",
    "metric": "metrics or columns, e.g. GT-known or GT-known@val",
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add = parser.add_argument
    add("results", nargs="?", default="results", help="folder given to run as --out (default: results)")
    add("--format", default="table", metavar="NAME", help=f"{', '.join(FORMATS)} (default: table)")
    add("--write", metavar="DIR", type=Path, help="also write the table there, as .md and .csv (leaderboard.md, ...)")
    for axis, told in _AXES.items():
        add(f"--{axis}", metavar="A,B", help=f"only these {told}; * and ? match any text")
    add("--sort", metavar="COLUMN", help="order rows by this column, a cost (train_seconds) or 'method'")
    add("--spread", default="std", metavar="KIND", help="over seeds: std, or t for the 95 %% t-interval (default: std)")
    add("--pivot", metavar="AXIS", help="methods as rows, this axis as columns: backbone, dataset or protocol")
    add("--reported", action="store_true", help="published numbers, in columns of their own; needs no run")
    add("--contradictions", action="store_true", help="published numbers of one cell that disagree between sources")
    add(
        "--matrix", action="store_true", help="who chose the checkpoint x who chose the threshold, of --protocol matrix"
    )
    add(
        "--compare",
        nargs="*",
        metavar="METHOD",
        help="paired tests between these methods, or between all of a table, corrected for their number",
    )
    add("--force", action="store_true", help="compare runs on different data or by different conventions, marked")


def view_of(arguments: argparse.Namespace) -> View:
    """What the flags ask for."""
    from wsolbench.leaderboard.selection import Selection
    from wsolbench.leaderboard.view import View

    compare = arguments.compare
    kept = {axis: _names(getattr(arguments, axis), f"--{axis}") for axis in _AXES}
    return View(
        selection=Selection(
            datasets=kept["dataset"],
            protocols=kept["protocol"],
            methods=kept["method"],
            backbones=kept["backbone"],
            metrics=kept["metric"],
        ),
        pivot=arguments.pivot,
        sort=arguments.sort,
        spread=arguments.spread,
        reported=arguments.reported,
        contradictions=arguments.contradictions,
        matrix=arguments.matrix,
        compare=None if compare is None else tuple(name for word in compare for name in _names(word, "--compare")),
        force=arguments.force,
    )


def command_of(arguments: argparse.Namespace) -> str:
    """The command that shows the same table, to stand in it."""
    words = ["wsolbench", "leaderboard", str(arguments.results)]
    for flag in (*_AXES, "sort", "pivot"):
        if getattr(arguments, flag) is not None:
            words += [f"--{flag}", getattr(arguments, flag)]
    words += ["--spread", arguments.spread] if arguments.spread != "std" else []
    words += [f"--{flag}" for flag in ("reported", "contradictions", "matrix", "force") if getattr(arguments, flag)]
    words += ["--compare", *arguments.compare] if arguments.compare is not None else []
    return shlex.join(words)


def _names(text: str | None, flag: str) -> tuple[str, ...]:
    if text is None:
        return ()
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise UsageError(f"{flag} '{text}': expected one or more names, separated by commas")
    return names


def leaderboard(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Print the tables, and write them where that is asked for."""
    if arguments.format not in FORMATS:
        raise unknown("format", arguments.format, FORMATS)
    from wsolbench.leaderboard.formats import text, write
    from wsolbench.leaderboard.formats.terminal import print_document
    from wsolbench.leaderboard.view import build

    document = build(Path(arguments.results), view_of(arguments))
    if arguments.format == "table":
        print_document(document)
    else:
        print_text(text(document, arguments.format))
    if arguments.write is not None:
        for path in write(document, arguments.write, command_of(arguments)):
            print(path, file=sys.stderr)
    return 0


VERB = Verb(
    "leaderboard",
    "Print finished runs by data set, backbone and protocol; select, pivot, compare; published numbers beside them.",
    "wsolbench leaderboard --reported --dataset cub --backbone deit_small_patch16_224",
    add_flags,
    leaderboard,
)
