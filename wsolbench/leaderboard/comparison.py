"""Which differences between the methods of a group are more than chance, and what may not be compared at all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from wsolbench.config.selectors import parse_threshold
from wsolbench.errors import UsageError, WsolbenchError, unknown
from wsolbench.evaluation.cells import RESAMPLES
from wsolbench.evaluation.levels import Levels, load_levels
from wsolbench.evaluation.resampling import Floats
from wsolbench.leaderboard.groups import data_of
from wsolbench.leaderboard.paired import LEVEL, Paired, holm, paired_test, statistic_of, value_of
from wsolbench.leaderboard.standings import Column, Group, Row
from wsolbench.record import Cell, RunRecord


@dataclass(frozen=True)
class Comparison:
    """One pair of rows in one column. `result` is None where no test is possible, for the reason in `problem`."""

    first: Row
    second: Row
    title: str  # of the column
    result: Paired | None
    difference: float  # of the means over the seeds compared
    seeds: tuple[int, ...] = ()
    images: int = 0
    column: Column | None = None
    adjusted: float | None = None  # p-value after Holm's correction over the table
    problem: str = ""

    @property
    def significant(self) -> bool:
        """More than chance, at the 5 % level, corrected for all pairs of the table."""
        return self.adjusted is not None and self.adjusted < LEVEL


class Outcomes:
    """Stored outcomes of runs, read once; resampled once per cell, with the same images for all runs."""

    def __init__(self, directories: Mapping[tuple[str, str], Path]) -> None:
        self._directories = directories  # by path and hash: see `key_of`
        self._levels: dict[tuple[str, str], Levels] = {}
        self._resampled: dict[tuple[tuple[str, str], Column], tuple[float, Floats]] = {}

    def levels(self, record: RunRecord) -> Levels:
        """Outcomes of the evaluated split.

        Raises:
            WsolbenchError: they are not there or cannot be read.
        """
        key = key_of(record)
        if key not in self._levels:
            path = self._directories[key] / "levels.npz" if key in self._directories else None
            try:
                if path is None:
                    raise FileNotFoundError("no run directory")
                splits = load_levels(path)
                self._levels[key] = splits[split_of(record)]
            except (OSError, ValueError, KeyError, TypeError, WsolbenchError) as error:
                raise WsolbenchError(
                    f"{_named(record)}: its outcomes per image cannot be read from '{path}' ({error}); run it again "
                    "with --rerun, or leave it out with --method"
                ) from error
        return self._levels[key]

    def resampled(self, record: RunRecord, column: Column) -> tuple[float, Floats]:
        """The value of a run in a column, and in each resample of the images [R].

        Raises:
            WsolbenchError: the run has no such value, or its files contradict each other.
        """
        key = key_of(record), column
        if key not in self._resampled:
            levels, cell = self.levels(record), _cell(record, column)
            if cell is None:
                raise WsolbenchError(f"{_named(record)} has no value for {column.title}")
            statistic = statistic_of(levels, cell, _interval(record), _candidates(record, cell))
            value = value_of(statistic, len(levels))
            if abs(value - cell.value) > 1e-9:
                raise WsolbenchError(
                    f"{_named(record)}: {column.title} is {cell.value:.6f} in its record.json and {value:.6f} in its "
                    "levels.npz, so one of them is damaged or of another run; run it again with --rerun"
                )
            self._resampled[key] = value, levels.resample(statistic, RESAMPLES)
        return self._resampled[key]


def key_of(record: RunRecord) -> tuple[str, str]:
    """What tells a run from all others."""
    return f"{record.dataset}/{record.method}/{record.backbone}/{record.protocol}/{record.seed}", record.hash


def split_of(record: RunRecord) -> str:
    """The split that a run was scored on."""
    return str(record.config.get("split") or "test")


def compare(group: Group, column: Column, outcomes: Outcomes, methods: Sequence[str] = ()) -> list[Comparison]:
    """Compare all pairs of the group's rows that have a value in the column, corrected for as many tests.

    Rows repeated from other groups for reference take part where `methods` names them. Without names, all own rows do.
    """
    rows = [
        row for row in group.rows if column in row.values and (row.method in methods if methods else not row.reference)
    ]
    return corrected([_compared(first, second, column, outcomes) for first, second in combinations(rows, 2)])


def corrected(found: Sequence[Comparison]) -> list[Comparison]:
    """Correct the p-values of comparisons for their number (Holm)."""
    adjusted = iter(holm([each.result.p for each in found if each.result is not None]))
    return [each if each.result is None else replace(each, adjusted=next(adjusted)) for each in found]


def _compared(first: Row, second: Row, column: Column, outcomes: Outcomes) -> Comparison:
    pairs = [pair for pair in _same_seeds(first, second) if all(_cell(run, column) is not None for run in pair)]
    if not pairs:
        apart = first.values[column].mean - second.values[column].mean
        return Comparison(first, second, column.title, None, apart, column=column, problem="no seed in common")
    observed, draws = [], []
    for a, b in pairs:
        check_same_images(a, b, outcomes)
        (value_a, draws_a), (value_b, draws_b) = outcomes.resampled(a, column), outcomes.resampled(b, column)
        observed.append(value_a - value_b)
        draws.append(draws_a - draws_b)
    result = paired_test(observed, np.stack(draws))
    both = first.deterministic and second.deterministic
    seeds = () if both else tuple(b.seed if first.deterministic else a.seed for a, b in pairs)
    images = len(outcomes.levels(pairs[0][0]))
    return Comparison(first, second, column.title, result, result.difference, seeds, images, column)


def _same_seeds(first: Row, second: Row) -> list[tuple[RunRecord, RunRecord]]:
    """Runs of the two rows with the same seed: they share drawn images, and post-hoc methods their classifier."""
    if first.deterministic:
        return [(first.records[0], record) for record in second.records]
    if second.deterministic:
        return [(record, second.records[0]) for record in first.records]
    others = {record.seed: record for record in second.records}
    return [(record, others[record.seed]) for record in first.records if record.seed in others]


def check_same_images(first: RunRecord, second: RunRecord, outcomes: Outcomes) -> None:
    """Refuse runs that were not scored on the same images in the same order: nothing could be paired."""
    ids, others = outcomes.levels(first).ids, outcomes.levels(second).ids
    if not np.array_equal(ids, others):
        raise WsolbenchError(
            f"{_named(first)} and {_named(second)} were scored on different images ({len(ids)} and {len(others)}, "
            f"{len(np.intersect1d(ids, others))} in common), so they cannot be compared in pairs, with --force neither"
        )


def tie_marks(group: Group, found: Iterable[Comparison]) -> Group:
    """Mark the rows that the tests did not tell from a best one, inside the group only."""
    tied: dict[str, set[Column]] = {}
    for each in found:
        if each.result is None or each.column is None or each.significant:
            continue
        for row, other in ((each.first, each.second), (each.second, each.first)):
            if each.column in other.best and each.column not in row.best and not (row.reference or row.test_selected):
                tied.setdefault(row.label, set()).add(each.column)
    return replace(group, rows=tuple(replace(row, tied=frozenset(tied.get(row.label, ()))) for row in group.rows))


def across_conventions(
    group: Group, methods: Sequence[str], columns: Sequence[Column], forced: bool
) -> list[Comparison]:
    """Pairs of the named methods that share none of the columns, but the same metric by different evaluators' rules.

    Raises:
        WsolbenchError: there are such, and their comparison is not `forced`.
    """
    rows = [row for row in group.rows if row.method in methods]
    found = []
    for first, second in combinations(rows, 2):
        ours, theirs = ([column for column in columns if column in row.values] for row in (first, second))
        if set(ours) & set(theirs):
            continue
        for a, b in ((a, b) for a in ours for b in theirs if a.metric == b.metric and a.convention != b.convention):
            if not forced:
                raise WsolbenchError(
                    f"'{first.label}' has {a.title} ({a.convention} rules) and '{second.label}' has {b.title} "
                    f"({b.convention} rules): different conventions are not comparable; --force shows their difference, "
                    "marked and without a test"
                )
            apart = first.values[a].mean - second.values[b].mean
            problem = "different conventions, forced"
            found.append(Comparison(first, second, f"{a.title} / {b.title}", None, apart, problem=problem))
    return found


def check_methods(groups: Sequence[Group], methods: Sequence[str], records: Sequence[RunRecord], forced: bool) -> None:
    """Refuse methods that have no run, and methods no two of which stand in one group: says what keeps them apart."""
    known = {record.method for record in records}
    for name in methods:
        if name not in known:
            raise unknown("method", name, known, " among the finished runs")
    if len(set(methods)) == 1:
        raise UsageError(f"--compare {methods[0]}: name a second method, or none to compare all. Known: {_list(known)}")
    for group in groups:
        if len({row.method for row in group.rows if row.method in methods}) > 1 or not methods:
            return
    raise WsolbenchError(_apart(methods, records, forced))


def _apart(methods: Sequence[str], records: Sequence[RunRecord], forced: bool) -> str:
    places: dict[str, dict[tuple[str, str, str], set[str]]] = {name: {} for name in methods}
    for record in records:
        if record.method in places:
            place = record.dataset, record.backbone, record.protocol
            places[record.method].setdefault(place, set()).add(data_of(record))
    for first, second in combinations(methods, 2):
        for place in places[first]:
            if place in places[second] and not forced:
                return (
                    f"'{first}' and '{second}' were run on different data ({', '.join(sorted(places[first][place]))}; "
                    f"{', '.join(sorted(places[second][place]))}), so their numbers are not comparable; --force compares "
                    "them all the same, and marks it"
                )
    told = "; ".join(f"{name}: {', '.join(' | '.join(place) for place in found)}" for name, found in places.items())
    return f"no two of these methods share data set, backbone and protocol, so they are not comparable ({told})"


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _interval(record: RunRecord) -> float:
    return float((record.config.get("evaluate") or {}).get("interval", 0.01))


def _candidates(record: RunRecord, cell: Cell) -> tuple[float, ...]:
    """The thresholds an oracle chose among, where a list of them was given: by name of a convention, or one by one."""
    if not (cell.threshold_by or "").startswith("test-oracle:"):
        return ()
    selector = parse_threshold(cell.threshold_by or "")
    return selector.settings(record.dataset, record.backbone, _interval(record)).candidates


def _cell(record: RunRecord, column: Column) -> Cell | None:
    return next((cell for cell in record.cells if Column.of(cell) == column and math.isfinite(cell.value)), None)


def _named(record: RunRecord) -> str:
    return f"run {record.method} ({record.backbone}, {record.protocol}, seed {record.seed}, {record.hash[:8]})"
