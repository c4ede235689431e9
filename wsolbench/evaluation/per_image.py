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

from wsolbench.boxes.by_convention import truth_boxes
from wsolbench.boxes.maps import Array
from wsolbench.boxes.scan import iou_matrix, resize_boxes, resize_mask
from wsolbench.conventions import Geometry as Content
from wsolbench.conventions import get_convention
from wsolbench.data.split import Split
from wsolbench.errors import WsolbenchError
from wsolbench.evaluation.levels import Levels, Scored, score_with_boxes
from wsolbench.evaluation.parts import Parts
from wsolbench.metrics.error_classes import ErrorClass, Errors, classify_errors
from wsolbench.protocols.needs import AnnotationReader
from wsolbench.protocols.select import Threshold
from wsolbench.system.progress import Reporter
from wsolbench.types import Annotation


@dataclass(frozen=True)
class Geometry:
    """What a split looks like where maps and boxes are compared."""

    resolution_HW: tuple[int, int]
    has_masks: bool
    has_boxes: bool = True
    content: Content = "resize"  # of the image: all of it, or the middle of a larger one

    def boxes(self, annotation: Annotation) -> npt.NDArray[np.int64]:
        """The image's boxes [N, 4] in the evaluation frame."""
        if annotation.boxes_N4 is None or not len(annotation.boxes_N4):
            raise WsolbenchError(f"image '{annotation.id}' has no boxes, so its maps cannot be scored")
        if self.content == "resize":
            return resize_boxes(annotation.boxes_N4, annotation.size_HW, self.resolution_HW)
        return _crop_boxes(annotation, self.resolution_HW)

    def mask(self, annotation: Annotation) -> npt.NDArray[np.uint8]:
        """The image's mask [H, W] in the evaluation frame."""
        if annotation.mask_HW is None:
            raise WsolbenchError(f"image '{annotation.id}' has no mask although its data set promises masks")
        if self.content == "resize":
            return resize_mask(annotation.mask_HW, self.resolution_HW)
        return _crop_mask(annotation.mask_HW, self.resolution_HW)


def _crop_boxes(annotation: Annotation, resolution_HW: tuple[int, int]) -> npt.NDArray[np.int64]:
    """SAT's rule: scaled to the larger image, the margin taken off, clipped to the crop, truncated.

    A box that lies outside of the crop is the line of pixels at the edge that is nearest to it. (SAT leaves it inverted: either
    way its image stays in the count, and no map can be expected to hit it.)
    """
    boxes = truth_boxes(get_convention("sat"), annotation, resolution_HW)
    return np.clip(boxes, 0, np.array(resolution_HW[::-1] * 2) - 1).astype(np.int64)


def _crop_mask(mask_HW: npt.NDArray[np.uint8], resolution_HW: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Nearest neighbour in the larger image, of which the middle is taken."""
    (height, width), (y, x) = resolution_HW, get_convention("sat").margins_HW(resolution_HW)
    return resize_mask(mask_HW, (height + 2 * y, width + 2 * x))[y : y + height, x : x + width]


def prepare_scoring(reporter: Reporter) -> None:
    """Compile the box engine where that has not been done, and say so: without a word it would look like a hang."""
    from wsolbench.boxes.onepass import compile_now

    with reporter.bar("compile the box engine", 1):
        seconds = compile_now()
    if seconds > 2:
        reporter.message(f"compiled the box engine in {seconds:.0f} s, once per installation")


def score_annotated(
    maps_BHW: npt.NDArray[np.float64],
    annotations: Sequence[Annotation],
    geometry: Geometry,
    labels_B: Array | Sequence[int],
    ranks_B: Array | Sequence[int] | None = None,
    predictions_B: Array | Sequence[int] | None = None,
) -> Scored:
    """Score a batch of score maps in the evaluation frame; the rest as in `wsolbench.evaluation.levels.score_with_boxes`."""
    return score_with_boxes(
        maps_BHW,
        [geometry.boxes(annotation) for annotation in annotations] if geometry.has_boxes else None,
        labels_B,
        ranks_B,
        predictions_B,
        [annotation.id for annotation in annotations],
        np.stack([geometry.mask(annotation) for annotation in annotations]) if geometry.has_masks else None,
    )


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
    name: str, parts: Parts, split: Split, geometry: Geometry, threshold: Threshold | None, reader: AnnotationReader
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
