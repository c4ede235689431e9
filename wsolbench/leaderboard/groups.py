"""Run records to a table: what was run, how often, and which number may be compared with which.

A group is data set x backbone x protocol; only inside it are numbers comparable, so only inside it is a best one marked.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from wsolbench.leaderboard.standings import (
    ANY_BACKBONE,
    DESCRIPTIONS,
    NO_BACKBONE,
    Column,
    Group,
    Row,
    Stat,
    columns_of,
    order_rows,
)
from wsolbench.leaderboard.variants import differences, flat, untrained, variant_of
from wsolbench.record import Cell, RunRecord


def summarise(records: Iterable[RunRecord], *, any_data: bool = False) -> list[Group]:
    """Group records into tables: rows per method and configuration, mean and spread over seeds, best marks.

    `any_data` puts runs on different data of one name into one table, which then says so: their numbers are not comparable.
    """
    grouped: dict[tuple[str, str, str, str], list[RunRecord]] = defaultdict(list)
    for record in records:
        data = "" if any_data else _data_key(record)
        grouped[record.dataset, data, record.protocol, record.backbone].append(record)
    mixed = set(_mixed(grouped.values())) if any_data else set()
    if any_data:
        labels = {key[:2]: f"{key[0]}{' (forced: different data)' * (key[0] in mixed)}" for key in grouped}
    else:
        labels = _dataset_labels([group[0] for group in grouped.values()])
    references = {key[:3]: _rows(group) for key, group in grouped.items() if key[3] == NO_BACKBONE}
    groups = []
    for key in sorted(grouped, key=_group_order):
        dataset, data, protocol, backbone = key
        rows, notes = _rows(grouped[key])
        if dataset in mixed:
            told = dict.fromkeys(f"{record.method}: {data_of(record)}" for record in grouped[key])
            notes = [f"forced: runs on different data, nothing is comparable ({'; '.join(told)})", *notes]
        rows = order_rows(rows) if dataset in mixed else _mark_best(order_rows(rows))
        if backbone != NO_BACKBONE:
            shared = order_rows(references.get(key[:3], ([], []))[0])
            rows += [replace(row, reference=True) for row in shared]
        groups.append(
            Group(
                dataset=labels[dataset, data],
                data="" if dataset in mixed else str(grouped[key][0].provenance.get("data_fingerprint") or ""),
                backbone=ANY_BACKBONE if backbone == NO_BACKBONE else backbone,
                protocol=protocol,
                columns=columns_of(rows),
                rows=tuple(rows),
                notes=tuple(notes),
            )
        )
    return groups


def _mixed(groups: Iterable[Sequence[RunRecord]]) -> list[str]:
    """Names that stand for different data."""
    keys = {(record.dataset, _data_key(record)) for group in groups for record in group}
    names = [name for name, _ in keys]
    return [name for name in names if names.count(name) > 1]


def _data_key(record: RunRecord) -> str:
    return str(record.provenance.get("data_fingerprint") or json.dumps(record.config.get("dataset"), sort_keys=True))


def data_of(record: RunRecord) -> str:
    """Revision and fingerprint of a run's data, for a sentence."""
    found = record.provenance
    revision, fingerprint = (found.get(name) or "unknown" for name in ("data_revision", "data_fingerprint"))
    return f"revision {revision}, fingerprint {str(fingerprint)[:12]}"


def _group_order(key: tuple[str, str, str, str]) -> tuple[Any, ...]:
    dataset, data, protocol, backbone = key
    natural = [(not part.isdigit(), part.zfill(9)) for part in re.split(r"(\d+)", protocol) if part]
    return dataset, data, natural, backbone == NO_BACKBONE, backbone


def _dataset_labels(samples: Sequence[RunRecord]) -> dict[tuple[str, str], str]:
    """Names for data: the data set's name, plus what differs where one name stands for different data."""
    by_name: dict[str, dict[str, RunRecord]] = defaultdict(dict)
    for record in samples:
        by_name[record.dataset].setdefault(_data_key(record), record)
    labels = {}
    for name, variants in by_name.items():
        options = [flat(record.config.get("dataset") or {}) for record in variants.values()]
        suffixes = differences(options)
        for (key, record), suffix in zip(variants.items(), suffixes, strict=True):
            if len(variants) > 1 and (not suffix or suffixes.count(suffix) > 1):
                print_ = str(record.provenance.get("data_fingerprint") or key)[:8]
                suffix = ", ".join(filter(None, (suffix, f"data {print_}")))
            labels[name, key] = f"{name} ({suffix})" if suffix else name
    return labels


def _rows(records: Sequence[RunRecord]) -> tuple[list[Row], list[str]]:
    """Rows of one group without marks, and what a reader must know about how they were made."""
    by_method: dict[str, dict[tuple[Any, ...], list[RunRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        identity = tuple(sorted(variant_of(record).items(), key=lambda item: item[0]))
        by_method[record.method][identity].append(record)
    rows: list[Row] = []
    notes: dict[str, list[str]] = {}  # sentence -> the rows it is about
    for method, variants in by_method.items():
        suffixes = differences([dict(identity) for identity in variants])
        for runs, suffix in zip(variants.values(), suffixes, strict=True):
            if suffixes.count(suffix) > 1:
                suffix = ", ".join(filter(None, (suffix, runs[0].hash[:8])))
            row, dropped = _row(method, suffix, runs)
            rows.append(row)
            for note in _notes(row, dropped):
                notes.setdefault(note, []).append(row.label)
    return rows, [f"{', '.join(labels)}: {note}" for note, labels in notes.items()]


def _notes(row: Row, dropped: int) -> list[str]:
    """What a reader must know about how a row was made."""
    notes = list(dict.fromkeys(note.rstrip(".") for run in row.records for note in run.notes))
    if dropped:
        notes.append(
            f"{dropped} older record(s) of the same configuration and seed are not shown; "
            "code, weights or data order moved between them"
        )
    commits = {str(run.provenance.get("commit"))[:10] for run in row.records}
    if len(commits) > 1:
        notes.append(f"its seeds were run at different commits ({', '.join(sorted(commits))})")
    missing = sorted({column.title for column, stat in row.values.items() if stat.n < len(row.seeds)})
    if missing and not row.deterministic:
        notes.append(f"not every seed has a value for {', '.join(missing)}")
    return notes


def _row(method: str, variant: str, records: Sequence[RunRecord]) -> tuple[Row, int]:
    newest: dict[int, RunRecord] = {}
    for record in sorted(records, key=lambda record: str(record.provenance.get("created") or "")):
        newest[record.seed] = record
    runs = [newest[seed] for seed in sorted(newest)]
    outcomes = {tuple((cell.column, cell.oracle, cell.value) for cell in run.cells) for run in runs}
    deterministic = len(outcomes) == 1 and all(untrained(run) for run in runs)
    shown = runs[:1] if deterministic else runs
    cells: dict[Column, list[Cell]] = defaultdict(list)
    for cell in (cell for run in shown for cell in run.cells):
        if math.isfinite(cell.value):
            cells[Column.of(cell)].append(cell)
    costs: dict[str, list[float]] = defaultdict(list)
    for name, value in (item for run in runs for item in run.cost.items()):
        if value is not None and math.isfinite(value):
            costs[name].append(value)
    row = Row(
        method=method,
        variant=variant,
        backbone=runs[0].backbone,
        seeds=tuple(run.seed for run in shown),
        deterministic=deterministic,
        test_selected=any(run.test_selected for run in shown),
        values={column: stat_of(found) for column, found in cells.items()},
        cost={name: spread_of(values) for name, values in costs.items()},
        records=tuple(shown),
    )
    return row, len(records) - len(runs)


def stat_of(cells: Sequence[Cell]) -> Stat:
    """Of one cell over seeds; a single run's keeps its interval over images."""
    if len(cells) == 1:
        return Stat(cells[0].value, 1, low=cells[0].low, high=cells[0].high)
    return spread_of([cell.value for cell in cells])


def spread_of(values: Sequence[float]) -> Stat:
    """Mean and sample standard deviation."""
    return Stat(statistics.fmean(values), len(values), statistics.stdev(values) if len(values) > 1 else None)


def _mark_best(rows: Sequence[Row]) -> list[Row]:
    """Mark the two highest means of each column; rows selected on test boxes do not compete with rows that were not."""
    honest = [row for row in rows if not row.test_selected] or list(rows)
    marks: list[dict[Column, float]] = [{}, {}]
    for column in columns_of(honest):
        means = [row.values[column].mean for row in honest if column in row.values]
        if len(means) > 1 and column.metric not in DESCRIPTIONS:  # the best of one is no finding
            for places, mean in zip(marks, sorted(set(means), reverse=True), strict=False):
                places[column] = mean

    def marked(row: Row) -> Row:
        first, second = (
            frozenset(c for c, mean in places.items() if c in row.values and row.values[c].mean == mean)
            for places in marks
        )
        return replace(row, best=first, second=second)

    return [marked(row) if any(row is each for each in honest) else row for row in rows]
