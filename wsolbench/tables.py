"""How groups of leaderboard rows are written: for the terminal, as markdown, as tidy CSV."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from wsolbench.leaderboard import ANY_BACKBONE, DESCRIPTIONS, Column, Group, Row, Stat, device, leading
from wsolbench.record import RunRecord

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

COSTS = {"train_seconds": "train s", "eval_images_per_second": "images/s", "parameters": "parameters"}

# What a narrow terminal can miss first; the other formats always show everything.
_DISPENSABLE = (
    *DESCRIPTIONS, "Loc@.3", "Loc@.5", "Loc@.7", "mean Loc@.3/.5/.7",
    "pIoU", "Top-5 Cls", "MaxBoxAccV2@.3", "MaxBoxAccV2@.7", "MaxBoxAccV2@.5", "parameters", "eval_images_per_second",
    "MaxBoxAcc", "PxAP", "Top-5 Loc", "train_seconds", "Top-1 Cls", "MaxBoxAccV2",
)  # fmt: skip

_NARROW_METHOD = 21  # longer names wrap where values stand in two lines


class _Head(NamedTuple):
    name: str  # with the dagger of an oracle
    detail: str  # "@val", ".3", "mean" or ""

    def __str__(self) -> str:
        return self.name + self.detail if self.detail.startswith("@") else f"{self.name} {self.detail}".strip()


def _head(column: Column) -> _Head:
    """Column title in two parts. MaxBoxAcc and V2 choose on test by definition: the dagger says so, no selector."""
    metric, _, level = column.metric.partition("@")
    selector = column.title.removeprefix(column.metric)
    if metric.startswith("MaxBoxAcc") and selector == "@test-oracle":
        selector = ""
    if metric == "MaxBoxAccV2":
        level = level or "mean"
    return _Head(metric + ("†" if column.oracle else ""), f"{level}{selector}")


def _mean_and_spread(stat: Stat) -> tuple[str, str]:
    """Percent with one decimal, and "± std" over seeds or the "[low, high]" of a single run."""
    mean = f"{100 * stat.mean:.1f}"
    if stat.std is not None:
        return mean, f"± {100 * stat.std:.1f}"
    if stat.low is not None and stat.high is not None:
        return mean, f"[{100 * stat.low:.1f}, {100 * stat.high:.1f}]"
    return mean, ""


def _cost(row: Row, name: str) -> str:
    stat = row.cost.get(name)
    if stat is None or (name == "train_seconds" and row.deterministic):
        return "-"
    if name == "parameters":
        return f"{stat.mean / 1e6:.2f} M" if stat.mean >= 1e4 else f"{stat.mean:.0f}"
    return f"{stat.mean:,.0f}" if stat.mean >= 10 else f"{stat.mean:.2g}"


def _label(row: Row) -> str:
    return row.label + (" ‡" if row.test_selected else "") + (" (ref)" if row.reference else "")


def _seeds(row: Row) -> str:
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
    return record.ledger.get("test_images") or record.provenance.get("test_images")


def source(group: Group) -> str:
    """Where a group's numbers come from: data, images, commits, seeds, device, weights, search."""
    records = [record for row in group.rows for record in row.records]
    revision = _named(record.provenance.get("data_revision") for record in records)
    images = _named(_test_images(record) for record in records)
    seeds = sorted({seed for row in group.own_rows if not row.deterministic for seed in row.seeds})
    weights = _named(_weights(record) for row in group.own_rows if row.backbone != "-" for record in row.records)
    searches = _named(record.ledger.get("search") for row in group.own_rows for record in row.records)
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


def legend(groups: Sequence[Group], best: str = "*", dropped: Sequence[str] = ()) -> list[str]:
    """One sentence for each sign the tables use; signs that do not occur, or only in `dropped`, are not explained."""
    rows = [row for group in groups for row in group.rows]
    columns = [column for group in groups for column in group.columns if column.metric not in dropped]
    stats = [stat for row in rows for stat in row.values.values()]
    order = dict.fromkeys(str(_head(column)) for group in groups if (column := leading(group.columns)))
    lines = ["Percent; - means no value."]
    if any(stat.std is not None for stat in stats):
        lines.append("± is the sample standard deviation over seeds.")
    if any(stat.low is not None for stat in stats):
        lines.append("[low, high] is the 95 % bootstrap interval over the test images of a single run.")
    if any(column.title.endswith("@val") for column in columns):
        lines.append("@val: the boxes of val chose the threshold, test was only scored.")
    if any(column.oracle for column in columns):
        lines.append("† test boxes or masks choose the threshold: an upper bound, never to be compared with @val.")
    conventions = dict.fromkeys(column.convention for column in columns if column.foreign)
    if conventions:
        lines.append(
            f"[{'], ['.join(conventions)}]: scored by that paper's own rules; compare inside such a column only."
        )
    if any(row.test_selected for row in rows):
        lines.append("‡ the checkpoint or the hyper-parameters saw test boxes.")
    if any(row.best for row in rows):
        lines.append(f"{best} highest mean of its column within its table; no test of significance.")
    if any(row.deterministic for row in rows):
        lines.append("fixed: one run; nothing is trained, so no seed moves the result.")
    if any(row.reference for row in rows):
        lines.append(f'(ref): uses no backbone; repeated from "{ANY_BACKBONE}", never marked.')
    if any(column.metric in DESCRIPTIONS for column in columns):
        lines.append(
            "BoxAcc plateau: share of all thresholds that are next to the best one and within 1 point of MaxBoxAcc; "
            "BoxAcc area: mean box accuracy over all thresholds; neither is marked."
        )
    if any("eval_images_per_second" in row.cost for row in rows):
        lines.append("images/s: during evaluation.")
    if order:
        lines.append(f"Rows are ordered by {' or '.join(order)}.")
    return lines


def to_markdown(groups: Sequence[Group], command: str | None = None) -> str:
    """All columns as GitHub markdown, one table per group, captions below."""
    lines = ["# Leaderboard", ""]
    if command:
        lines += ["Made by:", "", "```", command, "```", ""]
    if not groups:
        return "\n".join([*lines, "No finished runs."]) + "\n"
    lines += [" ".join(legend(groups, best="**Bold**:")), ""]
    for group in groups:
        costs = _costs(group)
        heads = ["method", "seeds", *(str(_head(column)) for column in group.columns), *costs.values()]
        lines += [f"## {group.title.replace(' | ', ' · ')}", ""]
        lines += ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
        for row in group.rows:
            cells = [_label(row).replace("|", "\\|"), _seeds(row)]
            for column in group.columns:
                mean, spread = _mean_and_spread(row.values[column]) if column in row.values else ("-", "")
                cells.append(f"{f'**{mean}**' if column in row.best else mean} {spread}".strip())
            lines.append("| " + " | ".join([*cells, *(_cost(row, name) for name in costs)]) + " |")
        lines += ["", f"{source(group)}.", *(f"\n{note}." for note in group.notes), ""]
    return "\n".join(lines)


def _costs(group: Group) -> dict[str, str]:
    return {name: title for name, title in COSTS.items() if any(_cost(row, name) != "-" for row in group.rows)}


def to_csv(groups: Sequence[Group], command: str | None = None) -> str:
    """One row per method, configuration, backbone and protocol, in full precision (fractions, seconds); no repeats."""
    import pandas as pd

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
                for name in ("mean", "std", "n", "low", "high"):
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
            rows.append(values | ({"command": command} if command else {}))
    # As objects: a missing value must not turn a column of integers into floats.
    return pd.DataFrame(rows, dtype=object).to_csv(index=False, lineterminator="\n")


def print_groups(groups: Sequence[Group], console: Console | None = None) -> None:
    """Print one table per group, in as many columns as the terminal holds, and say what it does not hold."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.text import Text

    if console is None:
        console = Console()
        if not console.is_terminal and "COLUMNS" not in os.environ:
            console = Console(width=200)  # a file or a log has no edge to wrap at
    if not groups:
        console.print("No finished runs.")
        return
    dropped: list[str] = []
    wide = console.options.update(width=10_000)
    # values move to a second line before a metric goes, but what only describes a curve goes before that
    one_line = [(False, 0), (False, len(DESCRIPTIONS))]
    for two_lines, count in (*one_line, *((True, count) for count in range(len(DESCRIPTIONS), len(_DISPENSABLE) + 1))):
        dropped = list(_DISPENSABLE[:count])
        tables = [_table(group, dropped, two_lines) for group in groups]
        if all(Measurement.get(console, wide, table).maximum <= console.width for table in tables):
            break
    missing = {
        str(title): None
        for group in groups
        for key, title in [*((c.metric, _head(c)) for c in group.columns), *_costs(group).items()]
        if key in dropped
    }
    for group, table in zip(groups, tables, strict=True):
        console.print()
        console.print(Text(group.title, style="bold"))
        console.print(table)
        for line in (f"{source(group)}.", *(f"{note}." for note in group.notes)):
            console.print(Text(line, style="dim"))
    console.print()
    console.print(Text(" ".join(legend(groups, dropped=dropped)), style="dim"))
    if missing:
        console.print(
            Text(f"Not shown for want of width: {', '.join(missing)} (--format markdown or csv has all).", style="dim")
        )


def _table(group: Group, dropped: Sequence[str], two_lines: bool) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    columns = [column for column in group.columns if column.metric not in dropped]
    costs = {name: title for name, title in _costs(group).items() if name not in dropped}
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False, header_style="")
    table.add_column("method", overflow="fold", max_width=_NARROW_METHOD if two_lines else None)
    table.add_column("seeds", no_wrap=True)
    for column in columns:
        name, detail = _head(column)
        if name == "MaxBoxAccV2†":  # the widest title would set the width
            name, detail = "MaxBoxAcc", f"V2† {detail}"
        table.add_column(Text(f"{name}\n{detail}".rstrip()), no_wrap=True)
    for title in costs.values():
        table.add_column(title, justify="right", no_wrap=True)
    for row in group.rows:
        cells = []
        for column in columns:
            if column not in row.values:
                cells.append(Text("    -"))
                continue
            mean, spread = _mean_and_spread(row.values[column])
            mark = "*" if column in row.best else " "
            text = Text(f"{mean:>5}{mark}", style="bold" if column in row.best else "")
            if spread:
                text.append("\n" + spread.replace(", ", ",") if two_lines else f" {spread}", style="not bold dim")
            cells.append(text)
        style = "dim" if row.reference else ""
        table.add_row(
            Text(_label(row), style=style), _seeds(row), *cells, *(_cost(row, name) for name in costs), style=style
        )
    return table
