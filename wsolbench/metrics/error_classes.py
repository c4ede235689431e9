"""What is wrong with a predicted box: hit, part, more, several instances, wrong place; or its class is wrong.

Source: the released code of TS-CAM (Gao et al., ICCV 2021; vasgaowei/TS-CAM, commit 25aece4, `lib/cams_deit.py`,
`get_badcase_detail`). With p the predicted box, g the true box of highest IoU with it (the first one where several
share it) and |.| the number of pixels, the first of these that holds is the class of the location:

    hit                 IoU(p, g) >= the IoU level
    several instances   at least two true boxes t have |p n t| / |t| > .3
    part                |p n g| / |p| > .5       most of the predicted box lies in the object
    more                |p n g| / |g| >= .7      most of the object lies in the predicted box
    wrong place         none of these

So the classes exclude one another, and every box has one. "wrong class" says that the label is not the class of highest
score; as in TS-CAM it comes before all of these, hits too, in the combined class. It is kept apart from the class of
the location, which is of use to GT-known Loc and to methods without a classifier.

One deviation: a hit reaches the IoU level inclusively, as everywhere in this package (TS-CAM: > .5).
"""
# B images, N true boxes of an image, S true boxes of all images

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from wsolbench.boxes.arrays import Array, to_numpy

COVERED = 0.3  # share of a true box that must be covered, exclusive, for it to count as one of several
INSIDE = 0.5  # share of the predicted box that lies in the object, exclusive
CONTAINED = 0.7  # share of the object that lies in the predicted box, inclusive

Codes = npt.NDArray[np.int8]


class ErrorClass(IntEnum):
    """The classes; `str` gives the name that files show."""

    HIT = 0
    PART = 1
    MORE = 2
    SEVERAL_INSTANCES = 3
    WRONG_PLACE = 4
    WRONG_CLASS = 5

    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")


class Errors(NamedTuple):
    """Per image the class of the location, never WRONG_CLASS, and the class that knows of the label too: int8 [B]."""

    location: Codes
    combined: Codes | None  # None where nothing is known of the predicted class

    def counts(self) -> dict[str, dict[str, int]]:
        """Count the images of each class, by the metric whose misses they explain and whose hits they share.

        >>> Errors(np.array([0, 0, 4], np.int8), None).counts()
        {'GT-known': {'hit': 2, 'part': 0, 'more': 0, 'several instances': 0, 'wrong place': 1}}
        """
        of_location = [each for each in ErrorClass if each is not ErrorClass.WRONG_CLASS]
        counts = {"GT-known": _count(self.location, of_location)}
        return counts if self.combined is None else counts | {"Top-1": _count(self.combined, list(ErrorClass))}


def classify_errors(
    boxes_B4: Array, truths: Sequence[Array], correct_class_B: npt.ArrayLike | None = None, iou: float = 0.5
) -> Errors:
    """Classify one predicted box per image against the image's true boxes.

    Args:
        boxes_B4: predicted boxes as integers (x0, y0, x1, y1) that count x1 - x0 + 1 pixels.
        truths: per image its true boxes [N, 4], N >= 1, in the same frame.
        correct_class_B: whether the class of highest score is the label; None without a classifier.
        iou: the level to reach, inclusive.

    Raises:
        ValueError: another number of images, an image without true boxes, or another shape than said.

    >>> truth = np.array([[0, 0, 9, 9]])
    >>> boxes = np.array([[0, 0, 9, 8], [0, 0, 3, 3], [0, 0, 19, 19], [30, 30, 39, 39]])
    >>> [str(ErrorClass(code)) for code in classify_errors(boxes, [truth] * 4).location]
    ['hit', 'part', 'more', 'wrong place']
    >>> pair = np.array([[0, 0, 9, 9], [20, 0, 29, 9]])
    >>> errors = classify_errors(np.array([[0, 0, 29, 9]] * 2), [pair] * 2, [True, False])
    >>> [[str(ErrorClass(code)) for code in each] for each in errors]
    [['several instances', 'several instances'], ['several instances', 'wrong class']]
    """
    boxes = to_numpy(boxes_B4)
    counts = np.array([len(one) for one in truths], np.int64)
    if boxes.shape != (len(counts), 4):
        raise ValueError(f"expected predicted boxes of shape [{len(counts)}, 4], got {list(boxes.shape)}")
    if not counts.all():
        raise ValueError(f"expected at least one true box for image {int(counts.argmin())}, got none")
    location = _locations(boxes.astype(np.int64), truths, counts, iou) if len(counts) else np.zeros(0, np.int8)
    if correct_class_B is None:
        return Errors(location, None)
    correct = np.asarray(correct_class_B, np.bool_)
    if correct.shape != location.shape:
        raise ValueError(f"expected one answer per image, [{len(counts)}], got {list(correct.shape)}")
    return Errors(location, np.where(correct, location, ErrorClass.WRONG_CLASS).astype(np.int8))


def _count(codes: Codes, classes: Sequence[ErrorClass]) -> dict[str, int]:
    counts = np.bincount(codes, minlength=len(ErrorClass)).tolist()
    return {str(each): counts[each] for each in classes}


def _locations(
    boxes_B4: npt.NDArray[np.int64], truths: Sequence[Array], counts_B: npt.NDArray[np.int64], iou: float
) -> Codes:
    truths_S4 = np.concatenate([to_numpy(one) for one in truths]).astype(np.int64)
    starts_B, image_S = counts_B.cumsum() - counts_B, np.repeat(np.arange(len(counts_B)), counts_B)
    boxes_S4 = boxes_B4[image_S]
    shared_S = _pixels(np.maximum(boxes_S4[:, :2], truths_S4[:, :2]), np.minimum(boxes_S4[:, 2:], truths_S4[:, 2:]))
    box_S, truth_S = (_pixels(each[:, :2], each[:, 2:]) for each in (boxes_S4, truths_S4))
    iou_S = shared_S / (box_S + truth_S - shared_S)
    best_B = np.maximum.reduceat(iou_S, starts_B)
    is_best_S = np.flatnonzero(iou_S == best_B[image_S])
    best_of_B = is_best_S[np.unique(image_S[is_best_S], return_index=True)[1]]  # the first one of each image
    covered_B = np.add.reduceat(shared_S / truth_S > COVERED, starts_B, dtype=np.int64)
    rules = {
        ErrorClass.HIT: best_B >= iou,
        ErrorClass.SEVERAL_INSTANCES: covered_B > 1,
        ErrorClass.PART: (shared_S / box_S > INSIDE)[best_of_B],
        ErrorClass.MORE: (shared_S / truth_S >= CONTAINED)[best_of_B],
    }
    return np.select(list(rules.values()), list(rules), ErrorClass.WRONG_PLACE).astype(np.int8)


def _pixels(low_S2: npt.NDArray[np.int64], high_S2: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Pixels of boxes, 0 where the corners have crossed."""
    width_S, height_S = np.maximum(high_S2 - low_S2 + 1, 0).T
    pixels: npt.NDArray[np.int64] = width_S * height_S
    return pixels
