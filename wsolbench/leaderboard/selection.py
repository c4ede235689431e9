"""Which part of the finished runs, and of the published numbers, a leaderboard shows; and in which order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from wsolbench.errors import unknown
from wsolbench.leaderboard.reported import BACKBONES, DATASETS, METHODS, Reported
from wsolbench.leaderboard.standings import ANY_BACKBONE, NO_BACKBONE, Column, Group, Row, order_rows
from wsolbench.record import RunRecord


@dataclass(frozen=True)
class Selection:
    """Names to keep, by axis; an empty axis keeps all. Names may hold `*` and `?`; ours and printed ones both do."""

    datasets: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    backbones: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()

    def check(self, records: Sequence[RunRecord], entries: Sequence[Reported]) -> None:
        """Refuse names that neither the finished runs nor the published numbers know, with the nearest match."""
        where = f" among the finished runs{' and the published numbers' if entries else ''}"
        for kind, wanted, known in (
            ("data set", self.datasets, _names((r.dataset for r in records), (e.dataset for e in entries), DATASETS)),
            ("protocol", self.protocols, {record.protocol for record in records}),
            ("method", self.methods, _names((r.method for r in records), (e.method for e in entries), METHODS)),
            (
                "backbone",
                self.backbones,
                _names((r.backbone for r in records), (e.backbone for e in entries if e.backbone), BACKBONES),
            ),
            (
                "metric",
                self.metrics,
                {name for record in records for cell in record.cells for name in (cell.metric, cell.column)}
                | {name for entry in entries for name in (entry.metric, entry.name)},
            ),
        ):
            for name in wanted:
                if not any(_matches((name,), each) for each in known):
                    raise unknown(kind, name, known, where)

    def records(self, records: Iterable[RunRecord]) -> list[RunRecord]:
        """The runs that are asked for. Those without a network stay, whatever the backbone: they are references."""
        return [
            record
            for record in records
            if _matches(self.datasets, record.dataset)
            and _matches(self.protocols, record.protocol)
            and _matches(self.methods, record.method)
            and (record.backbone == NO_BACKBONE or _matches(self.backbones, record.backbone))
        ]

    def groups(self, groups: Sequence[Group]) -> list[Group]:
        """Groups without the columns that are not asked for, and rows in the order of those that are."""
        kept = []
        for group in groups:
            if group.backbone == ANY_BACKBONE and not _matches(self.backbones, NO_BACKBONE):
                continue
            columns = tuple(column for column in group.columns if self.shows(column))
            rows = [_restricted(row, columns) for row in group.rows]
            own, shared = ([row for row in rows if row.reference is wanted] for wanted in (False, True))
            if self.metrics:  # the leading column may be another now
                own, shared = order_rows(own), order_rows(shared)
            if columns or not self.metrics:
                kept.append(replace(group, columns=columns, rows=(*own, *shared)))
        return kept

    def shows(self, column: Column) -> bool:
        """The column is asked for, by metric or by title."""
        return not self.metrics or any(_matches(self.metrics, name) for name in (column.metric, column.title))

    def metrics_among(self, known: Sequence[str]) -> list[str]:
        """Those of some metrics that are asked for, none where none are; `UsageError` if only others are."""
        found = [metric for metric in known if self.metrics and _matches(self.metrics, metric)]
        if self.metrics and not found:
            raise unknown("metric", self.metrics[0], known, " of protocol matrices")
        return found

    def reported(self, entries: Iterable[Reported]) -> list[Reported]:
        """The published numbers that are asked for; a protocol is ours, so they have none to be asked for by."""
        return [
            entry
            for entry in entries
            if _matches(self.datasets, entry.dataset, *_ours(entry.dataset, DATASETS))
            and _matches(self.methods, entry.method, *_ours(entry.method, METHODS))
            and _matches(self.backbones, entry.backbone, *_ours(entry.backbone, BACKBONES))
            and _matches(self.metrics, entry.metric, entry.name)
        ]


def sort_groups(groups: Sequence[Group], by: str) -> tuple[list[Group], str]:
    """Order the rows of each group by a column (its title or metric), a cost or the method; say what that was.

    Metrics and images per second descend, what is better small ascends; rows without a value come last.

    Raises:
        UsageError: no group has such a column.
    """
    titles: dict[str, None] = {}
    sorted_groups = []
    for group in groups:
        column = next((c for c in group.columns if by in (c.title, c.metric)), None)
        if column is not None:
            titles[column.title] = None
        own, shared = ([row for row in group.rows if row.reference is wanted] for wanted in (False, True))
        sorted_groups.append(replace(group, rows=(*_sorted(own, by, column), *_sorted(shared, by, column))))
    costs = {name for group in groups for row in group.rows for name in row.cost}
    if not titles and by not in costs | {"method"}:
        known = {name for group in groups for c in group.columns for name in (c.title, c.metric)} | costs | {"method"}
        raise unknown("column to sort by", by, known)
    return sorted_groups, " or ".join(titles) or by


def _sorted(rows: Sequence[Row], by: str, column: Column | None) -> list[Row]:
    if by == "method":
        return sorted(rows, key=lambda row: row.label)
    small_is_good = by in ("train_seconds", "parameters", "trainable")

    def place(row: Row) -> tuple[bool, float, str]:
        stat = row.cost.get(by) if column is None else row.values.get(column)
        mean = 0.0 if stat is None else stat.mean
        return stat is None, mean if small_is_good else -mean, row.label

    return sorted(rows, key=place)


def _matches(wanted: Sequence[str], *names: str) -> bool:
    # the name itself first: titles of columns hold brackets, which are a pattern too
    return not wanted or any(name == each or fnmatchcase(name, each) for name in names for each in wanted)


def _ours(printed: str, table: dict[str, str]) -> list[str]:
    return [name for name, title in table.items() if title == printed]


def _names(measured: Iterable[str], printed: Iterable[str], table: dict[str, str]) -> set[str]:
    titles = set(printed)
    return {*measured, *titles, *(name for name, title in table.items() if title in titles)}


def _restricted(row: Row, columns: Sequence[Column]) -> Row:
    return replace(row, values={column: row.values[column] for column in columns if column in row.values})
