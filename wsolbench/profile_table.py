"""A profile for the terminal and as CSV."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from wsolbench.errors import WsolbenchError
from wsolbench.profile import PRECISION, Measurement, context, device_name
from wsolbench.registry import slug


def print_profile(lines: Sequence[Measurement], device: torch.device) -> None:
    """Print one table; batch sizes and kinds of work are set apart, fastest method first."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=120)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False, header_style="")
    for title in ("method", "backbone", "work"):
        table.add_column(title, overflow="fold")
    for title in ("batch", "images/s", "median ms", "p10-p90 ms", "peak MiB", "params", "trainable"):
        table.add_column(title, justify="right", no_wrap=True)
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
        table.add_row(
            *map(Text, (line.method, line.backbone, line.work, str(line.batch_size), *figures)),
            _memory(line),
            _count(line.parameters),
            _count(line.trainable),
            end_section=(line.work, line.batch_size) != (following.work, following.batch_size),
        )
    console.print(table)
    for sentence in _captions(lines, device):
        console.print(Text(sentence, style="dim"))


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
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).to_csv(temporary, index=False, lineterminator="\n")
        temporary.replace(path)
    except OSError as error:
        raise WsolbenchError(f"the profile could not be written to '{path}': {error.strerror}") from error
    return path
