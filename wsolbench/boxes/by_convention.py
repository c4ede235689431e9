"""One map and one image's ground truth, the way a paper's released code handles them: what a `Convention` declares, computed.

Pure functions; checked against the released evaluators themselves (tests/evaluation/test_conventions.py).
"""
# B images of a batch, N boxes of an image, T thresholds, H W evaluation frame, h w raw map

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wsolbench.boxes.arrays import Bools, Floats
from wsolbench.boxes.truth import resize_boxes
from wsolbench.conventions import Comparison, Convention
from wsolbench.errors import WsolbenchError
from wsolbench.types import Annotation

COMPARE: dict[Comparison, Callable[[Any, Any], Any]] = {">": operator.gt, ">=": operator.ge}


# --- score map -> box ------------------------------------------------------------------------------------------------


def boxes_of_map(
    convention: Convention, map_HW: npt.NDArray[Any], thresholds: Sequence[float]
) -> npt.NDArray[np.int32]:
    """Return the one box (x0, y0, x1, y1) of a score map [H, W] at each threshold: int32 [T, 4].

    >>> from wsolbench.conventions import get_convention
    >>> map_HW = np.zeros((8, 8)); map_HW[4:, 5:] = 1
    >>> boxes_of_map(get_convention("sat (box rule only)"), map_HW, [0.3]).tolist()
    [[5, 4, 8, 8]]
    """
    height, width = map_HW.shape
    values = (map_HW * 255).astype(np.uint8) if convention.quantised else map_HW
    full = float(values.max()) if convention.relative else 255.0 if convention.quantised else 1.0
    boxes = np.empty((len(thresholds), 4), np.int32)
    for box, threshold in zip(boxes, thresholds, strict=True):
        cut = int(threshold * full) if convention.quantised else threshold * full
        rectangle = _region(convention, COMPARE[convention.comparison](values, cut))
        if rectangle is None:
            box[:] = _empty_box(convention, height, width)
            continue
        x, y, w, h = rectangle
        box[:] = x, y, x + w, y + h
        if convention.corners == "clipped":
            box[2:] = np.minimum(box[2:], (width - 1, height - 1))
    return boxes


def _empty_box(convention: Convention, height: int, width: int) -> tuple[int, int, int, int]:
    return {"(0, 0, 0, 0)": (0, 0, 0, 0), "(0, 0, 1, 1)": (0, 0, 1, 1), "whole frame": (0, 0, width, height)}[
        convention.empty
    ]


def _region(convention: Convention, binary_HW: Bools) -> Sequence[int] | None:
    """Return the rectangle (x, y, w, h) of the region the convention boxes; None without foreground."""
    mask = np.ascontiguousarray(binary_HW).view(np.uint8)
    if convention.region == "largest contour":
        contours, _ = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        return cv2.boundingRect(max(contours, key=cv2.contourArea)) if contours else None
    _, labels_HW, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=convention.connectivity)
    pixels = stats[1:, cv2.CC_STAT_AREA]  # the first is the background
    if not len(pixels):
        return None
    tied = 1 + np.flatnonzero(pixels == pixels.max())
    largest = int(tied[0])
    if len(tied) > 1:  # OpenCV numbers components by blocks of pixels, not by their first pixel in raster order
        flat = labels_HW.ravel()
        largest = int(flat[np.isin(flat, tied).argmax()])
    x, y, w, h, _ = map(int, stats[largest])
    return x, y, w, h


# --- boxes -> hits ---------------------------------------------------------------------------------------------------


def truth_boxes(convention: Convention, annotation: Annotation, resolution_HW: tuple[int, int]) -> Floats:
    """Return an image's ground truth boxes in the convention's frame: float64 [N, 4], whole numbers but for "fractional".

    Raises:
        WsolbenchError: the image has no boxes.

    >>> from wsolbench.conventions import get_convention
    >>> annotation = Annotation("a", (100, 100), np.array([[0, 10, 61, 99]]))
    >>> truth_boxes(get_convention("sat"), annotation, (224, 224)).tolist()
    [[0.0, 9.0, 140.0, 223.0]]
    >>> truth_boxes(get_convention("bas"), annotation, (224, 224)).round(2).tolist()
    [[0.0, 9.6, 140.16, 224.0]]
    """
    if annotation.boxes_N4 is None or not len(annotation.boxes_N4):
        raise WsolbenchError(f"image '{annotation.id}' has no boxes, so its map cannot be scored")
    boxes = annotation.boxes_N4
    if convention.truth == "multiply first":
        return resize_boxes(boxes, annotation.size_HW, resolution_HW).astype(np.float64)
    size = np.array(annotation.size_HW[::-1] * 2, np.float64)
    side = np.array(resolution_HW[::-1] * 2, np.float64)
    margin = np.array(convention.margins_HW(resolution_HW)[::-1] * 2, np.float64)
    resized = side + 2 * margin
    if convention.truth == "fractional":
        scaled = boxes * (resized / size)
        scaled[:, :2] = np.maximum(scaled[:, :2], margin[:2])
        scaled[:, 2:] = np.minimum(scaled[:, 2:], (margin + side)[2:])
        fractional: Floats = (scaled - margin) / side * side  # the code passes through [0, 1]: same roundings
        return fractional
    scaled = boxes / size * resized - margin
    scaled[:, :2] = np.maximum(scaled[:, :2], 0)
    scaled[:, 2:] = np.minimum(scaled[:, 2:], (side - 1)[2:])
    whole: Floats = np.trunc(scaled)
    return whole


def best_iou(boxes_T4: npt.NDArray[Any], truth_N4: Floats, extent: int = 1) -> Floats:
    """Return the best IoU of each box with any true box: float64 [T]; extents count x1 - x0 + `extent`.

    A true box that lies outside the crop is inverted: it intersects nothing, and IoU is 0 with it.
    """
    a, b = boxes_T4.astype(np.float64)[:, None], truth_N4[None]
    overlap = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + extent, 0).prod(-1)
    union = (a[..., 2:] - a[..., :2] + extent).prod(-1) + (b[..., 2:] - b[..., :2] + extent).prod(-1) - overlap
    best: Floats = np.divide(overlap, union, out=np.zeros_like(overlap), where=overlap > 0).max(axis=1)
    return best
