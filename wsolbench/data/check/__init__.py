"""`wsolbench data check`: is what lies on disk the data set it should be? Everything is looked at, whatever is found.

See docs/data-check.md for what is checked and for the JSON report.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsolbench.data.bad_images import cpus, in_threads
from wsolbench.data.check.images import Looker, metadata_of
from wsolbench.data.check.report import Finding, Report, SplitReport
from wsolbench.data.dataset import Dataset, DatasetInfo, create_dataset
from wsolbench.data.split import Split
from wsolbench.errors import UsageError, WsolbenchError, unknown
from wsolbench.system.interrupt import Interrupt
from wsolbench.system.progress import Reporter, Silent

GENERATED = "generated"  # there is no file to look at


def check_dataset(
    name: str,
    *,
    root: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    splits: Sequence[str] = (),
    quick: bool = False,
    workers: int | None = None,
    reporter: Reporter | None = None,
) -> Report:
    """Check a data set and return everything that was found; Ctrl-C ends it early, with what was found until then.

    Args:
        name: of a registered data set.
        root: where it lies.
        options: of the data set.
        splits: which to check; none: all it has.
        quick: sizes from headers only; nothing is decoded or compared by content.
        workers: threads; None: as many as there are processors.
        reporter: draws the progress bar.

    Raises:
        UsageError: there is no such data set or split, or nothing of it below the root.

    >>> check_dataset("badges", splits=["val"]).problems
    0
    """
    reporter = reporter or Silent()
    started = time.perf_counter()
    report = Report(name, None if root is None else str(root), quick)
    try:
        dataset = create_dataset(name, root=root, **(options or {}))
    except UsageError:
        raise
    except WsolbenchError as error:
        report.add([Finding("lists", "", "", str(error))])
        return report
    for split_name in splits:
        if split_name not in dataset.splits:
            raise unknown(f"split of {name}", split_name, dataset.splits)
    opened = _open(dataset, list(splits) or list(dataset.splits), report)
    same: dict[bytes, list[tuple[str, int]]] = {}
    with reporter.live(), Interrupt() as interrupt:
        for split_name, split in opened.items():
            looker = _looker(split_name, split, quick, report)
            _look(looker, report, same, interrupt, reporter, workers or cpus())
            if interrupt.requested:
                report.complete = False
                break
    report.add(_copies(same, opened))
    report.seconds = time.perf_counter() - started
    return report


def _open(dataset: Dataset, names: Sequence[str], report: Report) -> dict[str, Split]:
    """The splits whose lists can be used, and their counts; what is wrong with the others is found."""
    opened: dict[str, Split] = {}
    said: set[str] = set()
    read = getattr(dataset, "read_split", lambda name: None)
    # what is wrong with a split's own lists first: a broken one may keep the others from being opened
    for name, step in [(name, step) for step in (read, dataset.split) for name in names]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what readers warn of is counted below
                answer = step(name)
        except WsolbenchError as error:
            if str(error) not in said:
                report.add([Finding("lists", name, "", str(error))])
            said.add(str(error))
        else:
            if isinstance(answer, Split):
                opened[name] = answer
    report.unopened = [name for name in names if name not in opened]
    if opened:
        for name, split in opened.items():
            _count(name, split, dataset.info, report)
    return opened


def _count(name: str, split: Split, info: DatasetInfo, report: Report) -> None:
    labels = np.asarray(split.labels)
    per_class = np.bincount(labels[labels >= 0], minlength=info.num_classes)
    present = per_class[per_class > 0]
    expected = info.expected_counts.get(name)
    metadata = metadata_of(split)
    report.splits[name] = SplitReport(
        len(split), expected, len(present), (int(present.min()), float(np.median(present)), int(present.max()))
    )
    if expected is not None and expected != len(split):
        report.add([Finding("count", name, "", f"{len(split):,} images, the complete data set has {expected:,}")])
    for index in np.flatnonzero((labels < 0) | (labels >= info.num_classes)):
        detail = f"class {labels[index]}, there are {info.num_classes}"
        report.add([Finding("label-range", name, split.ids[index], detail)])
    for label in np.flatnonzero(per_class[: info.num_classes] == 0):
        kind = "class-absent" if name == "train" else "class-unseen"
        report.add([Finding(kind, name, "", f"class {label} ({info.class_names[label]}) has no image")])
    if metadata is not None and metadata.clipped:
        source = metadata.source("localization")
        report.add([Finding("box-clipped", name, source.name, f"{metadata.clipped:,} boxes of '{source}'")])


def _looker(name: str, split: Split, quick: bool, report: Report) -> Looker:
    """How the images of a split are looked at."""
    image_path = getattr(split, "image_path", None)
    files = image_path is not None
    about = ("headers" if quick else "decoded") if files else GENERATED
    if image_path is not None:
        try:
            image_path(0)
        except WsolbenchError as error:  # no folder of images: once, not for each
            report.add([Finding("no-images", name, "", str(error))])
            files, about = False, "absent"
    report.splits[name].files = about
    folder = getattr(split, "images", None)
    return Looker(name, split, files, quick, None if folder is None else Path(os.path.realpath(folder)))


def _look(
    looker: Looker,
    report: Report,
    same: dict[bytes, list[tuple[str, int]]],
    interrupt: Interrupt,
    reporter: Reporter,
    workers: int,
) -> None:
    """Look at every image of a split; `same` collects those of equal content over all splits."""
    of_split = report.splits[looker.name]
    answers = in_threads(looker, range(len(looker.split)), workers)
    with reporter.bar(f"check {looker.name}", len(looker.split)) as advance:
        for looked in answers:
            report.add(looked.findings)
            if looked.key is not None:
                same.setdefault(looked.key, []).append((looker.name, looked.index))
            if looked.boxes:
                of_split.boxes = (of_split.boxes or 0) + looked.boxes
            if looked.mask:
                of_split.masks = (of_split.masks or 0) + 1
            of_split.checked += 1
            advance(1, f"{len(report.findings)} found")
            if interrupt.requested:
                break


def _copies(same: dict[bytes, list[tuple[str, int]]], opened: dict[str, Split]) -> list[Finding]:
    """Images that are there several times: in several splits, with several classes, or only twice."""
    findings = []
    for copies in same.values():
        if len(copies) == 1:
            continue
        (first, at), *others = copies
        labels = {int(opened[name].labels[index]) for name, index in copies}
        for name, index in others:
            kind = "leak" if name != first else "label-conflict" if len(labels) > 1 else "duplicate"
            other_class = f", with classes {sorted(labels)}" if len(labels) > 1 else ""
            detail = f"same content as {first}: {opened[first].ids[at]}{other_class}"
            findings.append(Finding(kind, name, opened[name].ids[index], detail))
    return findings
