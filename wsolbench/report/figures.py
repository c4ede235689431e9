"""The figures of `wsolbench.leaderboard.plots` as SVG inside a page, in the page's own text colour."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from wsolbench.errors import WsolbenchError
from wsolbench.evaluation.levels import load_levels
from wsolbench.leaderboard import plots
from wsolbench.leaderboard.comparison import key_of, split_of
from wsolbench.leaderboard.standings import Group
from wsolbench.record import RunRecord

_HEAD = re.compile(r"^.*?(?=<svg)", re.DOTALL)
_SIZE = re.compile(r'<svg [^>]*?width="([\d.]+)pt" height="([\d.]+)pt"')


@dataclass(frozen=True)
class Drawing:
    """One figure: its inline SVGs, what it shows, and the backbone and protocol it is about ("" for several)."""

    svg: Markup
    narrow: Markup | None  # the same for a phone, where it is narrower
    caption: str
    backbone: str = ""
    protocol: str = ""


@dataclass(frozen=True)
class Drawings:
    """The figures of a page, by section; a sentence where a section has none."""

    sections: Mapping[str, Sequence[Drawing]]
    absent: Mapping[str, str]


def draw(groups: Sequence[Group], runs: Mapping[Path, RunRecord]) -> Drawings:
    """All figures that the runs allow."""
    style, records = plots.style_of(groups), list(runs.values())
    curves = _reader(runs)
    datasets = sorted({record.dataset for record in records})
    sections: dict[str, list[Drawing]] = {name: [] for name in ("curves", "throughput", "few-shot", "matrix", "errors")}

    def add(section: str, plot: Callable[..., Figure | None], caption: str, group: Group | None = None) -> None:
        figure = plot(narrow=False)
        if figure is None:
            return
        about = (group.backbone, group.protocol) if group else ("", "")
        name = f"f{sum(map(len, sections.values()))}"
        narrow = plot(narrow=True) if figure.get_figwidth() > plots.NARROW + 0.5 else None
        small = None if narrow is None else to_svg(narrow, f"{name}n", caption)
        sections[section].append(Drawing(to_svg(figure, name, caption), small, caption, *about))

    for group in groups:
        plot = partial(plots.box_accuracy, group, curves, style)
        add("curves", plot, _titled(group, "box accuracy over thresholds"), group)
    add("throughput", partial(plots.throughput, groups, style), "Accuracy against images per second in evaluation")
    for dataset in datasets:
        of_one = [record for record in records if record.dataset == dataset]
        add("few-shot", partial(plots.few_shot, of_one, style), f"{dataset}: accuracy over training images per class")
        add(
            "matrix",
            partial(plots.protocol_matrix, of_one),
            f"{dataset}: GT-known by who chose checkpoint and threshold",
        )
        add("matrix", partial(plots.protocol_steps, of_one, style), f"{dataset}: GT-known under ever less help")
    for group in groups:
        for of in ("GT-known", "Top-1"):
            add("errors", partial(plots.error_classes, group, of), _titled(group, f"error classes of {of}"), group)
    absent = {
        "curves": "No run keeps its outcomes per image (levels.npz), or none has boxes: there are no curves.",
        "throughput": "No run measured its images per second.",
        "few-shot": "No few-shot runs: 'wsolbench run --protocol 1shot,5shot,full' makes some.",
        "matrix": "No protocol matrix: 'wsolbench run --protocol matrix' makes one.",
        "errors": "No record counts error classes: there are none without boxes, and runs of older versions need --rerun.",
    }
    return Drawings(sections, {name: text for name, text in absent.items() if not sections[name]})


def _titled(group: Group, what: str) -> str:
    return f"{group.title.replace(' | ', ' · ')}: {what}"


def _reader(runs: Mapping[Path, RunRecord]) -> Callable[[RunRecord], plots.Curves | None]:
    """Read each run's outcomes once: rows without a backbone stand in several tables."""
    where = {key_of(record): path for path, record in runs.items()}
    splits = {key: split_of(record) for key, record in zip(where, runs.values(), strict=True)}

    @cache
    def read(key: tuple[str, str]) -> plots.Curves | None:
        try:
            levels = load_levels(where[key] / "levels.npz").get(splits[key])
        except (WsolbenchError, OSError, ValueError, KeyError):
            return None
        return None if levels is None or levels.packed is None or not len(levels) else plots.curves_of(levels)

    return lambda record: read(key_of(record))


def to_svg(figure: Figure, prefix: str, label: str) -> Markup:
    """A figure as an <svg> of its own ids; black, matplotlib's colour of text and axes, becomes the page's text colour."""
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "wsolbench"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = _HEAD.sub("", buffer.getvalue(), count=1)
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"stroke: ?#000000", "stroke: currentColor", text)
    text = re.sub(r"fill: ?#000000", "fill: currentColor", text)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(xlink:href="|url\()#', rf"\1#{prefix}-", text)
    text = _SIZE.sub(
        lambda found: found[0].replace("<svg ", Markup('<svg role="img" aria-label="{}" ').format(label)), text, count=1
    )
    return Markup(text)  # matplotlib escapes the texts it writes
