"""Accuracy against measured throughput: a profile joined with a leaderboard, method by method, a panel per backbone."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsolbench.errors import UsageError
from wsolbench.leaderboard import plots
from wsolbench.profile.rows import Measurement
from wsolbench.profile.work import LOCALIZE

COLUMN, PROTOCOL = "GT-known@val", "full"


@dataclass(frozen=True)
class Score:
    """One row of a leaderboard: a fraction of the test images."""

    label: str  # method, and variant where there are several
    method: str
    backbone: str
    value: float


def draw(lines: Sequence[Measurement], results: Path | None, dataset: str | None, table: Path) -> Path | None:
    """Draw beside `table`, and say where; nothing is drawn where nothing can be joined, and only who asked is told.

    Args:
        results: folder that holds runs or a leaderboard.csv; None: "results", if there is one.
        dataset: whose scores; None: the images were not those of a data set, so no score belongs to them.
    """
    reason, figure = "image size or number of classes are not the data set's", None
    if dataset is not None:
        found = scores(Path("results") if results is None else results, dataset)
        reason = f"no method of {dataset}'s leaderboard under protocol {PROTOCOL} was measured"
        figure = plots.speed(panels(lines, found), speed_label(lines))
    if figure is None:
        if results is not None:
            print(f"accuracy against throughput is not drawn: {reason}", file=sys.stderr)
        return None
    path = plots.save(figure, table.with_name(f"{table.stem}-accuracy.png"))
    print(f"accuracy against throughput: {path}")
    return path


def scores(results: Path, dataset: str) -> list[Score]:
    """GT-known@val of trained runs below a folder, or of the leaderboard.csv that lies in it where there are no runs."""
    found = _of_runs(results, dataset) if (results / "runs").is_dir() else []
    table = results / "leaderboard.csv"
    return found or (_of_table(table, dataset) if table.is_file() else [])


def _of_runs(results: Path, dataset: str) -> list[Score]:
    from wsolbench.leaderboard.groups import summarise
    from wsolbench.leaderboard.records import find_records

    return [
        Score(row.label, row.method, row.backbone, stat.mean)
        for group in summarise(find_records(results).values())
        if group.dataset == dataset and group.protocol == PROTOCOL
        for row in group.own_rows
        for column, stat in row.values.items()
        if column.title == COLUMN
    ]


def _of_table(path: Path, dataset: str) -> list[Score]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        return [
            Score(
                f"{row['method']} ({row['variant']})" if row["variant"] else row["method"],
                row["method"],
                row["backbone"],
                float(row[f"{COLUMN} mean"]),
            )
            for row in rows
            if (row["dataset"], row["protocol"]) == (dataset, PROTOCOL) and row[f"{COLUMN} mean"]
        ]
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"'{path}' is no leaderboard with a column '{COLUMN} mean' of numbers; "
            "'wsolbench leaderboard results --write results' writes one"
        ) from error


def panels(lines: Sequence[Measurement], found: Sequence[Score]) -> list[plots.Panel]:
    """A panel per backbone: each method's score at its speed, all at one batch size and in one number format."""
    chosen = _comparable(lines)
    speeds = {(line.method, line.backbone): line.images_per_second for line in chosen}
    points: dict[str, dict[str, tuple[float, float]]] = {}
    for score in found:
        speed = speeds.get((score.method, score.backbone))
        if speed is not None:
            points.setdefault(score.backbone, {})[score.label] = (speed, 100 * score.value)
    return [plots.Panel(f"{backbone}, {PROTOCOL}", f"{COLUMN}, %", each) for backbone, each in sorted(points.items())]


def speed_label(lines: Sequence[Measurement]) -> str:
    """What the throughput is of, for an axis."""
    chosen = _comparable(lines)
    return f"images/s, forward and map\nbatch {chosen[0].batch_size}, {chosen[0].numerics}" if chosen else "images/s"


def _comparable(lines: Sequence[Measurement]) -> list[Measurement]:
    """Forward and map at the largest batch size that every network ran at, in the plainest numerics measured."""
    measured = [line for line in lines if line.work == LOCALIZE and line.backbone != "-"]
    plainest = next((line.numerics for line in measured if line.ok), "")
    measured = [line for line in measured if line.numerics == plainest]
    failed = {line.batch_size for line in measured if not line.ok}
    sizes = {line.batch_size for line in measured if line.ok}
    at = max(sizes - failed or sizes, default=0)
    return [line for line in measured if line.ok and line.batch_size == at]
