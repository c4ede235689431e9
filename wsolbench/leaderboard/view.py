"""What `wsolbench leaderboard` shows: finished runs, selected, then as tables, pivot, comparisons, or beside published numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from wsolbench.errors import UsageError, WsolbenchError, unknown
from wsolbench.leaderboard.formats import show, write
from wsolbench.leaderboard.groups import summarise
from wsolbench.leaderboard.records import find_records
from wsolbench.leaderboard.reported import contradictions, read_reported
from wsolbench.leaderboard.selection import Selection, sort_groups
from wsolbench.leaderboard.standings import leading
from wsolbench.leaderboard.tables.board import SPREADS, Spread, document
from wsolbench.leaderboard.tables.sheets import Document
from wsolbench.record import RunRecord

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class View:
    """What was asked for. At most one of `pivot`, `compare`, `contradictions` and `matrix` is."""

    selection: Selection = field(default_factory=Selection)
    pivot: str | None = None
    sort: str | None = None
    spread: Spread = "std"
    reported: bool = False
    contradictions: bool = False
    matrix: bool = False
    compare: tuple[str, ...] | None = None  # methods; none: all pairs of each group
    force: bool = False

    def check(self) -> None:
        """Refuse what cannot be had together, before anything is read."""
        if self.pivot is not None:
            from wsolbench.leaderboard.tables.pivot import check_axis

            check_axis(self.pivot)
        if self.spread not in SPREADS:
            raise unknown("spread", self.spread, SPREADS)
        asked = {
            "--pivot": self.pivot is not None,
            "--compare": self.compare is not None,
            "--contradictions": self.contradictions,
            "--matrix": self.matrix,
        }
        views = [flag for flag, given in asked.items() if given]
        if len(views) > 1:
            raise UsageError(f"{' and '.join(views)} are different tables: ask for one of them")
        for flag, given in (("--sort", self.sort is not None), ("--reported", self.reported)):
            if given and views:
                raise UsageError(f"{flag} does not go with {views[0]}: leave one of them out")
        if self.force and self.compare is None:
            raise UsageError("--force is about --compare: name the methods to compare")


def build(results: Path, view: View) -> Document:
    """Read the finished runs below `results` and show them; published numbers need none.

    Raises:
        UsageError: a name does not exist, or the folder does not.
        WsolbenchError: there is nothing to show.
    """
    view.check()
    entries = read_reported() if view.reported or view.contradictions else []
    runs: Mapping[Path, RunRecord] = {}
    if not view.contradictions:
        runs = _runs(results, view)
    records = list(runs.values())
    view.selection.check(records, entries)
    published = view.selection.reported(entries)
    if view.contradictions:
        from wsolbench.leaderboard.tables.reported import contradictions_document

        return contradictions_document(contradictions(published))
    selected = view.selection.records(records)
    if view.compare is not None:
        return _compared(selected, runs, view)
    if view.matrix:
        from wsolbench.leaderboard.tables.matrix import METRICS, matrix_document

        return matrix_document(selected, view.selection.metrics_among(METRICS), view.spread)
    groups = view.selection.groups(summarise(selected))
    if not groups and not published:
        raise WsolbenchError(f"no finished run in '{results}' is all of what was asked for")
    if view.pivot is not None:
        from wsolbench.leaderboard.tables.pivot import pivot

        return pivot(groups, view.pivot, chosen=bool(view.selection.metrics), spread=view.spread)
    order = None
    if view.sort is not None:
        groups, order = sort_groups(groups, view.sort)
    shown = document(groups, view.spread, order)
    if not view.reported:
        return shown
    from wsolbench.leaderboard.tables.reported import with_reported

    return with_reported(shown, groups, published)


def _runs(results: Path, view: View) -> dict[Path, RunRecord]:
    if not results.is_dir():
        if view.reported:
            return {}
        raise UsageError(f"'{results}' is no folder of results; 'wsolbench run --methods A,B' makes one")
    runs = find_records(results)
    if not runs and not view.reported:
        raise WsolbenchError(f"'{results}' holds no finished run; 'wsolbench run --methods A,B' makes some")
    return runs


def _compared(selected: list[RunRecord], runs: Mapping[Path, RunRecord], view: View) -> Document:
    from wsolbench.leaderboard.comparison import (
        Outcomes,
        across_conventions,
        check_methods,
        compare,
        corrected,
        key_of,
        tie_marks,
    )
    from wsolbench.leaderboard.tables.comparison import Compared, comparison_document

    methods = view.compare or ()
    kept = [record for record in selected if not methods or record.method in methods]
    groups = view.selection.groups(summarise(kept, any_data=view.force))
    check_methods(groups, methods, selected, view.force)
    outcomes = Outcomes({key_of(record): path for path, record in runs.items()})
    found = []
    for group in groups:
        lead = leading(group.columns)
        columns = list(group.columns) if view.selection.metrics else [lead] if lead else []
        pairs = [pair for column in columns for pair in compare(group, column, outcomes, methods)]
        pairs += across_conventions(group, methods, columns, view.force)
        if pairs:
            pairs = corrected(pairs)
            found.append(Compared(tie_marks(replace(group, columns=tuple(columns)), pairs), tuple(pairs)))
    if not found:
        raise WsolbenchError("no two of these runs share data set, backbone, protocol and a number to compare")
    return comparison_document(found, view.spread)


def render(records: Iterable[RunRecord], format: str = "table", console: Console | None = None) -> str | None:
    """Show records as "table" (printed; returns None) or as the text of another of `wsolbench.leaderboard.formats.FORMATS`."""
    return show(document(summarise(records)), format, console)


def write_results(records: Iterable[RunRecord], folder: Path, command: str) -> list[Path]:
    """Write `leaderboard.md` and `leaderboard.csv` into `folder`, atomically, with the `command` that made the runs."""
    return write(document(summarise(records)), folder, command)
