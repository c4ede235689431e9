"""Published numbers with their sources, typed and checked as they are read; `reported.csv` ships with the package.

They were obtained under protocols that differ from paper to paper and from ours, so they stand in columns of their own and
are never averaged, neither with measured numbers nor with each other.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from importlib.resources import files
from pathlib import Path

from wsolbench.errors import WsolbenchError

# What our names are called in print. A name that is missing here has no published counterpart.
DATASETS = {"cub": "CUB-200-2011", "ilsvrc": "ILSVRC", "openimages": "OpenImages30k"}
METHODS = {
    "cam": "CAM", "gradcam": "Grad-CAM", "gradcam++": "Grad-CAM++", "layercam": "LayerCAM", "sat": "SAT",
    "tscam": "TS-CAM", "bas": "BAS", "center-gaussian": "Center-Gaussian baseline",
}  # fmt: skip
BACKBONES = {
    "wsol_resnet50": "ResNet50", "wsol_vgg16": "VGG16", "wsol_inception_v3": "InceptionV3",
    "wsol_resnet50_28": "ResNet50", "wsol_vgg16_28": "VGG16", "wsol_inception_v3_28": "InceptionV3",
    "resnet50": "ResNet50", "vgg16": "VGG16", "inception_v3": "InceptionV3", "deit_tiny_patch16_224": "DeiT-T",
    "deit_small_patch16_224": "DeiT-S", "deit_base_patch16_224": "DeiT-B", "conformer_small_patch16": "Conformer-S",
}  # fmt: skip
METRICS = {
    "GT-known Loc": "GT-known",
    "MaxBoxAccV2 (mean 30/50/70)": "MaxBoxAccV2",
    "MaxBoxAcc (V1, CVPR 2020 text)": "MaxBoxAcc",
}
"""Printed names of metrics that we have under another name; equal names need no entry."""


@dataclass(frozen=True)
class Reported:
    """One number as a source prints it."""

    method: str
    year: int
    venue: str
    backbone: str  # "" where the source does not say
    dataset: str
    metric: str  # as printed; `name` is ours
    text: str  # as printed, so that 80.9 and 80.90 stay apart
    protocol_note: str
    source: str
    line: int = field(default=0, compare=False)  # of the file

    @property
    def value(self) -> float:
        """The number as a fraction, like those of a record; cosines are printed as fractions already."""
        return float(self.text) if self.is_cosine else float(self.text) / 100

    @property
    def is_cosine(self) -> bool:
        """Printed in [-1, 1] instead of percent."""
        return "COS" in self.metric

    @property
    def name(self) -> str:
        """Our name of the metric, or the printed one where we have none."""
        return METRICS.get(self.metric, self.metric)

    @property
    def decimals(self) -> int:
        """Digits behind the point, as printed."""
        return len(self.text.partition(".")[2])

    @property
    def cell(self) -> tuple[str, str, str, str]:
        """What the number is about: two sources that print different numbers for one cell disagree."""
        return self.dataset, self.backbone, self.method, self.metric


HEADER = tuple("value" if each.name == "text" else each.name for each in fields(Reported) if each.name != "line")


def read_reported(path: str | Path | None = None) -> list[Reported]:
    """Read published numbers, by default those that ship with the package.

    Raises:
        WsolbenchError: the file is not such a list; names the line and what was expected there.

    >>> sorted({each.method for each in read_reported() if each.dataset == "NIH ChestX-ray (8 classes with boxes)"})
    ['NLM + FPM fusion + foreground control (Wang et al.)']
    """
    where = files("wsolbench.leaderboard") / "reported.csv" if path is None else Path(path)
    try:
        lines = csv.reader(io.StringIO(where.read_text(encoding="utf-8"), newline=""), strict=True)
        rows = [(lines.line_num, row) for row in lines]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise WsolbenchError(f"the published numbers '{where}' could not be read: {error}") from error
    if not rows or tuple(rows[0][1]) != HEADER:
        raise WsolbenchError(f"'{where}' line 1: expected the columns {','.join(HEADER)}")
    return [_entry(row, number, str(where)) for number, row in rows[1:]]


def _entry(row: Sequence[str], number: int, where: str) -> Reported:
    def refuse(expected: str, got: object) -> WsolbenchError:
        return WsolbenchError(f"'{where}' line {number}: expected {expected}, got {got!r}")

    if len(row) != len(HEADER):
        raise refuse(f"{len(HEADER)} columns", row)
    named = dict(zip(HEADER, row, strict=True))
    for name, text in named.items():
        if text != text.strip() or (not text and name not in ("venue", "backbone")):
            raise refuse(f"a {name} without blanks around it", text)
    if not (named["year"].isdigit() and 2000 <= int(named["year"]) <= 2100):
        raise refuse("a year", named["year"])
    try:
        entry = Reported(**named | {"year": int(named["year"]), "text": named.pop("value")}, line=number)  # type: ignore[arg-type]
        in_range = (-1 if entry.is_cosine else 0) <= entry.value <= 1
    except ValueError:
        in_range = False
    if not in_range:
        raise refuse("a number, in percent or a cosine", row[HEADER.index("value")])
    return entry


@dataclass(frozen=True)
class Contradiction:
    """Numbers that different sources print for the same cell and that rounding does not explain."""

    entries: tuple[Reported, ...]  # ascending, one per source and number

    @property
    def spread(self) -> float:
        """Largest minus smallest, as a fraction."""
        return self.entries[-1].value - self.entries[0].value


def contradictions(entries: Iterable[Reported]) -> list[Contradiction]:
    """Cells for which sources disagree, the widest first.

    Two numbers disagree if they still differ when the finer printed one is rounded to the decimals of the coarser.
    """
    cells: dict[tuple[str, str, str, str], list[Reported]] = defaultdict(list)
    for entry in entries:
        cells[entry.cell].append(entry)
    found = []
    for same in cells.values():
        ordered = sorted(same, key=lambda entry: (entry.value, entry.source))
        if any(_disagree(low, high) for place, low in enumerate(ordered) for high in ordered[place + 1 :]):
            found.append(Contradiction(tuple(ordered)))
    return sorted(found, key=lambda each: (-each.spread, each.entries[0].cell))


def _disagree(low: Reported, high: Reported) -> bool:
    digits = min(low.decimals, high.decimals)
    half = 0.5 * 10.0**-digits + 1e-9  # how far rounding alone can move the finer one
    return low.source != high.source and float(high.text) - float(low.text) > half
