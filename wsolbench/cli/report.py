"""`wsolbench report`: finished runs as one page."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from wsolbench.cli.parser import Verb
from wsolbench.config.overrides import names_in
from wsolbench.errors import UsageError
from wsolbench.system.preflight import check_writable


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", type=Path, help="run directories, or folders of results")
    add("-o", "--out", metavar="FILE", type=Path, default=Path("report.html"), help="default: report.html")
    add("--images", metavar="N", type=int, default=6, help="pictures of each kind: best, worst, ... (default: 6)")
    add("--ids", metavar="A,B", help="images that get a picture besides")
    add("--no-maps", action="store_true", help="load no weights: boxes without maps")


def report(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Write the page and say where it is."""
    if arguments.images < 0:
        raise UsageError(f"--images {arguments.images}: expected a whole number from 0")
    if arguments.out.is_dir():
        raise UsageError(f"-o '{arguments.out}' is a folder: name a file, e.g. {arguments.out / 'report.html'}")
    check_writable(arguments.out.parent)
    from wsolbench.report.gallery import Options
    from wsolbench.report.write import write_report

    options = Options(arguments.images, tuple(names_in(arguments.ids)), not arguments.no_maps, _command(arguments))
    path = write_report(arguments.runs, arguments.out, options)
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0


def _command(arguments: argparse.Namespace) -> str:
    """The command that writes the same page, to stand in it."""
    words = ["wsolbench", "report", *map(str, arguments.runs), "-o", str(arguments.out)]
    words += ["--images", str(arguments.images)] if arguments.images != 6 else []
    words += ["--ids", arguments.ids] if arguments.ids else []
    return shlex.join(words + ["--no-maps"] * arguments.no_maps)


def invitation(out: str | Path, directories: Sequence[Path]) -> str:
    """What `run` and `evaluate` end with: where the records are, and the command that shows them as a page."""
    if len(directories) == 1:
        return f"record: {directories[0] / 'record.json'}\nas a page: {shlex.join(['wsolbench', 'report', str(directories[0])])}"
    return f"records: {Path(out, 'runs')}\nas a page: {shlex.join(['wsolbench', 'report', str(out)])}"


VERB = Verb(
    "report",
    "Write finished runs as one page: tables, curves, error classes, a gallery of what they see. See docs/report.md.",
    "wsolbench report results -o report.html",
    add_flags,
    report,
)
