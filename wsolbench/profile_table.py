"""A profile for the terminal and as CSV."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from wsolbench.atomic import atomically
from wsolbench.profile import PRECISION, Measurement, context, device_name
from wsolbench.registry import slug

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = (
    "method",
    "backbone",
    "work",
    "batch",
    "images/s",
    "median ms",
    "p10-p90 ms",
    "peak MiB",
    "params",
    "trainable",
)
DROPPED_FIRST = ("trainable", "params", "p10-p90 ms", "peak MiB")  # where a terminal is narrow


def print_profile(lines: Sequence[Measurement], device: torch.device) -> None:
    """Print one table; batch sizes and kinds of work are set apart, fastest method first.

    A narrow terminal gets fewer columns, and is told which are missing.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=120)
    columns = list(COLUMNS)
    table = _table(lines, columns)
    for title in DROPPED_FIRST:
        if console.measure(table, options=console.options.update(width=10_000)).maximum <= console.width:
            break
        columns.remove(title)
        table = _table(lines, columns)
    console.print(table)
    captions = _captions(lines, device)
    if missing := [title for title in COLUMNS if title not in columns]:
        captions.append(f"Not shown for want of width: {', '.join(missing)} (the CSV has all).")
    for sentence in captions:
        console.print(Text(sentence, style="dim"))


def _table(lines: Sequence[Measurement], columns: Sequence[str]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False, header_style="")
    for title in columns:
        is_name = title in ("method", "backbone", "work")
        table.add_column(title, justify="left" if is_name else "right", no_wrap=True)
    ordered = sorted(lines, key=lambda line: (line.work, line.batch_size, -(line.images_per_second or 0)))
    for number, line in enumerate(ordered):
        following = ordered[number + 1] if number + 1 < len(ordered) else line
        figures = [line.status.split(":")[0], "-", "-"]
        if line.images_per_second is not None and line.median_ms is not None:
            figures = [
                _short(line.images_per_second),
                ("" if line.settled else "~") + _short(line.median_ms),
                f"{_short(line.p10_ms)}-{_short(line.p90_ms)}",
            ]
        counts = (_memory(line), _count(line.parameters), _count(line.trainable))
        texts = (line.method, line.backbone, line.work, str(line.batch_size), *figures, *counts)
        row = dict(zip(COLUMNS, texts, strict=True))
        table.add_row(
            *(Text(row[title]) for title in columns),
            end_section=(line.work, line.batch_size) != (following.work, following.batch_size),
        )
    return table


def _captions(lines: Sequence[Measurement], device: torch.device) -> list[str]:
    facts = context(device)
    sizes = ", ".join(dict.fromkeys(line.image_size for line in lines))
    where = f"{facts['device_name']} ({facts['device']}, {facts['threads']} threads), torch {facts['torch']}"
    what = "Times are of a whole batch; localize is forward and map, a train step is forward, backward and AdamW."
    captions = [f"{where}, {facts['dtype']}, images {sizes}, random. {what}"]
    if any(line.median_ms is not None and not line.settled for line in lines):
        captions.append(f"~ the time ran out before the median was known to {PRECISION:.0%}.")
    kinds = dict.fromkeys(line.memory_is for line in lines if line.peak_memory_mib is not None)
    if kinds:
        share = "in brackets what the calls added to weights" + (" and libraries" if device.type == "cpu" else "")
        captions.append(f"Peak memory is {' or '.join(kinds)}, {share}.")
    reasons = dict.fromkeys(line.memory_is for line in lines if line.memory_is.startswith("not measured"))
    captions += [f"Peak memory {reason}." for reason in reasons]
    captions += [
        f"{line.method}, {line.work}, batch {line.batch_size}: {line.status}." for line in lines if ":" in line.status
    ]
    return captions


def _short(value: float | None) -> str:
    """Three digits, more before the point where there are."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _memory(line: Measurement) -> str:
    if line.peak_memory_mib is None:
        return "-"
    return f"{line.peak_memory_mib:,.0f} (+{line.peak_memory_mib - (line.memory_floor_mib or 0):,.0f})"


def _count(value: int) -> str:
    return f"{value / 1e6:.2f} M" if value >= 10_000 else str(value)


def write_profile(lines: Sequence[Measurement], device: torch.device, dataset: str, out: Path | None) -> Path:
    """Write the lines as CSV, atomically, each with the hardware, versions and settings it depends on."""
    import pandas as pd

    path = Path("results") / "profile" / f"{slug(device_name(device)).lower()}.csv" if out is None else Path(out)
    rows = [{"dataset": dataset, **asdict(line), **context(device)} for line in lines]
    with atomically(path) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, lineterminator="\n")
    return path
