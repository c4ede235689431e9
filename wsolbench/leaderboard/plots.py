"""Figures for papers and pages, from records and stored outcomes alone: no image, no weights, no second evaluation.

Each function returns a matplotlib `Figure`, or None where the runs do not hold what it shows; `save` writes it as PNG, PDF
or SVG; `narrow` draws panels below each other, for a phone. A method keeps its colour and mark in all figures that share a
`Style`. Colours: Okabe and Ito (2008), told apart by colour-blind eyes; cividis in heat maps; marks and dashes tell the same
without colour.

    from wsolbench.leaderboard import find_records, plots, summarise
    runs = find_records(Path("results"))
    plots.save(plots.throughput(summarise(runs.values())), Path("throughput.pdf"))
"""
# T thresholds

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from wsolbench.boxes.maps import threshold_grid
from wsolbench.evaluation.levels import IOUS, Levels
from wsolbench.leaderboard.few_shot import BUDGETS, few_shot_points
from wsolbench.leaderboard.groups import summarise
from wsolbench.leaderboard.standings import ANY_BACKBONE, Group, Row, leading
from wsolbench.leaderboard.tables.matrix import MatrixOf, dagger, matrices, short
from wsolbench.leaderboard.tables.protocol_steps import steps_of
from wsolbench.metrics.error_classes import ErrorClass
from wsolbench.record import RunRecord
from wsolbench.system.files import atomically

Curves: TypeAlias = Mapping[float, npt.NDArray[np.float64]]  # IoU level -> box accuracy [T], a fraction

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))
_ERRORS = {  # colour and hatch
    ErrorClass.HIT: ("#009e73", ""),
    ErrorClass.PART: ("#56b4e9", "//"),
    ErrorClass.MORE: ("#e69f00", "\\\\"),
    ErrorClass.SEVERAL_INSTANCES: ("#cc79a7", "xx"),
    ErrorClass.WRONG_PLACE: ("#d55e00", ".."),
    ErrorClass.WRONG_CLASS: ("#999999", "--"),
}
GRID = threshold_grid(0.01)  # MaxBoxAcc's thresholds
NARROW = 3.4  # inches of a panel for a phone


class Style:
    """Colour, mark and dashes of each label, in the order they were named."""

    def __init__(self, labels: Iterable[str]) -> None:
        self._order = {label: place for place, label in enumerate(dict.fromkeys(labels))}

    def of(self, label: str) -> dict[str, Any]:
        """Keywords of `Axes.plot`."""
        place = self._order.setdefault(label, len(self._order))
        return {
            "color": _COLOURS[place % len(_COLOURS)],
            "marker": _MARKS[place % len(_MARKS)],
            "linestyle": _DASHES[place // len(_COLOURS) % len(_DASHES)],
        }


def style_of(groups: Iterable[Group]) -> Style:
    """One style for all methods of some tables."""
    return Style(sorted({row.label for group in groups for row in group.rows}))


def save(figure: Figure, path: Path) -> Path:
    """Write a figure by its suffix (.png, .pdf, .svg); the same figure gives the same bytes."""
    path = Path(path)
    empty: dict[str, Any] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with (
        rc_context({"svg.fonttype": "none", "svg.hashsalt": "wsolbench", "pdf.fonttype": 42}),
        atomically(path) as whole,
    ):
        figure.savefig(whole, format=path.suffix[1:] or "png", metadata=empty.get(path.suffix), dpi=150)
    return path


# --- curves ----------------------------------------------------------------------------------------------------------


def curves_of(levels: Levels) -> Curves:
    """Box accuracy of a split at each threshold of `GRID`, per IoU level; the largest contour, as GT-known Loc."""
    return {iou: levels.box_accuracy(GRID, iou) for iou in IOUS}


def box_accuracy(
    group: Group, curves: Callable[[RunRecord], Curves | None], style: Style | None = None, *, narrow: bool = False
) -> Figure | None:
    """Box accuracy over thresholds, a panel per IoU level: the mean over seeds, and the range where they differ.

    The marks are where the protocol chose the threshold (each seed its own). `curves` gives what is stored of a run, None
    where it is gone: see `wsolbench.leaderboard.plots.curves_of`.
    """
    style, drawn = style or style_of([group]), []
    for row in group.rows:
        found = [(record, known) for record in row.records if (known := curves(record)) is not None]
        if found:
            drawn.append((row.label, found))
    if not drawn:
        return None
    figure, axes = _figure(len(IOUS), (3.1, 2.9), narrow, legend=len(drawn), sharey=True)
    for ax, iou in zip(axes, IOUS, strict=True):
        for label, found in drawn:
            stack = 100 * np.stack([known[iou] for _, known in found])
            look = style.of(label)
            ax.plot(GRID, stack.mean(0), linewidth=1.5, label=label, **look | {"marker": ""})
            if len(stack) > 1:
                ax.fill_between(GRID, stack.min(0), stack.max(0), color=look["color"], alpha=0.15, linewidth=0)
            for (record, _), curve in zip(found, stack, strict=True):
                chosen = chosen_threshold(record)
                if chosen is not None:
                    at = np.interp(chosen, GRID, curve)
                    ax.plot([chosen], [at], look["marker"], color=look["color"], markersize=5)
        ax.set_title(f"IoU ≥ {iou:g}", fontsize=10)
        ax.set_xlabel("threshold")
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 100)
    _ylabel(axes, "box accuracy, %")
    _legend(figure, [(label, style.of(label)) for label, _ in drawn])
    return figure


def chosen_threshold(record: RunRecord) -> float | None:
    """Where the run's protocol cut all maps; None where each map has its own cut, or nothing was chosen."""
    return next((c.threshold for c in record.cells if c.metric == "GT-known" and c.convention == "reference"), None)


def few_shot(records: Iterable[RunRecord], style: Style | None = None, *, narrow: bool = False) -> Figure | None:
    """GT-known@val on test over training images per class: a panel per backbone and budget, ± one deviation over seeds."""
    budgets = few_shot_points(records)
    panels = [(name, backbone) for name in BUDGETS for backbone in sorted({key[1] for key in budgets[name]})]
    if not panels:
        return None
    shots = [*sorted({at for points in budgets.values() for values in points.values() for at in values if at}), 0]
    methods = sorted({method for points in budgets.values() for method, _ in points})
    style = style or Style(methods)
    figure, axes = _figure(len(panels), (3.9, 3.0), narrow, legend=len(methods), sharey=True)
    for ax, (name, backbone) in zip(axes, panels, strict=True):
        for (method, of), values in sorted(budgets[name].items()):
            if of == backbone:
                _line(ax, {shots.index(at): found for at, found in values.items()}, style.of(method))
        ax.set_xticks(range(len(shots)), [*map(str, shots[:-1]), "all"])
        ax.set_xlabel("training images per class")
        ax.set_title(f"{backbone}, {name}", fontsize=10)
        ax.set_ylim(0, 100)
    _ylabel(axes, "GT-known@val on test, %")
    _legend(figure, [(method, style.of(method)) for method in methods])
    return figure


def protocol_steps(records: Iterable[RunRecord], style: Style | None = None, *, narrow: bool = False) -> Figure | None:
    """How far GT-known Loc falls from one protocol to the next, from runs of `--protocol matrix`; a panel per backbone."""
    groups = [
        group for group in summarise(record for record in records if record.matrix) if group.backbone != ANY_BACKBONE
    ]
    rows = [row for group in groups for row in group.own_rows]
    steps = steps_of(record for row in rows for record in row.records)
    if not steps:
        return None
    points: dict[tuple[str, str], dict[int, list[float]]] = {}
    for row in rows:
        for at, step in enumerate(steps):
            found = [100 * value for record in row.records if (value := step.value(record, "GT-known")) is not None]
            if found:
                points.setdefault((row.backbone, row.label), {})[at] = found
    backbones, methods = sorted({backbone for backbone, _ in points}), sorted({method for _, method in points})
    style = style or Style(methods)
    figure, axes = _figure(len(backbones), (5.2, 3.2), narrow, legend=len(methods), sharey=True)
    for ax, backbone in zip(axes, backbones, strict=True):
        for (of, method), values in sorted(points.items()):
            if of == backbone:
                _line(ax, values, style.of(method))
        ax.set_xticks(range(len(steps)), [step.label for step in steps], fontsize=6 if narrow else 8)
        ax.set_title(backbone, fontsize=10)
        ax.set_ylim(0, 100)
    _ylabel(axes, "GT-known Loc on test, %")
    _legend(figure, [(method, style.of(method)) for method in methods])
    return figure


# --- points, matrices, bars --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Panel:
    """One panel of `speed`: images per second and percent of each label."""

    title: str
    ylabel: str
    points: Mapping[str, tuple[float, float]]


def throughput(groups: Sequence[Group], style: Style | None = None, *, narrow: bool = False) -> Figure | None:
    """Accuracy against images per second during evaluation: a panel per table, each at its own leading column."""
    panels = []
    for group in groups:
        column = leading(group.columns)
        rows = [row for row in group.own_rows if column in row.values and "eval_images_per_second" in row.cost]
        if column is not None and rows:
            points = {
                row.label: (row.cost["eval_images_per_second"].mean, 100 * row.values[column].mean) for row in rows
            }
            ylabel = f"{column.title}{'†' * column.oracle}, %"
            panels.append(Panel(f"{group.backbone}, {group.protocol}", ylabel, points))
    return speed(panels, "images/s in evaluation", style or style_of(groups), narrow=narrow)


def speed(panels: Sequence[Panel], xlabel: str, style: Style | None = None, *, narrow: bool = False) -> Figure | None:
    """Accuracy against throughput; None without panels."""
    if not panels:
        return None
    labels = sorted({label for panel in panels for label in panel.points})
    style = style or Style(labels)
    figure, axes = _figure(len(panels), (3.3, 2.9), narrow, legend=len(labels))
    for ax, panel in zip(axes, panels, strict=True):
        for label, (x, y) in panel.points.items():
            ax.plot([x], [y], markersize=7, **style.of(label) | {"linestyle": ""})
        _decades(ax, [x for x, _ in panel.points.values()])
        ax.set_ylim(0, 100)
        ax.set_xlabel(xlabel)
        ax.set_ylabel(panel.ylabel)
        ax.set_title(panel.title, fontsize=10)
    _legend(figure, [(label, style.of(label)) for label in labels], lines=False)
    return figure


def _decades(ax: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis of plain numbers, at least a decade wide: a narrower one labels noise."""
    low, high = min(values), max(values)
    wider = max(1.5, (10 * low / high) ** 0.5)
    ax.set_xscale("log")
    ax.set_xlim(low / wider, high * wider)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def protocol_matrix(records: Iterable[RunRecord], metric: str = "GT-known", *, narrow: bool = False) -> Figure | None:
    """Heat maps of one metric, a panel per method and backbone: who chose the checkpoint by who chose the threshold."""
    found: list[MatrixOf] = [each for each in matrices(records) if each.has(metric)]
    if not found:
        return None
    rows, columns = (max(len(getattr(each, side)) for each in found) for side in ("checkpoints", "thresholds"))
    size = 1.6 + 0.72 * columns, 1.25 + 0.36 * rows
    figure, axes = _figure(len(found), size, narrow, grid=False)
    for ax, each in zip(axes, found, strict=True):
        values = 100 * np.array([[each.mean(c, t, metric) for t in each.thresholds] for c in each.checkpoints])
        ax.imshow(values, cmap="cividis", vmin=0, vmax=100, aspect="auto")
        for (y, x), value in np.ndenumerate(values):
            text = "–" if np.isnan(value) else f"{value:.1f}"
            colour: dict[str, Any] = {"color": "white" if value < 50 else "#111111"} if not np.isnan(value) else {}
            ax.text(x, y, text, ha="center", va="center", fontsize=8 if narrow else 9, **colour)
        ax.set_xticks(
            range(len(each.thresholds)), [short(t) + dagger(t) for t in each.thresholds], rotation=30, ha="right"
        )
        ax.set_yticks(range(len(each.checkpoints)), [short(c) + dagger(c) for c in each.checkpoints])
        ax.tick_params(length=0, labelsize=8)
        ax.set_title(f"{each.method}, {each.backbone}", fontsize=10)
    figure.supxlabel("who chose the threshold", fontsize=9)
    figure.supylabel("who chose the checkpoint", fontsize=9)
    return figure


def error_classes(group: Group, of: str = "GT-known", *, narrow: bool = False) -> Figure | None:
    """Shares of images per error class, a bar per method, mean over seeds; `of` is "GT-known" or "Top-1"."""
    rows = [row for row in group.rows if all(of in record.errors for record in row.records)]
    if not rows:
        return None
    figure, (ax,) = _figure(1, (7.6, 0.8 + 0.3 * len(rows)), narrow, legend=4 if narrow else 2, grid=False)
    left = np.zeros(len(rows))
    for each, (colour, hatch) in _ERRORS.items():
        shares = np.array([_share(row, of, str(each)) for row in rows])
        if not shares.any():
            continue
        bars = ax.barh(range(len(rows)), shares, left=left, color=colour, hatch=hatch, edgecolor="white", linewidth=0.5)
        bars.set_label(str(each))
        for y, (start, share) in enumerate(zip(left, shares, strict=True)):
            if share >= (13 if narrow else 7):
                plate = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1}
                centre = start + share / 2
                ax.text(centre, y, f"{share:.0f}", ha="center", va="center", fontsize=8, color="#111111", bbox=plate)
        left += shares
    ax.set_yticks(range(len(rows)), [row.label for row in rows])
    ax.invert_yaxis()
    ax.set_xlim(0, 100)
    ax.set_xlabel("images, %")
    figure.legend(
        loc="outside lower center",
        ncols=3 if narrow else 6,
        frameon=False,
        fontsize=8,
        handlelength=1.2,
        columnspacing=1,
    )
    return figure


def _share(row: Row, of: str, name: str) -> float:
    shares = [100 * record.errors[of].get(name, 0) / max(1, sum(record.errors[of].values())) for record in row.records]
    return statistics.fmean(shares)


# --- what all of them share --------------------------------------------------------------------------------------------


def _figure(
    panels: int,
    size: tuple[float, float],
    narrow: bool = False,
    *,
    legend: int = 0,
    grid: bool = True,
    sharey: bool = False,
) -> tuple[Figure, list[Axes]]:
    """A figure of panels of that size in inches, three in a row, with room for a legend of so many entries below them.

    `narrow`: one in a row, as wide as a phone shows with its text in full size.
    """
    columns = 1 if narrow else min(3, panels)
    width, rows = min(size[0], NARROW) if narrow else size[0], -(-panels // columns)
    below = 0.24 * -(-legend // max(1, 2 * columns)) if legend else 0.0
    figure = Figure(figsize=(columns * width + 0.3, rows * size[1] + below), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False, sharey=sharey).flat)
    for ax in axes[panels:]:
        ax.remove()
    for ax in axes[:panels]:
        ax.spines[["top", "right"]].set_visible(False)
        if grid:
            ax.grid(alpha=0.3)
    return figure, axes[:panels]


def _ylabel(axes: Sequence[Axes], text: str) -> None:
    """At the first panel of each row: they share the axis."""
    for ax in axes:
        spec = ax.get_subplotspec()
        if spec is None or spec.is_first_col():
            ax.set_ylabel(text)


def _line(ax: Axes, values: Mapping[int, Sequence[float]], look: dict[str, Any]) -> None:
    at = sorted(values)
    means = [statistics.fmean(values[x]) for x in at]
    spread = [statistics.stdev(values[x]) if len(values[x]) > 1 else 0.0 for x in at]
    ax.errorbar(at, means, spread, capsize=3, linewidth=1.4, markersize=5, **look)


def _legend(figure: Figure, looks: Sequence[tuple[str, dict[str, Any]]], lines: bool = True) -> None:
    """Below the panels, never over data."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], label=label, markersize=6, **(look if lines else look | {"linestyle": ""}))
        for label, look in looks
    ]
    columns = max(1, min(len(handles), int(figure.get_figwidth() // 1.7)))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
