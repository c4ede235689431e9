"""What the protocol matrix costs over a plain run: both from nothing, in turns, in one process; the ratio is of one round.

    OMP_NUM_THREADS=1 nice -n -5 python tests/support/matrix_cost.py [--methods cam,sat] [--backbone badges_vit.s0] [--rounds 2]
                                                                     [--out FILE.csv] [key=value ...]

`plain` and `matrix` are the wall seconds of a whole run, training, evaluation, intervals and files; `selection` is the record's
`cost.selection_seconds`, the evaluations of the checkpoints among which is chosen. Printed are medians; a short plain run warms
up. Two rounds of the default methods take about seven minutes on one core.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from speed_table import write_rows

from wsolbench.config.compose import expand
from wsolbench.record import RunRecord
from wsolbench.runs.engine import run


def timed(method: str, protocol: str, arguments: argparse.Namespace, *more: str) -> tuple[float, RunRecord]:
    """Seconds of one run that finds nothing done before it, and its record."""
    with tempfile.TemporaryDirectory() as out:
        overrides = [*arguments.overrides, f"out={Path(out).as_posix()}", *more]
        (config,) = expand([method], backbone=arguments.backbone, protocol=protocol, overrides=overrides)
        started = time.perf_counter()
        outcome = run(config)
        seconds = time.perf_counter() - started
    assert outcome.record is not None
    return seconds, outcome.record


def measure(method: str, arguments: argparse.Namespace) -> dict[str, object]:
    """One row of the table."""
    plain, matrix, selection, cells = [], [], [], 0
    for at in range(arguments.rounds):
        for protocol in ("full", "matrix") if at % 2 == 0 else ("matrix", "full"):
            seconds, record = timed(method, protocol, arguments)
            (matrix if protocol == "matrix" else plain).append(seconds)
            if protocol == "matrix":
                selection.append(float(record.cost["selection_seconds"] or 0))
                cells = len(record.matrix)
    ratios = [more / less for more, less in zip(matrix, plain, strict=True)]
    return {
        "method": method,
        "backbone": arguments.backbone,
        "rounds": arguments.rounds,
        "plain [s]": round(statistics.median(plain), 1),
        "matrix [s]": round(statistics.median(matrix), 1),
        "selection [s]": round(statistics.median(selection), 1),
        "ratio": round(statistics.median(ratios), 2),
        "cells": cells,
        "threads": record.provenance.get("threads"),
        "torch": record.provenance["versions"]["torch"],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="cam,sat")
    parser.add_argument("--backbone", default="badges_vit.s0")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_args()
    rows = []
    for method in arguments.methods.split(","):
        timed(method, "full", arguments, "train.steps=2")  # compiles, and draws the images
        rows.append(measure(method, arguments))
        print("  ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    if arguments.out is not None:
        write_rows(arguments.out, rows)


if __name__ == "__main__":
    main()
