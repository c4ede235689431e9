"""Boxes as a CSV, COCO or VOC file states them, on their way to the boxes of a split.

Corners are truncated to whole pixels, x1 = trunc(x + width) where a file gives a width, and then treated as everywhere:
x1 = x0 + width, clipped to the last pixel with a counted warning, refused where they lie outside (docs/metrics.md).
"""
# n images, M boxes of all images, H W image

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from wsolbench.data.lists import Ints, boxes_per_image
from wsolbench.data.metadata import Metadata
from wsolbench.errors import WsolbenchError

UNKNOWN_SIZE = (
    10**9
)  # pixels a side of an image that cannot be read: its boxes are not called outside, reading it is refused
LARGEST = 10**8  # no image is larger


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands in a file, and how it reads there."""

    path: Path
    where: str  # "line 3", "annotations[2].bbox", "object 1"
    shown: str

    def refuse(self, expected: str) -> NoReturn:
        """Raise `WsolbenchError`: file, place, what stands there and what was expected."""
        shown = self.shown if len(self.shown) <= 160 else f"{self.shown[:160]}..."
        raise WsolbenchError(f"'{self.path}' {self.where}: {shown!r}, expected {expected}")


@dataclass(frozen=True, slots=True)
class BoxRecord:
    """A box of the image at index `image`, its corners in whole pixels; `category` is the class the file gives it."""

    image: int
    corners: tuple[int, int, int, int]
    place: Place
    category: str | None = None


@dataclass(frozen=True, slots=True)
class SizeRecord:
    """What a file says of an image's size."""

    width: int
    height: int
    place: Place


@dataclass(frozen=True)
class BoxFile:
    """Everything some files say of boxes; `source` names them in complaints. Sizes are those of images by index."""

    source: Path
    boxes: Sequence[BoxRecord]
    sizes: Mapping[int, SizeRecord]


def whole_pixels(values: Sequence[object], place: Place, expected: str) -> tuple[int, ...]:
    """Coordinates, text or numbers, truncated; NaN, infinities and what is no number are refused."""
    pixels = []
    for value in values:
        try:
            number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not abs(number) <= LARGEST:  # nan is not
            place.refuse(expected)
        pixels.append(int(number))
    return tuple(pixels)


def check_categories(boxes: Sequence[BoxRecord], class_of: Sequence[str]) -> None:
    """Refuse a box whose category is not the class folder of its image.

    A file that knows one category only, and none of the classes' names ("object"), does not tell classes: it is taken.

    Args:
        boxes: all boxes that files state.
        class_of: the class folder of each image, by index.
    """
    stated = {box.category for box in boxes if box.category is not None}
    if len(stated) == 1 and stated.isdisjoint(class_of):
        return
    for box in boxes:
        if box.category is not None and box.category != class_of[box.image]:
            box.place.refuse(f"category {class_of[box.image]!r}, the class folder of its image, not {box.category!r}")


def with_boxes(
    metadata: Metadata, images: Sequence[int], file: BoxFile, size_of: Callable[[int], tuple[int, int] | None]
) -> Metadata:
    """The metadata of a split with its boxes; unchanged where the file has none for any of its images.

    Args:
        metadata: of the split, without boxes.
        images: the index of each of its images in the data set [n].
        file: the boxes of the data set.
        size_of: (width, height) of the image at an index of the data set; None where it cannot be read.

    Raises:
        WsolbenchError: some images have boxes and others none; a box is outside of its image; the sizes disagree.
    """
    row_of = {image: row for row, image in enumerate(images)}
    boxes = [box for box in file.boxes if box.image in row_of]
    if not boxes:
        return metadata
    where = np.array([row_of[box.image] for box in boxes], np.int64)
    without = np.setdiff1d(np.arange(len(images)), where)
    if without.size:
        raise WsolbenchError(
            f"'{file.source}' has no box for {without.size} of the {len(images)} images of '{metadata.folder.name}', first "
            f"{metadata.ids[without[0]]!r}; expected at least one for each, or none for the whole split"
        )
    sizes_HW = np.empty((len(images), 2), np.int64)
    for row, image in enumerate(images):
        sizes_HW[row] = _checked_size(size_of(image), file.sizes.get(image), metadata.ids[row])
    corners_M4 = np.array([box.corners for box in boxes], np.int64)
    boxes_M4, first_box, clipped = boxes_per_image(
        _Complaints(boxes), np.arange(len(boxes)), where, corners_M4, sizes_HW, len(images)
    )
    if clipped:
        warnings.warn(
            f"'{file.source}': {clipped} boxes of '{metadata.folder.name}' end at x1 = width or y1 = height; they are "
            "clipped to the last pixel",
            stacklevel=2,
        )
    return replace(metadata, boxes_M4=boxes_M4, first_box=first_box, clipped=clipped)


def _checked_size(size: tuple[int, int] | None, stated: SizeRecord | None, id: str) -> tuple[int, int]:
    """Height and width, after comparing the image with what the file of boxes says of it."""
    if size is None:
        return UNKNOWN_SIZE, UNKNOWN_SIZE
    width, height = size
    if stated is not None and (stated.width, stated.height) != size:
        turned = " (EXIF rotation is not applied)" if (stated.height, stated.width) == size else ""
        stated.place.refuse(f"the size of {id!r} as it is stored, {width} wide and {height} high{turned}")
    return height, width


@dataclass(frozen=True)
class _Complaints:
    """`wsolbench.data.lists.Complaints` over boxes by their number, from 0."""

    boxes: Sequence[BoxRecord]

    def refuse(self, number: int, expected: str) -> NoReturn:
        self.boxes[number].place.refuse(expected)

    def refuse_any(self, numbers: Ints, wrong: npt.ArrayLike, expected: str) -> None:
        for row in np.flatnonzero(wrong)[:1]:
            self.refuse(int(numbers[row]), expected)
