"""The maths of the metrics as pure numpy functions: the metric classes and the stored outcomes give one number.

Source: Choe et al., CVPR 2020, https://arxiv.org/abs/2001.07437, and clovaai/wsolevaluation (commit 96f4b88).
"""
# B images, I IoU levels, T thresholds, L = 255 levels of a quantised map, K classes

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from wsolbench.boxes.maps import level_of, threshold_grid


class BoxSummary(TypedDict):
    """A box metric's outcome: accuracies in [0, 1], the curve they were read from, and where."""

    value: float  # mean over the IoU levels of the accuracy at the chosen threshold
    per_iou: dict[float, float]
    hits: npt.NDArray[np.int64]  # [I, T] correct images
    count: int
    thresholds: npt.NDArray[np.float64]  # [T]
    best_thresholds: dict[float, float]


class PixelSummary(TypedDict):
    """A pixel metric's outcome; the curves run over thresholds [T + 1], ascending, foreground is score >= threshold."""

    value: float
    precision: npt.NDArray[np.float64]  # NaN where no pixel reaches the threshold
    recall: npt.NDArray[np.float64]
    iou: npt.NDArray[np.float64]  # TP / (TP + FP + FN)
    thresholds: npt.NDArray[np.float64]
    piou: float  # the peak of `iou`
    piou_threshold: float  # the lowest threshold where it is reached


def box_hits(
    best_BL: npt.NDArray[np.float64], qmax_B: npt.ArrayLike, thresholds_T: npt.ArrayLike, ious: Sequence[float]
) -> npt.NDArray[np.bool_]:
    """Say which images are correct (best IoU >= level, inclusive): bool [B, I, T].

    >>> best = np.linspace(0, 1, 255)[None]
    >>> box_hits(best, [255], [0.2, 0.8], [0.5]).tolist()
    [[[False, True]]]
    """
    best_BT = np.take_along_axis(best_BL, level_of(thresholds_T, qmax_B), axis=1)
    return best_BT[:, None, :] >= np.asarray(ious, np.float64)[:, None]


def summarize_boxes(
    hits_IT: npt.NDArray[np.int64],
    count: int,
    ious: Sequence[float],
    thresholds_T: npt.NDArray[np.float64],
    choose_by_IT: npt.NDArray[np.int64] | None = None,
) -> BoxSummary:
    """Choose a threshold per IoU level (the first best one) and average the accuracies there.

    `choose_by_IT` are the counts to choose by when they are others than those reported (Top-k Loc is read at the
    threshold that is best for GT-known Loc).

    >>> out = summarize_boxes(np.array([[1, 3, 3]]), 4, [0.5], np.array([0.0, 0.1, 0.2]))
    >>> out["value"], out["best_thresholds"]
    (0.75, {0.5: 0.1})
    """
    if not count:
        raise RuntimeError("expected at least one image before the metric is computed: call update first")
    chosen = (hits_IT if choose_by_IT is None else choose_by_IT).argmax(1)
    accuracies = [int(row[best]) / count for row, best in zip(hits_IT, chosen, strict=True)]
    return {
        "value": sum(accuracies) / len(accuracies),
        "per_iou": dict(zip(ious, accuracies, strict=True)),
        "hits": hits_IT,
        "count": count,
        "thresholds": thresholds_T,
        "best_thresholds": {iou: float(thresholds_T[best]) for iou, best in zip(ious, chosen, strict=True)},
    }


def pixel_histograms(
    maps_BHW: npt.NDArray[np.float64], masks_BHW: npt.NDArray[Any], interval: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Count foreground (mask 1) and background (mask 0) pixels per bin of the float64 score: two int64 [T + 2].

    Bin edges are the thresholds followed by 1, 2, 3, left-closed: a score of exactly 1 has a bin of its own, and the
    last bin is always empty. Pixels with mask 255 are ignored. Scores are not quantised.

    Raises:
        ValueError: another shape than the maps, or a mask value other than 0, 1 and 255.

    >>> maps, masks = np.array([[[0.0, 0.5, 1.0, 0.2]]]), np.array([[[0, 1, 1, 255]]])
    >>> [h.tolist() for h in pixel_histograms(maps, masks, 0.5)]
    [[0, 1, 1, 0], [1, 0, 0, 0]]
    """
    if masks_BHW.shape != maps_BHW.shape:
        raise ValueError(f"expected masks of the maps' shape {list(maps_BHW.shape)}, got {list(masks_BHW.shape)}")
    foreground, background = masks_BHW == 1, masks_BHW == 0
    if not (foreground | background | (masks_BHW == 255)).all():
        raise ValueError("expected mask values 1 (object), 0 (background) and 255 (ignored) only")
    grid = threshold_grid(interval)
    starts = np.append(grid, 1.0)
    bins = np.searchsorted(starts, maps_BHW, side="right") - 1
    size = len(starts) + 1
    return (
        np.bincount(bins[foreground], minlength=size).astype(np.int64),
        np.bincount(bins[background], minlength=size).astype(np.int64),
    )


def summarize_pixels(
    foreground: npt.NDArray[np.int64], background: npt.NDArray[np.int64], interval: float
) -> PixelSummary:
    """Compute PxAP and peak IoU from pooled histograms [T + 2].

    PxAP = sum over bins, from the highest down, of (recall increase) x (precision): no interpolation, no envelope.
    Peak IoU = max over thresholds of TP / (TP + FP + FN).

    Raises:
        ValueError: there is no foreground pixel.

    >>> out = summarize_pixels(np.array([0, 1, 1, 0]), np.array([1, 0, 0, 0]), 0.5)
    >>> out["value"], out["piou"]
    (1.0, 1.0)
    """
    total = int(foreground.sum())
    if not total:
        raise ValueError("expected at least one foreground pixel, got none: PxAP is undefined")
    tp, fp = foreground[::-1].cumsum(), background[::-1].cumsum()
    kept = tp + fp
    precision = np.full(len(kept), np.nan)
    np.divide(tp, kept, out=precision, where=kept > 0)
    recall = tp / total
    value = (precision[1:] * np.diff(recall))[kept[1:] > 0].sum()
    iou = (tp / (total + fp))[:0:-1].copy()
    thresholds = np.append(threshold_grid(interval), 1.0)
    return {
        "value": float(value),
        "precision": precision[:0:-1].copy(),
        "recall": recall[:0:-1].copy(),
        "iou": iou,
        "thresholds": thresholds,
        "piou": float(iou.max()),
        "piou_threshold": float(thresholds[iou.argmax()]),
    }
