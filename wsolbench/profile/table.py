"""A profile on the terminal: a table per backbone, with the columns that tell its rows apart."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wsolbench.profile.rows import Measurement
from wsolbench.profile.timing import PRECISION
from wsolbench.profile.work import WORKS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

COLUMNS = (
    "method",
    "work",
    "batch",
    "numbers",
    "images/s",
    "median ms",
    "p10-p90 ms",
    "GFLOP",
    "GFLOP/s",
    "J/image",
    "peak MiB",
    "params",
    "trainable",
)
# Where a terminal is narrow; the rest makes about 70 columns
DROPPED_FIRST = ("trainable", "params", "p10-p90 ms", "GFLOP", "J/image", "GFLOP/s", "peak MiB")
MAY_BE_EMPTY = ("J/image", "GFLOP", "GFLOP/s", "peak MiB", "trainable")


def print_profile(lines: Sequence[Measurement], facts: Mapping[str, Any]) -> None:
    """Print a table per backbone; kinds of work and batch sizes are set apart, fastest first.

    A narrow terminal gets fewer columns, and is told which are missing.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=120)
    missing: dict[str, None] = {}
    for backbone in dict.fromkeys(line.backbone for line in lines):
        rows = [line for line in lines if line.backbone == backbone]
        sizes = ", ".join(dict.fromkeys(line.image_size for line in rows))
        console.print(Text(f"{'no network' if backbone == '-' else backbone}, images {sizes}"))
        table, left_out = _fitting(rows, console)
        missing |= dict.fromkeys(left_out)
        console.print(table)
        console.print()
    for sentence in captions(lines, facts, [title for title in COLUMNS if title in missing]):
        console.print(Text(sentence, style="dim"))


def _fitting(rows: Sequence[Measurement], console: Console) -> tuple[Table, list[str]]:
    """The table of the columns for which there is room, and those for which there is none."""
    cells = [_cells(line) for line in rows]
    columns = [
        title for title in COLUMNS if title not in MAY_BE_EMPTY or any(row[title] not in ("-", "0") for row in cells)
    ]
    left_out: list[str] = []
    while True:
        table = _table(rows, columns)
        wanted = console.measure(table, options=console.options.update(width=10_000)).maximum
        droppable = next((title for title in DROPPED_FIRST if title in columns), None)
        if wanted <= console.width or droppable is None:
            return table, left_out
        columns.remove(droppable)
        left_out.append(droppable)


def _table(lines: Sequence[Measurement], columns: Sequence[str]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False, header_style="")
    for title in columns:
        is_name = title in ("method", "work", "numbers")
        table.add_column(title, justify="left" if is_name else "right", no_wrap=True)
    ordered = sorted(lines, key=lambda line: (*_section(line), -(line.images_per_second or 0)))
    for number, line in enumerate(ordered):
        following = ordered[number + 1] if number + 1 < len(ordered) else line
        row = _cells(line)
        table.add_row(*(Text(row[title]) for title in columns), end_section=_section(line) != _section(following))
    return table


def _section(line: Measurement) -> tuple[int, int]:
    return WORKS.index(line.work), line.batch_size


def _cells(line: Measurement) -> dict[str, str]:
    figures = [line.status.split(":")[0], "-", "-"]
    if line.images_per_second is not None and line.median_ms is not None:
        figures = [
            _short(line.images_per_second),
            ("" if line.settled else "~") + _short(line.median_ms),
            f"{_short(line.p10_ms)}-{_short(line.p90_ms)}",
        ]
    gflops = None if line.flops_per_image is None else line.flops_per_image / 1e9
    texts = (
        line.method,
        line.work,
        str(line.batch_size),
        line.numerics,
        *figures,
        _short(gflops),
        _short(line.gflops_per_second),
        _short(line.joules_per_image),
        _memory(line),
        _count(line.parameters),
        _count(line.trainable),
    )
    return dict(zip(COLUMNS, texts, strict=True))


def captions(lines: Sequence[Measurement], facts: Mapping[str, Any], missing: Sequence[str] = ()) -> list[str]:
    """What the tables do not say themselves, a sentence or two each."""
    works = {line.work for line in lines}
    meaning = {
        "forward": "forward is images to logits, by the method's classifier or else a plain one on its backbone",
        "localize": "localize is forward and map",
        "boxes": "boxes is one map to the boxes of all thresholds, on one thread of the CPU",
        "train": "train is forward, backward and AdamW",
    }
    threads = f"{facts['threads']} thread{'s' * (facts['threads'] != 1)}"
    meanings = "; ".join(text for work, text in meaning.items() if work in works)
    where = f"{facts['device_name']} ({facts['device']}, {threads}), torch {facts['torch']}"
    told = [f"{where}, random images and weights. Times are of a whole batch; {meanings}."]
    if any(line.median_ms is not None and not line.settled for line in lines):
        told.append(f"~ the time ran out before the median was known to {PRECISION:.0%}.")
    if any(line.flops_per_image is not None for line in lines):
        told.append(
            "GFLOP is per image: convolutions and matrix products, a multiply-add as two; GFLOP/s what was reached."
        )
    kinds = dict.fromkeys(line.memory_is for line in lines if line.peak_memory_mib is not None)
    if kinds:
        share = "in brackets what the calls added to weights" + (" and libraries" if facts["device"] == "cpu" else "")
        told.append(f"Peak memory is {' or '.join(kinds)}, {share}.")
    for what, reasons in (
        ("Peak memory", {line.memory_is for line in lines}),
        ("Energy", {line.energy_is for line in lines}),
    ):
        told += [f"{what} {reason}." for reason in sorted(reasons) if reason.startswith("not measured")]
    counters = dict.fromkeys(line.energy_is for line in lines if line.joules_per_image is not None)
    told += [f"Energy is of {counter}, idle power included." for counter in counters]
    if missing:
        told.append(f"Not shown for want of width: {', '.join(missing)} (the CSV has all).")
    return told + list(dict.fromkeys(_reason(line) for line in lines if ":" in line.status))


def _reason(line: Measurement) -> str:
    if line.status.startswith("not measured"):  # for all methods alike
        return f"{line.numerics} {line.status.rstrip('.')}."
    return f"{line.method}, {line.work}, batch {line.batch_size}, {line.numerics}: {line.status.rstrip('.')}."


def _short(value: float | None) -> str:
    """Three digits, more before the point where there are."""
    if value is None:
        return "-"
    if value < 0.1:
        return f"{value:.2g}"
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def _memory(line: Measurement) -> str:
    if line.peak_memory_mib is None:
        return "-"
    return f"{line.peak_memory_mib:,.0f} (+{line.peak_memory_mib - (line.memory_floor_mib or 0):,.0f})"


def _count(value: int) -> str:
    return f"{value / 1e6:.2f} M" if value >= 10_000 else str(value)
