"""Methods as rows, one axis as columns, one metric in the fields: how a method fares across backbones or protocols."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from wsolbench.errors import WsolbenchError, unknown
from wsolbench.leaderboard.groups import spread_of
from wsolbench.leaderboard.standings import ANY_BACKBONE, Column, Group, Row, leading
from wsolbench.leaderboard.tables.board import Spread, field_of, head_of, label_of, legend, marks_of, seeds_of, source
from wsolbench.leaderboard.tables.sheets import Document, Field, Head, Line, Sheet

AXES = ("backbone", "dataset", "protocol")
ENOUGH = 4  # pretraining seeds of one backbone; fewer are listed one by one, not averaged
_SEEDED = re.compile(r"(.+)\.s\d+")


@dataclass(frozen=True)
class Place:
    """A column of a pivot: one group's numbers in one of its columns, or several groups' whose backbones are averaged."""

    value: str  # of the axis
    column: Column
    rows: dict[str, Row]  # by label
    made: str = ""  # where the numbers come from


def check_axis(axis: str) -> None:
    """Refuse an axis that does not exist."""
    if axis not in AXES:
        raise unknown("pivot", axis, AXES)


def pivot(groups: Sequence[Group], axis: str, *, chosen: bool, spread: Spread = "std") -> Document:
    """One table per combination of the other two axes.

    Args:
        groups: as summarised and selected.
        axis: one of `AXES`.
        chosen: show every column the groups have; else the one each is ordered by.
        spread: over seeds, as in `wsolbench.leaderboard.tables.board.document`.

    Raises:
        WsolbenchError: there is no number to show.
    """
    check_axis(axis)
    others = [name for name in AXES if name != axis]
    sheets: dict[tuple[str, ...], list[Group]] = defaultdict(list)
    for group in groups:
        if not (axis == "backbone" and group.backbone == ANY_BACKBONE):  # its rows are in the other groups already
            sheets[tuple(_axis(group, name) for name in others)].append(group)
    parts: list[Sheet] = []
    records: list[dict[str, Any]] = []
    for key, members in sheets.items():
        places = _places(members, axis, chosen)
        if places:
            parts.append(_sheet(" | ".join(key), places, axis, spread))
            records += _tidy(dict(zip(others, key, strict=True)), places, axis)
    if groups and not parts:
        raise WsolbenchError(f"no finished run has a localisation metric to compare by {axis}")
    return Document(
        title=f"Leaderboard by {axis}",
        sheets=tuple(parts),
        legend=partial(legend, groups, spread=spread, order="the first column that has a value", costs=False),
        records=records,
    )


def _axis(group: Group, name: str) -> str:
    return str(getattr(group, name))


def _places(groups: Sequence[Group], axis: str, chosen: bool) -> list[Place]:
    places = []
    for group in groups:
        lead = leading(group.columns)
        for column in group.columns:
            if column == lead or (chosen and not column.foreign):
                rows = {label_of(row): row for row in group.rows if column in row.values}
                places.append(Place(_axis(group, axis), column, rows, source(group)))
    return places + (_averages(places) if axis == "backbone" else [])


def _averages(places: Sequence[Place]) -> list[Place]:
    """Means over pretraining seeds of one backbone where there are enough; methods that ran on all of them only."""
    families: dict[tuple[str, Column], list[Place]] = defaultdict(list)
    for place in places:
        if found := _SEEDED.fullmatch(place.value):
            families[found[1], place.column].append(place)
    means = []
    for (name, column), members in families.items():
        if len(members) < ENOUGH:
            continue
        shared = [label for label in members[0].rows if all(label in member.rows for member in members)]
        rows = {
            label: replace(
                members[0].rows[label],
                values={column: spread_of([member.rows[label].values[column].mean for member in members])},
                best=frozenset(),
                second=frozenset(),
            )
            for label in shared
        }
        means.append(Place(f"{name}, mean of {len(members)} backbone seeds", column, rows))
    return means


def _sheet(title: str, places: Sequence[Place], axis: str, spread: Spread) -> Sheet:
    heads = [Head("method", kind="text"), Head("seeds", kind="text")]
    heads += [Head(place.value, str(head_of(place.column))) for place in places]
    lines = []
    for label in _labels(places):
        rows = [place.rows.get(label) for place in places]
        values = [
            field_of(None) if row is None else field_of(row.values[p.column], marks_of(row, p.column), spread)
            for row, p in zip(rows, places, strict=True)
        ]
        shown = [row for row in rows if row is not None]
        seeds = "/".join(dict.fromkeys(seeds_of(row) for row in shown))
        lines.append(Line((Field(label), Field(seeds), *values), all(row.reference for row in shown)))
    families = [found[1] for place in places if axis == "backbone" and (found := _SEEDED.fullmatch(place.value))]
    few = [
        name
        for name in dict.fromkeys(families)
        if 1 < len({p.value for p in places if p.value.startswith(f"{name}.s")}) < ENOUGH
    ]
    notes = [
        f"{name}: fewer than {ENOUGH} pretraining seeds of one backbone, listed one by one and not averaged"
        for name in few
    ]
    made = dict.fromkeys(f"{place.value}: {place.made}" for place in places if place.made)
    return Sheet(title, tuple(heads), tuple(lines), (*notes, *made))


def _labels(places: Sequence[Place]) -> list[str]:
    """Rows by the first column in which they have a value, references below."""
    rows = {label: row for place in places for label, row in place.rows.items()}

    def place_of(label: str) -> tuple[bool, int, float, str]:
        index, mean = next((i, p.rows[label].values[p.column].mean) for i, p in enumerate(places) if label in p.rows)
        return rows[label].reference, index, -mean, label

    return sorted(rows, key=place_of)


def _tidy(fixed: dict[str, str], places: Sequence[Place], axis: str) -> list[dict[str, Any]]:
    records = []
    for place in places:
        for row in place.rows.values():
            stat = row.values[place.column]
            records.append(
                {**fixed, axis: place.value, "method": row.method, "variant": row.variant or None}
                | {"metric": place.column.title, "oracle": place.column.oracle, "test_selected": row.test_selected}
                | {"mean": stat.mean, "std": stat.std, "n": stat.n, "low": stat.low, "high": stat.high}
            )
    return records
