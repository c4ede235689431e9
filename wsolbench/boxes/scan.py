"""Score map -> boxes at every threshold, exactly as the reference evaluator computes them.

Source: Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right", CVPR 2020,
https://arxiv.org/abs/2001.07437, and the behaviour of its evaluator (clovaai/wsolevaluation, commit 96f4b88).

A map is quantised to uint8 before it is cut, and a threshold below 1 means the level int(threshold * max(q)) <= 254.
So whatever the list of thresholds, an image has at most 255 binary maps: `wsolbench.boxes.onepass` computes them all at once,
and a threshold is looked up. Boxes are integers (x0, y0, x1, y1) with the reference's corners: x1 = x0 + width, clipped
to W - 1, so that x1 points one pixel past the object unless the object touches the right edge. IoU counts x1 - x0 + 1.
"""
# B images, N boxes of an image, M boxes of another list, H W map, L = 255 levels

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from wsolbench.boxes.arrays import (
    LEVELS,
    Array,
    Contours,
    check_boxes,
    check_contours,
    check_maps,
)
from wsolbench.boxes.maps import level_of, quantize

# --- score map -> boxes ----------------------------------------------------------------------------------------------


class Scan(NamedTuple):
    """What `scan_maps` finds of B maps at the levels 0 .. 254.

    At levels >= max(q) no foreground is left, and everything is that of the box (0, 0, 0, 0); `level_of` never asks for
    them unless max(q) is 0.
    """

    iou_MBL: npt.NDArray[np.float64]  # best IoU with any of the image's boxes, per contour mode, single before multi
    boxes_BL4: npt.NDArray[np.int16]  # box of the largest contour; zeros unless the mode is among those asked for
    q_BHW: npt.NDArray[np.uint8]  # the maps as they were cut, quantised
    qmax_B: npt.NDArray[np.uint8]  # their largest values


def scan_maps(
    maps_BHW: Array, boxes: Sequence[Array], contours: Contours | Literal["both"] = "both", threads: int = 1
) -> Scan:
    """Find boxes and their best IoU at every level.

    Args:
        maps_BHW: float64 score maps in [0, 1], numpy or tensor.
        boxes: per image the integer ground truth [N, 4], N >= 1, in the frame of the maps.
        contours: "single", "multi", or "both".
        threads: how many images are worked on at a time; the interpreter lock is released meanwhile.

    >>> map_HW = np.zeros((8, 8)); map_HW[2:5, 2:6] = 1
    >>> found = scan_maps(map_HW[None], [np.array([[2, 2, 6, 6]])])
    >>> found.iou_MBL[:, 0, 0].tolist(), found.boxes_BL4[0, 0].tolist()
    ([0.8, 0.8], [2, 2, 6, 5])
    """
    from wsolbench.boxes.onepass import scan  # compiles on first use

    check_contours(contours, "both")
    single, multi = contours != "multi", contours != "single"
    q_BHW = quantize(check_maps(maps_BHW))
    truth = check_boxes(boxes, len(q_BHW), q_BHW.shape[1:])
    iou_MBL = np.empty((single + multi, len(q_BHW), LEVELS))
    boxes_BL4 = np.zeros((len(q_BHW), LEVELS, 4), np.int16)

    def work(first: int) -> None:
        for index in range(first, len(q_BHW), threads):
            iou_MBL[:, index], boxes_BL4[index] = scan(q_BHW[index], truth[index], single=single, multi=multi)

    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))
    else:
        work(0)
    return Scan(iou_MBL, boxes_BL4, q_BHW, q_BHW.max(axis=(1, 2)))


def best_iou_per_level(
    maps_BHW: Array, boxes: Sequence[Array], contours: Contours | Literal["both"] = "single", threads: int = 1
) -> npt.NDArray[np.float64]:
    """Return, for every level 0 .. 254, the best IoU of the map's boxes with any of the image's boxes.

    Arguments as in `scan_maps`. Returns float64 [B, 255]; for "both" [2, B, 255], single first.

    >>> map_HW = np.zeros((8, 8)); map_HW[2:5, 2:6] = 1
    >>> best_iou_per_level(map_HW[None], [np.array([[2, 2, 6, 5]])])[0, [0, 254]].tolist()
    [1.0, 1.0]
    """
    best = scan_maps(maps_BHW, boxes, contours, threads).iou_MBL
    return best if contours == "both" else best[0]


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
    binary = (q > level_of(threshold, q.max())).view(np.uint8)
    # the full hierarchy: borders of holes, and what lies in them, are contours as well
    found, _ = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    if contours == "single":
        found = [max(found, key=cv2.contourArea)]  # a tie goes to the first in OpenCV's order
    boxes = np.array([cv2.boundingRect(contour) for contour in found], np.int64)
    boxes[:, 2:] = np.minimum(boxes[:, :2] + boxes[:, 2:], [q.shape[1] - 1, q.shape[0] - 1])
    return boxes
