"""Ground truth, from original pixels to the evaluation frame, and how well boxes agree."""
# N boxes of an image, M boxes of another list, H W image

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from wsolbench.boxes.arrays import Array, check_box_list


def resize_boxes(boxes_N4: Array, size_HW: tuple[int, int], resolution_HW: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Scale integer boxes [N, 4] from an image of `size_HW` to `resolution_HW`: int(c * resolution / size).

    Multiplied first in float64, then divided, truncated and not clipped: another order changes some coordinates.

    >>> resize_boxes(np.array([[0, 0, 61, 111]]), (112, 112), (224, 224)).tolist()
    [[0, 0, 122, 222]]
    """
    boxes = check_box_list(boxes_N4, "boxes")
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
    return _iou(check_box_list(boxes_M4, "first boxes"), check_box_list(boxes_N4, "second boxes"))


def _iou(a_M4: npt.NDArray[np.int64], b_N4: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    a, b = a_M4[:, None], b_N4[None]
    extent = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]) + 1
    intersection = np.maximum(extent, 0).prod(-1)
    union = (a[..., 2:] - a[..., :2] + 1).prod(-1) + (b[..., 2:] - b[..., :2] + 1).prod(-1) - intersection
    return np.where(union > 0, intersection / np.maximum(union, 1), 0.0)
