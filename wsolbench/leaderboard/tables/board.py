"""Groups of leaderboard rows as tables with their captions and legend."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

from wsolbench.leaderboard.standings import ANY_BACKBONE, DESCRIPTIONS, Column, Group, Row, Stat, leading
from wsolbench.leaderboard.tables.sheets import NOTHING, Document, Field, Head, Line, Mark, Sheet, Signs
from wsolbench.leaderboard.variants import device
from wsolbench.record import RunRecord, search_text

Spread: TypeAlias = Literal["std", "t"]
SPREADS: tuple[Spread, ...] = ("std", "t")

COSTS = {"train_seconds": "train s", "eval_images_per_second": "images/s", "parameters": "parameters"}

# What a narrow terminal can miss first; the other formats always show everything.
_DISPENSABLE = (
    *DESCRIPTIONS, "Loc@.3", "Loc@.5", "Loc@.7", "mean Loc@.3/.5/.7",
    "pIoU", "Top-5 Cls", "MaxBoxAccV2@.3", "MaxBoxAccV2@.7", "MaxBoxAccV2@.5", "parameters", "eval_images_per_second",
    "MaxBoxAcc", "PxAP", "Top-5 Loc", "train_seconds", "Top-1 Cls", "MaxBoxAccV2",
)  # fmt: skip


def head_of(column: Column) -> Head:
    """Column title in two parts. MaxBoxAcc and V2 choose on test by definition: the dagger says so, no selector."""
    metric, _, level = column.metric.partition("@")
    selector = column.title.removeprefix(column.metric)
    if metric.startswith("MaxBoxAcc") and selector == "@test-oracle":
        selector = ""
    if metric == "MaxBoxAccV2":
        level = level or "mean"
    return Head(metric + ("†" if column.oracle else ""), f"{level}{selector}", column.metric)


def field_of(stat: Stat | None, marks: Iterable[Mark] = (), spread: Spread = "std") -> Field:
    """Percent with one decimal, and "± spread" over seeds or the "[low, high]" of a single run."""
    if stat is None:
        return NOTHING
    detail, over_seeds = "", stat.half_width if spread == "t" else stat.std
    if over_seeds is not None:
        detail = f"± {100 * over_seeds:.1f}"
    elif stat.low is not None and stat.high is not None:
        detail = f"[{100 * stat.low:.1f}, {100 * stat.high:.1f}]"
    return Field(f"{100 * stat.mean:.1f}", detail, frozenset(marks))


def marks_of(row: Row, column: Column) -> list[Mark]:
    """How the row stands in the column."""
    places: tuple[tuple[Mark, frozenset[Column]], ...] = (
        ("best", row.best),
        ("second", row.second),
        ("tied", row.tied),
    )
    return [mark for mark, columns in places if column in columns]


def _cost(row: Row, name: str) -> str:
    stat = row.cost.get(name)
    if stat is None or (name == "train_seconds" and row.deterministic):
        return "-"
    if name == "parameters":
        return f"{stat.mean / 1e6:.2f} M" if stat.mean >= 1e4 else f"{stat.mean:.0f}"
    return f"{stat.mean:,.0f}" if stat.mean >= 10 else f"{stat.mean:.2g}"


def label_of(row: Row) -> str:
    return row.label + (" ‡" if row.test_selected else "") + (" (ref)" if row.reference else "")


def seeds_of(row: Row) -> str:
    return "fixed" if row.deterministic else str(len(row.seeds))


def _named(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values if value not in (None, "")))


def _commit(record: RunRecord) -> str:
    commit = str(record.provenance.get("commit") or "unknown")[:10]
    return f"{commit} with uncommitted changes" if record.provenance.get("dirty") else commit


def _weights(record: RunRecord) -> str:
    sha256 = record.provenance.get("weights_sha256")
    return str(sha256)[:8] if sha256 else "random" if record.config.get("pretrained") is False else "unknown"


def _test_images(record: RunRecord) -> Any:
    return record.ledger.test_images or record.provenance.get("test_images")


def source(group: Group) -> str:
    """Where a group's numbers come from: data, images, commits, seeds, device, weights, search."""
    records = [record for row in group.rows for record in row.records]
    revision = _named(record.provenance.get("data_revision") for record in records)
    images = _named(_test_images(record) for record in records)
    seeds = sorted({seed for row in group.own_rows if not row.deterministic for seed in row.seeds})
    weights = _named(_weights(record) for row in group.own_rows if row.backbone != "-" for record in row.records)
    searches = _named(search_text(record.ledger.search) for row in group.own_rows for record in row.records)
    parts = [
        f"data revision {revision}" if revision else "",
        f"data fingerprint {group.data[:12]}" if group.data else "",
        f"{images} test images" if images else "",
        f"commit {_named(_commit(record) for record in records)}",
        f"seed{'s' if len(seeds) > 1 else ''} {_named(seeds)}" if seeds else "",
        f"device {_named(device(record) for record in records)}",
        f"weights before training {weights}" if weights else "",
        f"hyper-parameter search: {searches}" if searches else "",
    ]
    return "; ".join(filter(None, parts))


def legend(
    groups: Sequence[Group],
    signs: Signs,
    spread: Spread = "std",
    order: str | None = None,
    costs: bool = True,
    tested: bool = False,
) -> list[str]:
    """One sentence for each sign the tables use; signs that do not occur, or only in what is dropped, are not explained.

    `order` names what the rows are ordered by where it is not the leading column; without `costs` only metrics are shown;
    `tested`: the differences were.
    """
    rows = [row for group in groups for row in group.rows]
    columns = [column for group in groups for column in group.columns if column.metric not in signs.dropped]
    leads = [str(head_of(column)) for group in groups if (column := leading(group.columns))]
    orders = dict.fromkeys([order] if order else leads)
    return [
        "Percent; - means no value.",
        *_of_spreads(rows, spread),
        *_of_choices(rows, columns),
        *_of_marks(rows, signs, tested),
        *_of_kinds_of_rows(rows),
        *_of_quantities(rows if costs else (), columns),
        *([f"Rows are ordered by {' or '.join(orders)}."] if orders else []),
    ]


def _of_spreads(rows: Sequence[Row], spread: Spread) -> Iterator[str]:
    """What stands beside a value."""
    stats = [stat for row in rows for stat in row.values.values()]
    if any(stat.std is not None for stat in stats):
        told = {"std": "the sample standard deviation over seeds", "t": "half of the 95 % t-interval over seeds"}
        yield f"± is {told[spread]}."
    if any(stat.low is not None for stat in stats):
        yield "[low, high] is the 95 % bootstrap interval over the test images of a single run."


def _of_choices(rows: Sequence[Row], columns: Sequence[Column]) -> Iterator[str]:
    """Who chose thresholds and checkpoints, and by whose rules a column was scored."""
    if any(column.title.endswith("@val") for column in columns):
        yield "@val: the boxes of val chose the threshold, test was only scored."
    if any(column.oracle for column in columns):
        yield "† test boxes or masks choose the threshold: an upper bound, never to be compared with @val."
    conventions = dict.fromkeys(column.convention for column in columns if column.foreign)
    if conventions:
        yield f"[{'], ['.join(conventions)}]: scored by that paper's own rules; compare inside such a column only."
    if any(row.test_selected for row in rows):
        yield "‡ the checkpoint or the hyper-parameters saw test boxes."


def _of_marks(rows: Sequence[Row], signs: Signs, tested: bool) -> Iterator[str]:
    """What a marked value is."""
    if any(row.best for row in rows):
        proof = "" if tested else "; no test of significance"
        yield f"{signs.best} highest mean of its column within its table{proof}."
    if signs.second and any(row.second for row in rows):
        yield f"{signs.second} second highest."
    if any(row.tied for row in rows):
        yield f"{signs.tied} not told from the best one at the 5 % level (see the comparisons)."


def _of_kinds_of_rows(rows: Sequence[Row]) -> Iterator[str]:
    if any(row.deterministic for row in rows):
        yield "fixed: one run; nothing is trained, so no seed moves the result."
    if any(row.reference for row in rows):
        yield f'(ref): uses no backbone; repeated from "{ANY_BACKBONE}", never marked.'


def _of_quantities(rows: Sequence[Row], columns: Sequence[Column]) -> Iterator[str]:
    """What a column measures where its title does not say it; `rows`: whose costs are shown."""
    if any(column.metric in DESCRIPTIONS for column in columns):
        yield (
            "BoxAcc plateau: share of all thresholds that are next to the best one and within 1 point of MaxBoxAcc; "
            "BoxAcc area: mean box accuracy over all thresholds; neither is marked."
        )
    if any("eval_images_per_second" in row.cost for row in rows):
        yield "images/s: during evaluation."


def document(groups: Sequence[Group], spread: Spread = "std", order: str | None = None) -> Document:
    """The tables of all groups; as tidy rows one per method, configuration, backbone and protocol, without repeats."""
    return Document(
        title="Leaderboard",
        sheets=tuple(_sheet(group, spread) for group in groups),
        legend=partial(legend, groups, spread=spread, order=order),
        records=_tidy(groups),
        dispensable=_DISPENSABLE,
        early=len(DESCRIPTIONS),
    )


def _sheet(group: Group, spread: Spread) -> Sheet:
    costs = _costs(group)
    heads = [Head("method", kind="text"), Head("seeds", kind="text"), *map(head_of, group.columns)]
    heads += [Head(title, key=name, kind="cost") for name, title in costs.items()]
    lines = []
    for row in group.rows:
        values = [field_of(row.values.get(column), marks_of(row, column), spread) for column in group.columns]
        fields = Field(label_of(row)), Field(seeds_of(row)), *values, *(Field(_cost(row, name)) for name in costs)
        lines.append(Line(fields, row.reference))
    return Sheet(group.title, tuple(heads), tuple(lines), (source(group), *group.notes))


def _costs(group: Group) -> dict[str, str]:
    return {name: title for name, title in COSTS.items() if any(_cost(row, name) != "-" for row in group.rows)}


def _tidy(groups: Sequence[Group]) -> list[dict[str, Any]]:
    columns = list(dict.fromkeys(column for group in groups for column in group.columns))
    costs = list(dict.fromkeys(name for group in groups for row in group.rows for name in row.cost))
    rows = []
    for group in groups:
        for row in group.own_rows:
            record = row.records[0]
            values: dict[str, Any] = {
                "dataset": group.dataset,
                "backbone": row.backbone,
                "protocol": group.protocol,
                "method": row.method,
                "variant": row.variant or None,
                "seeds": " ".join(map(str, row.seeds)),
                "n": len(row.seeds),
                "deterministic": row.deterministic,
                "test_selected": row.test_selected,
            }
            for column in columns:
                stat = row.values.get(column)
                oracle = " (test-oracle)" if column.oracle and "test-oracle" not in column.title else ""
                for name in ("mean", "std", "n", "low", "high", "half_width"):
                    values[f"{column.title}{oracle} {name}"] = None if stat is None else getattr(stat, name)
            for cost in costs:
                for name in ("mean", "std"):
                    values[f"{cost} {name}"] = getattr(row.cost[cost], name) if cost in row.cost else None
            values |= {
                "data_revision": record.provenance.get("data_revision"),
                "data_fingerprint": group.data or None,
                "test_images": _test_images(record),
                "commit": _named(run.provenance.get("commit") for run in row.records) or None,
                "dirty": any(bool(run.provenance.get("dirty")) for run in row.records),
                "device": device(record),
            }
            rows.append(values)
    return rows
