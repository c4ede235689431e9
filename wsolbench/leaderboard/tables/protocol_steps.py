"""How far a number falls when its choices get less and less help: steps from test boxes to image labels alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wsolbench.config.selectors import parse_checkpoint, parse_threshold
from wsolbench.leaderboard.groups import spread_of
from wsolbench.leaderboard.standings import Group, Row, Stat
from wsolbench.leaderboard.tables.board import Spread, field_of
from wsolbench.leaderboard.tables.sheets import Field, Head, Line, Sheet
from wsolbench.record import RunRecord


@dataclass(frozen=True)
class Step:
    """One kind of help, as a cell of the protocol matrix: who chose the checkpoint, who the threshold."""

    name: str  # in tables
    checkpoint: str  # selectors' names, whatever their argument
    threshold: str
    label: str  # in figures

    def value(self, record: RunRecord, metric: str) -> float | None:
        """What the run reached under it, a fraction; None where its matrix has no such cell."""
        for cell in record.matrix:
            if cell.metric == metric and cell.checkpoint_by and cell.threshold_by:
                chosen = parse_checkpoint(cell.checkpoint_by).name, parse_threshold(cell.threshold_by).name
                if chosen == (self.checkpoint, self.threshold):
                    return cell.value
        return None


STEPS = (  # most help first
    Step("paper†", "test-oracle", "test-oracle", "both by\ntest boxes"),
    Step("reference†", "last", "test-oracle", "last,\ntest boxes"),
    Step("val", "val-boxes", "val-boxes", "both by\nval boxes"),
    Step("full", "last", "val-boxes", "last,\nval boxes"),
    Step("realistic", "val-pseudo", "val-pseudo", "both by\npseudo-boxes"),
    Step("labels-only", "class-accuracy", "otsu", "class accuracy,\nOtsu"),
)
PAPER, LABELS_ONLY = STEPS[0], STEPS[-1]
_HOW = {
    "paper†": "test boxes chose the best of all checkpoints and thresholds",
    "reference†": "last checkpoint, test boxes chose the threshold",
    "val": "boxes of val chose both",
    "full": "last checkpoint, boxes of val chose the threshold",
    "realistic": "pseudo-boxes of val chose both",
    "labels-only": "class accuracy on val chose the checkpoint, every map is cut at its own Otsu level",
}


def steps_of(records: Iterable[RunRecord], metric: str = "GT-known") -> list[Step]:
    """The steps that any of the runs has."""
    known = list(records)
    return [step for step in STEPS if any(step.value(record, metric) is not None for record in known)]


def fall(row: Row, metric: str) -> Stat | None:
    """From `PAPER` to `LABELS_ONLY`, positive where less help is worse: of each seed, then over seeds."""
    ends = [(PAPER.value(record, metric), LABELS_ONLY.value(record, metric)) for record in row.records]
    falls = [first - last for first, last in ends if first is not None and last is not None]
    return spread_of(falls) if falls else None


def falls_sheet(group: Group, metrics: Sequence[str], spread: Spread) -> Sheet | None:
    """A row per method and metric of one matrix; None where no run knows both ends."""
    rows = sorted(group.own_rows, key=lambda row: row.label)
    lines, steps = [], steps_of((record for row in rows for record in row.records), metrics[0])
    for metric in metrics:
        for row in rows:
            fallen = fall(row, metric)
            if fallen is not None:
                values = [[step.value(record, metric) for record in row.records] for step in steps]
                stats = [spread_of(known) if (known := _known(of_step)) else None for of_step in values]
                fields = [field_of(stat, (), spread) for stat in (*stats, fallen)]
                lines.append(Line((Field(row.label), Field(str(len(row.seeds))), Field(metric), *fields)))
    if not lines:
        return None
    heads = (
        Head("method", kind="text"),
        Head("seeds", kind="text"),
        Head("metric", kind="text"),
        *(Head(step.name) for step in steps),
        Head("fall"),
    )
    told = "; ".join(f"{step.name}: {_HOW[step.name]}" for step in steps)
    notes = (told, f"fall: points from {PAPER.name} to {LABELS_ONLY.name}, of each seed, then over seeds")
    return Sheet(f"{group.title} | from {PAPER.name} to {LABELS_ONLY.name}", heads, tuple(lines), notes)


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]
