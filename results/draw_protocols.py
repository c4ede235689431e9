"""Draws how far methods fall from one protocol to the next, and their few-shot curves, from finished runs alone.

    python results/draw_protocols.py results            writes results/protocols.png and results/few-shot.{png,md}

The first needs runs of --protocol matrix, the second of --protocol 1shot,3shot,...,full, also with protocol.budget=epochs.
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from wsolbench.leaderboard import load_records
from wsolbench.record import RunRecord

# checkpoint's selector, threshold's, what a paper would call it; most help first
STEPS = (
    ("test-oracle", "test-oracle", "both by\ntest boxes"),
    ("last", "test-oracle", "last,\ntest boxes"),
    ("val-boxes", "val-boxes", "both by\nval boxes"),
    ("last", "val-boxes", "last,\nval boxes"),
    ("class-accuracy", "otsu", "class accuracy,\nOtsu"),
)
COLOURS = {
    "sat": "#0072b2",
    "tscam": "#d55e00",
    "cam": "#009e73",
    "gradcam": "#cc79a7",
}  # told apart by colour-blind eyes
MARKS = {"sat": "o", "tscam": "s", "cam": "^", "gradcam": "D"}
FEW = re.compile(r"(?:(\d+)shot|full)(\+budget=epochs)?$")
Points = dict[tuple[str, str], dict[Any, list[float]]]  # method, backbone -> position -> values over seeds


def main() -> None:
    """Draw what the runs below a folder allow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    folder = parser.parse_args().results
    records = load_records(folder)
    draw_fall(records, folder / "protocols.png")
    draw_few_shot(records, folder / "few-shot")


def draw_fall(records: list[RunRecord], path: Path) -> None:
    """GT-known Loc on test under ever less help."""
    points: Points = defaultdict(lambda: defaultdict(list))
    for record in records:
        for cell in record.matrix:
            for at, (checkpoint, threshold, _) in enumerate(STEPS):
                if (cell.checkpoint_by, cell.threshold_by, cell.metric) == (checkpoint, threshold, "GT-known"):
                    points[record.method, record.backbone][at].append(100 * cell.value)
    backbones = sorted({backbone for _, backbone in points if backbone != "-"})
    if not backbones:
        print("no run of --protocol matrix: protocols.png is not drawn")
        return
    figure = Figure(figsize=(5.2 * len(backbones), 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for ax, backbone in zip(figure.subplots(1, len(backbones), sharey=True, squeeze=False)[0], backbones, strict=True):
        for (method, of), values in sorted(points.items()):
            if of == backbone:
                _line(ax, method, values)
        ax.set_xticks(range(len(STEPS)), [name for *_, name in STEPS], fontsize=7)
        ax.set_title(backbone, fontsize=10)
        ax.grid(axis="y", alpha=0.3)
        ax.set_ylim(0, 100)
    axes = figure.axes
    axes[0].set_ylabel("GT-known Loc on test, %")
    axes[-1].legend(fontsize=8)
    figure.savefig(path)
    print(path)


def draw_few_shot(records: list[RunRecord], stem: Path) -> None:
    """GT-known Loc on test at the threshold of val, over images per class: at equal steps, and at equal epochs."""
    budgets: dict[str, Points] = {"equal steps": defaultdict(lambda: defaultdict(list))}
    budgets["equal epochs"] = defaultdict(lambda: defaultdict(list))
    for record in records:
        found = FEW.fullmatch(record.protocol)
        value = next((cell.value for cell in record.cells if cell.column == "GT-known@val"), None)
        if found is None or value is None or record.ledger["training"] == "none":
            continue
        shots = int(found[1]) if found[1] else 0
        for name, points in budgets.items():
            if not shots or (name == "equal epochs") == bool(found[2]):
                points[record.method, record.backbone][shots].append(100 * value)
    seeds = max(
        (len(values) for points in budgets.values() for line in points.values() for values in line.values()), default=0
    )
    budgets = {name: {key: _whole(line, seeds) for key, line in points.items()} for name, points in budgets.items()}
    budgets = {name: {key: line for key, line in points.items() if len(line) > 1} for name, points in budgets.items()}
    if not any(budgets.values()):
        print("no few-shot runs: few-shot.png is not drawn")
        return
    shots = [*sorted({at for points in budgets.values() for values in points.values() for at in values if at}), 0]
    names = [*(f"{at}" for at in shots[:-1]), "all"]
    figure = Figure(figsize=(9.2, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    lines = [f"Made by `python results/draw_protocols.py {stem.parent}`.", ""]
    lines += [
        "GT-known@val on test, percent, mean ± sample standard deviation over seeds, by training images per class.",
        "",
    ]
    for ax, (name, points) in zip(figure.subplots(1, 2, sharey=True), budgets.items(), strict=True):
        lines += [
            f"## {name}",
            "",
            f"| backbone | method | seeds | {' | '.join(names)} |",
            "|---|---|---:|" + "---:|" * len(names),
        ]
        for (method, backbone), values in sorted(points.items(), key=lambda item: item[0][::-1]):
            _line(ax, method, {shots.index(at): found for at, found in values.items()})
            cells = [_cell(values.get(at, [])) for at in shots]
            lines.append(f"| {backbone} | {method} | {seeds} | {' | '.join(cells)} |")
        lines.append("")
        ax.set_xticks(range(len(shots)), names)
        ax.set_xlabel("training images per class")
        ax.set_title(name, fontsize=10)
        ax.grid(axis="y", alpha=0.3)
        ax.set_ylim(0, 100)
    figure.axes[0].set_ylabel("GT-known@val on test, %")
    figure.axes[1].legend(fontsize=8)
    figure.savefig(f"{stem}.png")
    Path(f"{stem}.md").write_text("# Few shots\n\n" + "\n".join(lines), encoding="utf-8")
    print(f"{stem}.png")


def _whole(values: dict[Any, list[float]], seeds: int) -> dict[Any, list[float]]:
    """The points that all seeds reached: of a mean over fewer one could not tell method from luck."""
    return {at: found for at, found in values.items() if len(found) == seeds}


def _line(ax: Any, method: str, values: dict[int, list[float]]) -> None:
    at = sorted(values)
    means = [statistics.fmean(values[x]) for x in at]
    spread = [statistics.stdev(values[x]) if len(values[x]) > 1 else 0.0 for x in at]
    style = {"color": COLOURS.get(method, "#666666"), "marker": MARKS.get(method, "x")}
    ax.errorbar(at, means, spread, label=method, capsize=3, linewidth=1.4, markersize=5, **style)


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


if __name__ == "__main__":
    main()
