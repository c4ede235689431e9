"""From score maps and annotations to outcomes, and to one line per image."""

# B images of a batch, n images of a split, N boxes of an image

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsolbench.boxes.truth import iou_matrix
from wsolbench.data.annotations import AnnotationReader
from wsolbench.data.split import Split
from wsolbench.evaluation.frame import Frame
from wsolbench.evaluation.levels import Levels
from wsolbench.evaluation.parts import Parts
from wsolbench.evaluation.threshold import Threshold
from wsolbench.metrics.error_classes import ErrorClass, Errors, classify_errors

# --- per image -------------------------------------------------------------------------------------------------------

COLUMNS = (
    "split", "id", "label", "prediction", "rank", "iou", "x0", "y0", "x1", "y1", "hit", "location", "error",
)  # fmt: skip


@dataclass(frozen=True)
class PerImage:
    """What became of each image of a split at one threshold, in order; no boxes and errors where the images have no boxes."""

    levels: Levels
    boxes_n4: npt.NDArray[np.int64] | None  # of the largest contour, in the evaluation frame
    iou_n: npt.NDArray[np.float64] | None  # best one with a true box
    errors: Errors | None

    def error_counts(self) -> dict[str, dict[str, int]]:
        """Images per error class, for the record; empty without boxes."""
        return {} if self.errors is None else self.errors.counts()


def judge_images(
    name: str, parts: Parts, split: Split, geometry: Frame, threshold: Threshold | None, reader: AnnotationReader
) -> PerImage:
    """Compare the box of each image at the threshold with its true boxes.

    Every image's annotation is read again, so the ledger is complete after an interruption too. `threshold` is None where
    the images have no boxes.
    """
    levels, truths = parts.levels(), []
    for id in levels.ids.tolist():  # one annotation at a time: masks are large, boxes are not
        (annotation,) = reader.read(name, split, [id])
        if threshold is not None:
            truths.append(geometry.boxes(annotation))
    if threshold is None:
        return PerImage(levels, None, None, None)
    boxes_n4 = parts.boxes_at(threshold.cuts(levels))
    iou_n = np.array([iou_matrix(box[None], truth).max() for box, truth in zip(boxes_n4, truths, strict=True)])
    correct_n = levels.ranks == 0 if (levels.ranks >= 0).all() else None
    return PerImage(levels, boxes_n4, iou_n, classify_errors(boxes_n4, truths, correct_n))


def outcomes_csv(judged: Mapping[str, PerImage]) -> bytes:
    """The content of `images.csv.gz`: per image of each split its box, in the evaluation frame, and what is wrong with it.

    `location` is the error class of the box alone, `error` the one that knows of the predicted class too; without a
    classifier they are the same, and `prediction` and `rank` are empty; without boxes all that follows is. Equal outcomes
    give equal bytes (no time stamp).
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, images in judged.items():
        writer.writerows(_rows(name, images))
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=0) as file:
        file.write(text.getvalue().encode())
    return packed.getvalue()


def _rows(name: str, images: PerImage) -> Iterator[Sequence[object]]:
    levels = images.levels
    for index, box in enumerate(_box_columns(images)):
        rank = int(levels.ranks[index])
        classes = ("", "") if rank < 0 else (int(levels.predictions[index]), rank)
        yield [name, levels.ids[index], int(levels.labels[index]), *classes, *box]


def _box_columns(images: PerImage) -> Iterator[Sequence[object]]:
    """From `iou` on."""
    if images.boxes_n4 is None or images.iou_n is None or images.errors is None:
        yield from ([""] * 8 for _ in range(len(images.levels)))
        return
    location_n = images.errors.location
    error_n = location_n if images.errors.combined is None else images.errors.combined
    columns = (images.boxes_n4.tolist(), images.iou_n.tolist(), location_n, error_n)
    for box_4, iou, location, error in zip(*columns, strict=True):
        yield [f"{iou:.6f}", *box_4, int(iou >= 0.5), ErrorClass(location), ErrorClass(error)]
