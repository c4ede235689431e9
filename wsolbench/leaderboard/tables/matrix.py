"""Protocol matrices of finished runs as tables: a row per method and checkpoint's selector, a column per threshold's selector."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from wsolbench.config.selectors import names_by_supervision, parse_checkpoint, parse_threshold
from wsolbench.leaderboard.groups import stat_of, summarise
from wsolbench.leaderboard.standings import Group, Row, Stat
from wsolbench.leaderboard.tables.board import Spread, field_of
from wsolbench.leaderboard.tables.protocol_steps import falls_sheet
from wsolbench.leaderboard.tables.sheets import Document, Field, Head, Line, Sheet, Signs
from wsolbench.record import Cell, RunRecord

METRICS = ("GT-known", "Top-1 Loc")
_CHECKPOINTS, _THRESHOLDS = names_by_supervision("checkpoint"), names_by_supervision("threshold")
Key = tuple[str, str, str]  # checkpoint's selector, threshold's, metric


def matrix_document(records: Iterable[RunRecord], metrics: Sequence[str] = (), spread: Spread = "std") -> Document:
    """The matrices of all runs that have one, over seeds, each followed by how far its methods fall; others are left out.

    Without `metrics` (some of `METRICS`) GT-known is shown.
    """
    groups = _groups(records)
    wanted = list(metrics) or ["GT-known"]
    sheets = [(_sheet(group, wanted, spread), falls_sheet(group, wanted, spread)) for group in groups]
    return Document(
        title="Protocols",
        sheets=tuple(sheet for pair in sheets for sheet in pair if sheet is not None),
        legend=lambda signs: _legend(signs, groups, spread),
        records=[row for group in groups for row in _tidy(group)],
        empty="No finished run has a protocol matrix: 'wsolbench run --methods A,B --protocol matrix' makes some.",
    )


@dataclass(frozen=True)
class MatrixOf:
    """The matrix of one method over its seeds; selectors in order, least supervision first."""

    method: str
    backbone: str
    checkpoints: tuple[str, ...]
    thresholds: tuple[str, ...]
    stats: dict[Key, Stat]

    def has(self, metric: str) -> bool:
        """Whether any combination has a value."""
        return any(key[2] == metric for key in self.stats)

    def mean(self, checkpoint: str, threshold: str, metric: str) -> float:
        """A fraction; NaN where the combination does not exist."""
        stat = self.stats.get((checkpoint, threshold, metric))
        return float("nan") if stat is None else stat.mean


def matrices(records: Iterable[RunRecord]) -> list[MatrixOf]:
    """The matrices of all runs that have one, over seeds; runs on different data or of other settings stay apart."""
    found = []
    for group in _groups(records):
        tables = {row.label: _stats(row) for row in _rows(group)}
        checkpoints, thresholds = _axes(tables)
        found += [MatrixOf(label, group.backbone, checkpoints, thresholds, stats) for label, stats in tables.items()]
    return found


def _groups(records: Iterable[RunRecord]) -> list[Group]:
    groups = summarise(record for record in records if record.matrix)
    return [group for group in groups if group.own_rows]


def _rows(group: Group) -> list[Row]:
    return sorted(group.own_rows, key=lambda row: row.label)


def _axes(tables: dict[str, dict[Key, Stat]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    every = {key for table in tables.values() for key in table}
    checkpoints = sorted({key[0] for key in every}, key=lambda text: _CHECKPOINTS.index(parse_checkpoint(text).name))
    thresholds = sorted({key[1] for key in every}, key=lambda text: _THRESHOLDS.index(parse_threshold(text).name))
    return tuple(checkpoints), tuple(thresholds)


def _sheet(group: Group, metrics: Sequence[str], spread: Spread) -> Sheet:
    rows = _rows(group)
    tables = {row.label: _stats(row) for row in rows}
    checkpoints, thresholds = _axes(tables)
    columns = [(metric, threshold) for metric in metrics for threshold in thresholds]
    heads = (
        Head("method", kind="text"),
        Head("seeds", kind="text"),
        Head("checkpoint by", kind="text"),
        *(Head(metric, f"@{short(threshold)}{dagger(threshold)}") for metric, threshold in columns),
    )
    lines = []
    for row in rows:
        for checkpoint in checkpoints:
            fields = [field_of(tables[row.label].get((checkpoint, at, metric)), (), spread) for metric, at in columns]
            if any(field.text != "-" for field in fields):
                chosen = Field(short(checkpoint) + dagger(checkpoint))
                lines.append(Line((Field(row.label), Field(str(len(row.seeds))), chosen, *fields)))
    return Sheet(
        group.title, heads, tuple(lines), (*group.notes, made_with([record for row in rows for record in row.records]))
    )


def _stats(row: Row) -> dict[Key, Stat]:
    cells: dict[Key, list[Cell]] = {}
    for record in row.records:
        for cell in record.matrix:
            cells.setdefault((str(cell.checkpoint_by), str(cell.threshold_by), cell.metric), []).append(cell)
    return {key: stat_of(found) for key, found in cells.items()}


def short(selector: str) -> str:
    """A selector as tables and figures name it."""
    return "val" if selector == "val-boxes" else selector


def dagger(selector: str) -> str:
    """The sign of a selector that looked at test boxes."""
    return "†" if selector.startswith("test-oracle") else ""


def made_with(records: Sequence[RunRecord]) -> str:
    """On what and by what runs were made, in a line."""

    def named(values: Iterable[object]) -> str:
        return ", ".join(dict.fromkeys(str(value) for value in values))

    versions = [each.provenance.get("versions") or {} for each in records]
    return (
        f"data revision {named(each.provenance.get('data_revision') for each in records)}; "
        f"{named(each.ledger.test_images for each in records)} test images; "
        f"commit {named(str(each.provenance.get('commit'))[:10] for each in records)}; "
        f"torch {named(each.get('torch') for each in versions)}; "
        f"seeds {named(sorted({each.seed for each in records}))}; "
        f"device {named(each.provenance.get('device') for each in records)}"
    )


def _legend(signs: Signs, groups: Iterable[Group], spread: Spread) -> list[str]:
    runs = [row.records for group in groups for row in group.own_rows]
    lines = [
        "Percent, on test. Rows: who chose the checkpoint; columns: who chose the threshold (docs/protocols.md).",
        "All rows of a method come from one training.",
    ]
    if any(len(records) > 1 for records in runs):
        told = {"std": "sample standard deviation over seeds", "t": "half of the 95 % t-interval over seeds"}
        lines.append(f"± is the {told[spread]}.")
    if any(len(records) == 1 for records in runs):
        lines.append("[low, high] is the 95 % bootstrap interval over the test images of a single run.")
    lines.append("val: boxes of val. † test boxes were looked at to choose: never to be compared with the others.")
    return lines


def _tidy(group: Group) -> list[dict[str, Any]]:
    return [
        {
            "dataset": group.dataset,
            "backbone": group.backbone,
            "protocol": group.protocol,
            "method": row.method,
            "variant": row.variant or None,
            "checkpoint_by": key[0],
            "threshold_by": key[1],
            "metric": key[2],
            "oracle": "test-oracle" in f"{key[0]} {key[1]}",
            "n": stat.n,
            "mean": stat.mean,
            "std": stat.std,
            "low": stat.low,
            "high": stat.high,
        }
        for row in _rows(group)
        for key, stat in _stats(row).items()
    ]
