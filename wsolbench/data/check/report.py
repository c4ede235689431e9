"""What `wsolbench data check` has found: kinds of findings, the report as JSON, and as tables for people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

SCHEMA = 1
SHOWN = 5  # findings of a kind on the terminal

Severity = Literal["problem", "note"]

# kind -> (severity, what it means); docs/data-check.md lists them too
KINDS: dict[str, tuple[Severity, str]] = {
    "lists": ("problem", "a list cannot be used"),
    "count": ("problem", "another number of images than the complete data set has"),
    "no-images": ("problem", "the folder of images is not there"),
    "missing": ("problem", "a listed image does not exist"),
    "empty": ("problem", "the file has no bytes"),
    "unreadable": ("problem", "the file cannot be opened"),
    "not-an-image": ("problem", "the file is in no known image format"),
    "corrupt": ("problem", "the image cannot be decoded to its end"),
    "size": ("problem", "the image is not as large as the lists say"),
    "leak": ("problem", "one image in several splits"),
    "label-conflict": ("problem", "one image with several classes"),
    "class-absent": ("problem", "a class has no training image"),
    "label-range": ("problem", "a class number that no class has"),
    "no-boxes": ("problem", "an image without a box in a split that has boxes"),
    "box-outside": ("problem", "a box reaches beyond its image"),
    "box-degenerate": ("problem", "a box without any area"),
    "mask": ("problem", "a mask is missing or cannot be decoded"),
    "mask-empty": ("problem", "no pixel of the object in the mask"),
    "duplicate": ("note", "one image several times in a split"),
    "class-unseen": ("note", "a class without an image in val or test"),
    "box-tiny": ("note", "a box under 0.1 % of its image"),
    "box-duplicate": ("note", "one box twice in an image"),
    "box-clipped": ("note", "boxes that end at the width or height or beyond, clipped to the last pixel"),
    "extension": ("note", "the file's name promises another format; it is read all the same"),
    "outside": ("note", "a link leads out of the folder of images; it is followed"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that was found. `file` is the image's id, or the list at fault; empty where a whole split is meant."""

    kind: str  # a key of KINDS
    split: str
    file: str
    detail: str

    @property
    def severity(self) -> Severity:
        return KINDS[self.kind][0]


@dataclass
class SplitReport:
    """One split in numbers. None: not known."""

    images: int
    expected: int | None
    classes: int
    per_class: tuple[int, float, int]  # least, median, most images of a class that has any
    boxes: int | None = None
    masks: int | None = None
    checked: int = 0  # images that were looked at
    files: str = ""  # how: "decoded", "headers", or why not


@dataclass
class Report:
    """Everything `wsolbench data check` has to say."""

    dataset: str
    root: str | None
    quick: bool
    splits: dict[str, SplitReport] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    unopened: list[str] = field(default_factory=list)  # splits of which only lists could be looked at
    complete: bool = True  # False: interrupted
    seconds: float = 0.0

    @property
    def problems(self) -> int:
        return sum(finding.severity == "problem" for finding in self.findings)

    def add(self, findings: Iterable[Finding]) -> None:
        self.findings.extend(findings)

    def counts(self) -> dict[str, int]:
        """Findings per kind, in the order of `KINDS`."""
        found = [finding.kind for finding in self.findings]
        return {kind: found.count(kind) for kind in KINDS if kind in found}

    def as_json(self) -> dict[str, Any]:
        """The report as docs/data-check.md describes it."""
        return {
            "schema": SCHEMA,
            "dataset": self.dataset,
            "root": self.root,
            "quick": self.quick,
            "complete": self.complete,
            "unopened": self.unopened,
            "seconds": round(self.seconds, 3),
            "problems": self.problems,
            "counts": self.counts(),
            "splits": {
                name: {
                    "images": split.images,
                    "expected": split.expected,
                    "classes": split.classes,
                    "per_class": dict(zip(("min", "median", "max"), split.per_class, strict=True)),
                    "boxes": split.boxes,
                    "masks": split.masks,
                    "checked": split.checked,
                    "files": split.files,
                }
                for name, split in self.splits.items()
            },
            "findings": [
                {
                    "kind": each.kind,
                    "severity": each.severity,
                    "split": each.split,
                    "file": each.file,
                    "detail": each.detail,
                }
                for each in self.findings
            ],
        }


def print_report(report: Report, console: Console, shown: int = SHOWN) -> None:
    """Tables of the splits and of what was found, and one sentence in the end."""
    title = f"{report.dataset}{f' in {report.root}' if report.root else ''}"
    if report.splits:
        console.print(Text(title, style="bold"), soft_wrap=True)
        console.print(_table(report))
    for kind, count in report.counts().items():
        severity, meaning = KINDS[kind]
        style = "bold red" if severity == "problem" else "bold yellow"
        console.print(Text.assemble((f"\n{severity} {kind}", style), f" ({count}): {meaning}"), soft_wrap=True)
        those = [finding for finding in report.findings if finding.kind == kind]
        for finding in those[:shown]:
            where = f"{finding.split}: " if finding.split else ""
            file = f"{finding.file}: " if finding.file not in finding.detail else ""
            console.print(Text(f"  {where}{file}{finding.detail}"), soft_wrap=True)
        if count > shown:
            console.print(Text(f"  ... and {count - shown} more; --json FILE lists them all", style="dim"))
    console.print(Text(f"\n{_verdict(report)}"), soft_wrap=True)


def _table(report: Report) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption="per class: least / median / most images; a dash: none, or not known",
        caption_justify="left",
    )
    table.add_column("split", no_wrap=True)
    for title in ("images", "expected", "classes", "per class", "boxes", "masks"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("files", no_wrap=True)
    for name, split in report.splits.items():
        low, middle, high = split.per_class
        counts = (split.images, split.expected, split.classes, f"{low} / {middle:g} / {high}", split.boxes, split.masks)
        shown = ("-" if each is None else each if isinstance(each, str) else f"{each:,}" for each in counts)
        table.add_row(name, *shown, split.files)
    return table


def _verdict(report: Report) -> str:
    notes = len(report.findings) - report.problems
    said = [f"{n} {word}{'' if n == 1 else 's'}" for n, word in ((report.problems, "problem"), (notes, "note")) if n]
    checked = sum(split.checked for split in report.splits.values())
    all_images = sum(split.images for split in report.splits.values())
    how = "looked at" if report.complete else f"of {all_images:,} looked at before the interruption"
    unopened = f"; lists kept images from being looked at: {', '.join(report.unopened)}" if report.unopened else ""
    return f"{' and '.join(said) or 'nothing wrong'}; {checked:,} images {how} in {report.seconds:.1f} s{unopened}"
