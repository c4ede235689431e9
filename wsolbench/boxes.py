"""Score map -> boxes at every threshold, exactly as the reference evaluator computes them.

Source: Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right", CVPR 2020,
https://arxiv.org/abs/2001.07437, and the behaviour of its evaluator (clovaai/wsolevaluation, commit 96f4b88).

A map is quantised to uint8 before it is cut, and a threshold below 1 means the level int(threshold * max(q)) <= 254.
So whatever the list of thresholds, an image has at most 255 binary maps: everything here is computed once per level and
looked up per threshold. Boxes are integers (x0, y0, x1, y1) with the reference's corners: x1 = x0 + width, clipped to
W - 1, so that x1 points one pixel past the object unless the object touches the right edge. IoU counts x1 - x0 + 1.
"""
# B images, N boxes of an image, M boxes of another list, H W map, h w raw map, T thresholds, L = 255 levels

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import cv2
import numpy as np
import numpy.typing as npt

from wsolbench.errors import unknown

if TYPE_CHECKING:  # tensors are read by duck typing: data code and workers import this module without torch
    from torch import Tensor

Array: TypeAlias = "npt.NDArray[Any] | Tensor"
Contours = Literal["single", "multi"]
CONVENTIONS = ("reference",)
LEVELS = 255


# --- values: raw map -> score map -> uint8 -> level ------------------------------------------------------------------


def normalize_maps(
    maps_Bhw: Array, size: int | tuple[int, int], convention: str = "reference"
) -> npt.NDArray[np.float64]:
    """Turn raw maps [B, h, w] into score maps [B, H, W] in [0, 1], float64, on the CPU.

    "reference": bicubic resize in float64 (OpenCV), then subtract the minimum, then divide by the new maximum; a map
    that holds a NaN or is constant becomes all zero. Float32 or another resize would change the quantised values.

    Args:
        maps_Bhw: numpy array or tensor, any real dtype.
        size: (H, W), or one number for a square; the evaluation resolution.
        convention: whose order of operations; an unknown one raises `UsageError`.

    >>> normalize_maps(np.array([[[1.0, 3.0], [2.0, 5.0]]]), 2).tolist()
    [[[0.0, 0.5], [0.25, 1.0]]]
    """
    if convention not in CONVENTIONS:
        raise unknown("convention", convention, CONVENTIONS)
    # .double() first: numpy has no bfloat16, and every narrower float is exact in float64
    raw = np.asarray(maps_Bhw, np.float64) if isinstance(maps_Bhw, np.ndarray) else to_numpy(maps_Bhw, double=True)
    if raw.ndim != 3 or 0 in raw.shape[1:]:
        raise ValueError(f"expected raw maps of shape [B, h, w], got {list(raw.shape)}")
    height, width = (size, size) if isinstance(size, int) else size
    maps = np.zeros((len(raw), height, width))
    for out, one in zip(maps, raw, strict=True):
        resized = cv2.resize(np.ascontiguousarray(one), (width, height), interpolation=cv2.INTER_CUBIC)
        if np.isnan(resized).any() or resized.min() == resized.max():
            continue
        with np.errstate(invalid="ignore"):  # an infinite map turns into NaN, which the metrics refuse
            shifted = resized - resized.min()
            out[:] = shifted / shifted.max()
    return maps


def quantize(maps_HW: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Quantise values in [0, 1] (any shape) to uint8 by truncation, so that only exactly 1 gives 255.

    >>> quantize(np.array([0.0, 0.999, 1.0])).tolist()
    [0, 254, 255]
    """
    return (maps_HW * 255).astype(np.uint8)


def threshold_grid(interval: float) -> npt.NDArray[np.float64]:
    """Return the reference's thresholds 0, interval, 2 interval, ... below 1 (float64 [T]).

    >>> len(threshold_grid(0.01)), len(threshold_grid(0.001))
    (100, 1000)
    """
    if not 0 < interval <= 1:
        raise ValueError(f"expected an interval in (0, 1], got {interval}")
    grid = np.arange(0, 1, interval, dtype=np.float64)
    return grid[grid < 1]  # arange may overshoot by one step when 1 / interval is not an integer in floating point


def level_of(thresholds: npt.ArrayLike, qmax: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return the level int(threshold * qmax), truncated from the float64 product as the reference does.

    The foreground of a quantised map is q > level. Thresholds lie in [0, 1), so the level lies in 0 .. qmax - 1 (0 if
    qmax is 0). The shape is that of `qmax` followed by that of `thresholds`.

    >>> level_of([0.0, 0.4, 0.999], [255, 3]).tolist()
    [[0, 102, 254], [0, 1, 2]]
    """
    wanted = np.asarray(thresholds, np.float64)
    if not ((wanted >= 0) & (wanted < 1)).all():
        raise ValueError(f"expected thresholds in [0, 1), got {wanted.tolist()}")
    return np.asarray(np.multiply.outer(np.asarray(qmax, np.float64), wanted)).astype(np.int64)


def otsu_level(q_HW: npt.NDArray[np.uint8]) -> int:
    """Return Otsu's level of a quantised map: the foreground is q > level (Otsu 1979, OpenCV's `THRESH_OTSU`).

    It lies in 0 .. max(q) - 1 (0 for an all-zero map), so the foreground is never empty unless the map is.

    >>> otsu_level(np.array([[0, 1, 200, 201]], np.uint8))
    1
    """
    level, _ = cv2.threshold(np.ascontiguousarray(q_HW), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return max(0, min(int(level), int(q_HW.max()) - 1))


# --- ground truth: original pixels -> evaluation frame ---------------------------------------------------------------


def resize_boxes(boxes_N4: Array, size_HW: tuple[int, int], resolution_HW: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Scale integer boxes [N, 4] from an image of `size_HW` to `resolution_HW`: int(c * resolution / size).

    Multiplied first in float64, then divided, truncated and not clipped: another order changes some coordinates.

    >>> resize_boxes(np.array([[0, 0, 61, 111]]), (112, 112), (224, 224)).tolist()
    [[0, 0, 122, 222]]
    """
    boxes = _check_box_list(boxes_N4, "boxes")
    new_H, new_W = resolution_HW
    height, width = size_HW
    scaled = boxes.astype(np.float64) * np.array([new_W, new_H] * 2, np.float64)
    return (scaled / np.array([width, height] * 2, np.float64)).astype(np.int64)


def resize_mask(mask_HW: npt.NDArray[np.uint8], resolution_HW: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Scale a mask (1 object, 0 background, 255 ignored) by nearest neighbour: source index floor(i * size / new)."""
    resized = cv2.resize(np.ascontiguousarray(mask_HW), resolution_HW[::-1], interpolation=cv2.INTER_NEAREST)
    return resized.astype(np.uint8, copy=False)


def iou_matrix(boxes_M4: Array, boxes_N4: Array) -> npt.NDArray[np.float64]:
    """Return the IoU [M, N] of two lists of integer boxes; extents count x1 - x0 + 1, a denominator <= 0 gives 0.

    Raises:
        TypeError: the boxes are not integers.
        ValueError: a list is not [N, 4], or a box is negative or has x1 < x0 or y1 < y0.

    >>> iou_matrix(np.array([[0, 0, 1, 1]]), np.array([[0, 0, 1, 1], [1, 1, 2, 2]])).round(3).tolist()
    [[1.0, 0.143]]
    """
    return _iou(_check_box_list(boxes_M4, "first boxes"), _check_box_list(boxes_N4, "second boxes"))


# --- score map -> boxes ----------------------------------------------------------------------------------------------


def boxes_at_threshold(map_HW: Array, threshold: float, contours: Contours = "single") -> npt.NDArray[np.int64]:
    """Return the boxes [M, 4] of one float64 score map [H, W] in [0, 1], cut at `threshold` in [0, 1) of its maximum.

    "single": one box, of the contour with the largest filled area. "multi": one box per contour, borders of holes
    included. A map whose foreground is empty gives the box (0, 0, 0, 0).

    >>> map_HW = np.zeros((8, 8)); map_HW[2:5, 2:6] = 1
    >>> boxes_at_threshold(map_HW, 0.5).tolist()
    [[2, 2, 6, 5]]
    """
    check_contours(contours)
    q = quantize(check_maps(map_HW, ndim=2))
    if q.max() == 0:
        return np.zeros((1, 4), np.int64)
    rectangles, _ = _rectangles(
        q > level_of(threshold, q.max()), single=contours == "single", multi=contours == "multi"
    )
    return _corners(rectangles, q.shape)


def best_iou_per_level(
    maps_BHW: Array, boxes: Sequence[Array], contours: Contours | Literal["both"] = "single", threads: int = 1
) -> npt.NDArray[np.float64]:
    """Return, for every level 0 .. 254, the best IoU of the map's boxes with any of the image's boxes.

    Args:
        maps_BHW: float64 score maps in [0, 1], numpy or tensor.
        boxes: per image the integer ground truth [N, 4], N >= 1, in the frame of the maps.
        contours: "single", "multi", or "both" (one pass for the two).
        threads: how many images are worked on at a time.

    Returns:
        float64 [B, 255]; for "both" [2, B, 255], single first. At levels >= max(q) no foreground is left, and the value
        is that of the box (0, 0, 0, 0); `level_of` never asks for them unless max(q) is 0.

    >>> map_HW = np.zeros((8, 8)); map_HW[2:5, 2:6] = 1
    >>> best_iou_per_level(map_HW[None], [np.array([[2, 2, 6, 5]])])[0, [0, 254]].tolist()
    [1.0, 1.0]
    """
    check_contours(contours, "both")
    single, multi = contours != "multi", contours != "single"
    q_BHW = quantize(check_maps(maps_BHW))
    truth = check_boxes(boxes, len(q_BHW), q_BHW.shape[1:])

    def work(index: int) -> npt.NDArray[np.float64]:
        return _best_iou(q_BHW[index], truth[index], single=single, multi=multi)

    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            rows = list(pool.map(work, range(len(q_BHW))))
    else:
        rows = [work(index) for index in range(len(q_BHW))]
    best = np.stack(rows, axis=1) if rows else np.zeros((single + multi, 0, LEVELS))
    return best if contours == "both" else best[0]


# --- the edge --------------------------------------------------------------------------------------------------------


def check_maps(maps: Array, ndim: int = 3) -> npt.NDArray[np.float64]:
    """Return score maps as a numpy array, or say in one sentence what is wrong with them.

    Raises:
        TypeError: not a numpy array or tensor, or not float64.
        ValueError: not [B, H, W] (ndim 3) or [H, W] (ndim 2), or a value is NaN or outside [0, 1].
    """
    values = to_numpy(maps)
    if values.dtype != np.float64:
        raise TypeError(f"expected float64 score maps, got {values.dtype}: use wsolbench.boxes.normalize_maps")
    if values.ndim != ndim or 0 in values.shape[-2:]:
        raise ValueError(
            f"expected score maps of shape {'[B, H, W]' if ndim == 3 else '[H, W]'}, got {list(values.shape)}"
        )
    if values.size:
        low, high = values.min(), values.max()
        if np.isnan(low):
            raise ValueError("expected score maps without NaN")
        if low < 0 or high > 1:
            raise ValueError(f"expected score maps in [0, 1], got values in [{low:g}, {high:g}]")
    return values


def check_boxes(boxes: Sequence[Array], count: int, size_HW: tuple[int, ...]) -> list[npt.NDArray[np.int64]]:
    """Return the ground truth of `count` images as int64 arrays, or say in one sentence what is wrong with it.

    Raises:
        TypeError: boxes are not integers.
        ValueError: another number of images, an image without boxes, a box that is not (x0, y0, x1, y1), or one that
            reaches outside the map, which means that it was not resized to the evaluation frame.
    """
    if len(boxes) != count:
        raise ValueError(f"expected the boxes of {count} images, got those of {len(boxes)}")
    height, width = size_HW
    checked = []
    for index, one in enumerate(boxes):
        array = _check_box_list(one, f"boxes of image {index}")
        if not len(array):
            raise ValueError(f"expected at least one box for image {index}, got none")
        # x1 = W is allowed: a box given as x0 + width may reach it, and the reference does not clip ground truth
        if array[:, 2].max() > width or array[:, 3].max() > height:
            raise ValueError(
                f"boxes of image {index} reach outside the {height}x{width} map: use wsolbench.boxes.resize_boxes"
            )
        checked.append(array)
    return checked


def _check_box_list(boxes: Array, what: str) -> npt.NDArray[np.int64]:
    array = to_numpy(boxes)
    if array.dtype.kind not in "iu":
        raise TypeError(f"expected integer {what}, got {array.dtype}")
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"expected {what} of shape [N, 4], got {list(array.shape)}")
    if (array < 0).any() or (array[:, 2:] < array[:, :2]).any():
        raise ValueError(f"expected {what} as 0 <= x0 <= x1, 0 <= y0 <= y1, got {array.tolist()}")
    return array.astype(np.int64, copy=False)


def to_numpy(array: Array, double: bool = False) -> npt.NDArray[Any]:
    """Return a numpy array, or a tensor of any device as one (`double`: cast to float64 on the way)."""
    if isinstance(array, np.ndarray):
        return array
    if not hasattr(array, "detach"):
        raise TypeError(f"expected a numpy array or a tensor, got {type(array).__name__}")
    tensor = array.detach().cpu()
    values: npt.NDArray[Any] = (tensor.double() if double else tensor).numpy()
    return values


def check_contours(contours: str, *more: str) -> None:
    """Raise `UsageError` unless `contours` is "single", "multi" or one of `more`."""
    known = (*get_args(Contours), *more)
    if contours not in known:
        raise unknown("contours", contours, known)


# --- the engine: one contour pass per distinct level -----------------------------------------------------------------


def _best_iou(
    q_HW: npt.NDArray[np.uint8], truth_N4: npt.NDArray[np.int64], *, single: bool, multi: bool
) -> npt.NDArray[np.float64]:
    """Return the best IoU per level of one image, float64 [modes, 255], single before multi."""
    best = np.empty((single + multi, LEVELS))
    best[:] = _iou(np.zeros((1, 4), np.int64), truth_N4).max()  # the empty map's box, at every level from max(q) on
    values = np.unique(q_HW)
    if values[-1] == 0:
        return best
    # q > t changes only where t is a value of the map, so these levels stand for all below max(q)
    starts = np.unique(np.append(0, values[:-1])).astype(np.int64)
    repeats = np.diff(np.append(starts, values[-1]))
    rectangles: list[Sequence[int]] = []
    first, largest = [], []
    for level in starts:
        found, index = _rectangles(q_HW > level, single=single, multi=multi)
        first.append(len(rectangles))
        largest.append(len(rectangles) + index)
        rectangles += found
    corners = _corners(rectangles, q_HW.shape)
    iou_M = np.zeros(len(corners))
    for box_4 in truth_N4:  # one box at a time: a noisy map has millions of contours over all levels
        np.maximum(iou_M, _iou(corners, box_4[None])[:, 0], out=iou_M)
    rows = [iou_M[largest]] * single + [np.maximum.reduceat(iou_M, first)] * multi
    for row, per_start in zip(best, rows, strict=True):
        row[: values[-1]] = np.repeat(per_start, repeats)
    return best


def _rectangles(binary_HW: npt.NDArray[np.bool_], *, single: bool, multi: bool) -> tuple[list[Sequence[int]], int]:
    """Return the rectangles (x, y, w, h) of a non-empty map's contours and the index of the one of largest area.

    The index means something if `single` is wanted; only that one rectangle is returned unless `multi` is wanted too.
    """
    # the full hierarchy: borders of holes, and what lies in them, are contours as well
    contours, _ = cv2.findContours(binary_HW.view(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    largest = 0
    if single and len(contours) > 1:
        areas = [cv2.contourArea(contour) for contour in contours]
        largest = areas.index(max(areas))  # ties go to the first in OpenCV's order
    if not multi:
        return [cv2.boundingRect(contours[largest])], 0
    return [cv2.boundingRect(contour) for contour in contours], largest


def _corners(rectangles_M4: Sequence[Sequence[int]], size_HW: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Return (x, y, w, h) as the reference's corners (x, y, min(x + w, W - 1), min(y + h, H - 1))."""
    boxes = np.array(rectangles_M4, np.int64)
    boxes[:, 2] = np.minimum(boxes[:, 0] + boxes[:, 2], size_HW[1] - 1)
    boxes[:, 3] = np.minimum(boxes[:, 1] + boxes[:, 3], size_HW[0] - 1)
    return boxes


def _iou(a_M4: npt.NDArray[np.int64], b_N4: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    a, b = a_M4[:, None], b_N4[None]
    extent = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + 1
    intersection = np.maximum(extent, 0).prod(-1)
    union = (a[..., 2:] - a[..., :2] + 1).prod(-1) + (b[..., 2:] - b[..., :2] + 1).prod(-1) - intersection
    return np.where(union > 0, intersection / np.maximum(union, 1), 0.0)
