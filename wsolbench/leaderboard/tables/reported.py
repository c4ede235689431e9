"""Published numbers as tables: beside measured ones, alone, and where sources disagree.

No mark stands in them: their protocols differ from row to row, so the highest of a column is no finding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from wsolbench.leaderboard.reported import BACKBONES, DATASETS, METHODS, Contradiction, Reported
from wsolbench.leaderboard.standings import METRICS, Group, Row
from wsolbench.leaderboard.tables.sheets import NOTHING, Document, Field, Head, Line, Sheet

_LEGEND = (
    "(reported): as printed by the sources [1], [2], ... below the tables, under their own protocols; never averaged, "
    "with ours or with each other, and never marked."
)

_DISAGREE = (
    "Numbers of different sources for the same method, backbone, data set and metric, further apart than rounding "
    "explains; the widest first. The sources may mean different protocols: see their notes."
)


@dataclass
class Sources:
    """Sources and how they are cited: [1], [2], ... in order of appearance."""

    numbers: dict[str, int] = field(default_factory=dict)

    def cite(self, entries: Iterable[Reported]) -> str:
        """The numbers of the entries' sources, as "[1, 3]"."""
        found = {self.numbers.setdefault(entry.source, len(self.numbers) + 1) for entry in entries}
        return f"[{', '.join(map(str, sorted(found)))}]"

    def notes(self, entries: Iterable[Reported], limit: int = 3) -> tuple[str, ...]:
        """What each cited source is, and what it says of its protocol."""
        said: dict[str, dict[str, None]] = defaultdict(dict)
        for entry in entries:
            said[entry.source][entry.protocol_note] = None
        lines = []
        for source, number in self.numbers.items():
            notes = list(said.get(source, ()))
            more = [f"{len(notes) - limit} more notes in --format csv"] if len(notes) > limit else []
            if notes:
                lines.append(f"[{number}] {source}; protocol: {'; '.join([*notes[:limit], *more])}".rstrip("."))
        return tuple(lines)


def with_reported(document: Document, groups: Sequence[Group], entries: Sequence[Reported]) -> Document:
    """Add to the tables of `groups` what was published about their methods, and a table of all entries below.

    `document` is `wsolbench.leaderboard.tables.board.document(groups)`: a sheet per group, a line per row, a record per own row.
    """
    sources = Sources()
    sheets = [_joined(sheet, group, entries, sources) for sheet, group in zip(document.sheets, groups, strict=True)]
    own = [(group, row) for group in groups for row in group.own_rows]
    measured = [
        {**record, **_columns_of(_about(group, row, entries), sources)}
        for record, (group, row) in zip(document.records, own, strict=True)
    ]
    parts, legend, early = [*sheets, *reported_sheets(entries, sources)], document.legend, document.early
    if parts:  # below the last table, once
        parts[-1] = replace(parts[-1], notes=(*parts[-1].notes, *sources.notes(entries)))
    return replace(
        document,
        sheets=tuple(parts),
        legend=lambda signs: [*(legend(signs) if groups else ["- means no value."]), _LEGEND],
        records=[*measured, *map(_tidy, entries)],
        empty="No published numbers.",
        dispensable=(*document.dispensable[:early], *_dispensable(entries), *document.dispensable[early:]),
    )


def reported_sheets(entries: Sequence[Reported], sources: Sources) -> list[Sheet]:
    """One table per data set and backbone, a line per method and source."""
    tables: dict[tuple[str, str], list[Reported]] = defaultdict(list)
    for entry in entries:
        tables[entry.dataset, entry.backbone or "backbone not stated"].append(entry)
    return [
        _sheet(f"{dataset} | {backbone} | as published", tables[dataset, backbone], sources)
        for dataset, backbone in sorted(tables)
    ]


def _sheet(title: str, entries: Sequence[Reported], sources: Sources) -> Sheet:
    metrics = _metrics(entries)
    lines: dict[tuple[str, str], list[Reported]] = defaultdict(list)
    for entry in entries:
        lines[entry.method, entry.source].append(entry)
    heads = [Head("method", kind="text"), Head("venue", kind="text", key="venue"), Head("source", kind="text")]
    heads += [Head(_short(metric), "(reported)", key=_key(metric)) for metric in metrics]

    def place(item: tuple[tuple[str, str], list[Reported]]) -> tuple[list[float], str]:
        best = {entry.metric: entry.value for entry in item[1]}
        return [-best.get(metric, -1.0) for metric in metrics], item[0][0]

    shown = []
    for (method, _), same in sorted(lines.items(), key=place):
        venue = Field(f"{same[0].venue} {same[0].year}".strip())
        values = [_field([entry for entry in same if entry.metric == metric]) for metric in metrics]
        shown.append(Line((Field(method), venue, Field(sources.cite(same)), *values)))
    return Sheet(title, tuple(heads), tuple(shown))


def _field(entries: Sequence[Reported]) -> Field:
    """All that was printed for one cell, as it was printed; of equal numbers the one with most decimals."""
    if not entries:
        return NOTHING
    ordered = sorted(entries, key=lambda entry: (entry.value, entry.decimals))
    return Field(" / ".join({entry.value: entry.text for entry in ordered}.values()))


def _joined(sheet: Sheet, group: Group, entries: Sequence[Reported], sources: Sources) -> Sheet:
    """The table of a group with a column for each metric that was published about one of its rows."""
    about = [_about(group, row, entries) for row in group.rows]
    metrics = _metrics([entry for each in about for entry in each])
    if not metrics:
        return sheet
    heads = [Head(_short(metric), "(reported)", key=_key(metric)) for metric in metrics]
    lines = []
    for line, published in zip(sheet.lines, about, strict=True):
        fields = []
        for metric in metrics:
            same = [entry for entry in published if entry.metric == metric]
            fields.append(replace(_field(same), detail=sources.cite(same)) if same else NOTHING)
        lines.append(replace(line, fields=(*line.fields, *fields)))
    return replace(sheet, heads=(*sheet.heads, *heads), lines=tuple(lines))


def _about(group: Group, row: Row, entries: Iterable[Reported]) -> list[Reported]:
    """What was published about the method of a row on its backbone and data set."""
    dataset = DATASETS.get(row.records[0].dataset)
    method, backbone = METHODS.get(row.method), BACKBONES.get(row.backbone)
    return [e for e in entries if (e.dataset, e.method, e.backbone) == (dataset, method, backbone)]


def _metrics(entries: Iterable[Reported]) -> list[str]:
    """Printed metrics in the order of ours, GT-known and Top-k first; others by name."""
    order = {name: place for place, name in enumerate(METRICS)}
    names = {entry.metric: entry.name for entry in entries}
    return sorted(names, key=lambda metric: (order.get(names[metric], len(order)), metric))


def _short(metric: str) -> str:
    return metric.removesuffix(" (mean 30/50/70)")


def _key(metric: str) -> str:
    return f"reported {metric}"


def _dispensable(entries: Sequence[Reported]) -> list[str]:
    """What a narrow terminal drops, the first to go first."""
    loc = ("GT-known Loc", "Top-1 Loc")
    metrics = [metric for metric in reversed(_metrics(entries)) if metric not in loc]
    return [*map(_key, metrics), "venue", _key("Top-1 Loc")]


def _columns_of(published: Sequence[Reported], sources: Sources) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for metric in _metrics(published):
        same = sorted((entry for entry in published if entry.metric == metric), key=lambda entry: entry.value)
        values[f"{metric} reported"] = " ".join(f"{entry.value:.6g}" for entry in same)
        values[f"{metric} reported by"] = " | ".join(dict.fromkeys(entry.source for entry in same))
    return values


def _tidy(entry: Reported) -> dict[str, Any]:
    return {
        "dataset": entry.dataset,
        "backbone": entry.backbone,
        "protocol": "as published",
        "method": entry.method,
        "venue": entry.venue or None,
        "year": entry.year,
        "reported metric": entry.metric,
        "reported value": round(entry.value, 8),
        "protocol_note": entry.protocol_note,
        "source": entry.source,
    }


def contradictions_document(found: Sequence[Contradiction]) -> Document:
    """Cells for which sources print different numbers, the widest spread first."""
    sources = Sources()
    heads = tuple(Head(name, kind="text") for name in ("method", "data set", "backbone", "metric", "printed"))
    lines = []
    for each in found:
        first = each.entries[0]
        numbers: dict[str, list[Reported]] = defaultdict(list)
        for entry in each.entries:
            numbers[entry.text].append(entry)
        printed = ", ".join(f"{text} {sources.cite(same)}" for text, same in numbers.items())
        spread = Field(f"{each.spread if first.is_cosine else 100 * each.spread:.2f}")
        names = (first.method, first.dataset, first.backbone, _short(first.metric), printed)
        lines.append(Line((*map(Field, names), spread)))
    entries = [entry for each in found for entry in each.entries]
    sheet = Sheet(
        "Published numbers that disagree", (*heads, Head("apart", kind="cost")), tuple(lines), sources.notes(entries)
    )
    return Document(
        title="Contradictions",
        sheets=(sheet,) if found else (),
        legend=lambda signs: [_DISAGREE],
        records=[_tidy(entry) | {"apart": round(each.spread, 8)} for each in found for entry in each.entries],
        empty="No published numbers disagree.",
    )
