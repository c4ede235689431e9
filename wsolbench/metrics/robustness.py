"""How much a box accuracy depends on its threshold: the plateau around the optimum, and the area under the curve.

Both describe the curve "box accuracy over thresholds" (`BoxAcc` at one IoU level in Choe et al., CVPR 2020) on a grid
0 = t_0 < ... < t_(T-1) < 1. A threshold t_i stands for its cell [t_i, t_(i+1)), the last one for [t_(T-1), 1). The two
numbers are this project's own: no source was found that defines them.

* plateau: the cells around the best threshold (the first best one, as everywhere) that follow one another without a gap
  and whose accuracy is at most `tolerance` below the best, inclusive. Its width is a share of the thresholds [0, 1).
* area: the mean of the accuracy over [0, 1), that is the expected accuracy at a threshold drawn at random.
"""
# n images, R resamples, T thresholds

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from wsolbench.boxes.arrays import to_numpy

if TYPE_CHECKING:
    from wsolbench.metrics.functional import BoxSummary
    from wsolbench.metrics.maxboxacc import BoxResult

TOLERANCE = 0.01  # "within one point of the optimum"

Floats: TypeAlias = npt.NDArray[np.float64]


class Robustness(NamedTuple):
    """Of one curve: the plateau [low, high) in thresholds, and the mean accuracy over all thresholds, in [0, 1]."""

    low: float
    high: float
    area: float

    @property
    def width(self) -> float:
        """Width of the plateau."""
        return self.high - self.low


def robustness(outcome: BoxSummary | BoxResult, tolerance: float = TOLERANCE) -> dict[float, Robustness]:
    """Describe the curves of a box metric, by IoU level.

    Args:
        outcome: what a box metric's `compute()` or `Levels.box_summary()` returns.
        tolerance: how far below the best accuracy the plateau reaches, a fraction.

    >>> from wsolbench.metrics.functional import summarize_boxes
    >>> curve = summarize_boxes(np.array([[1, 4, 4, 1]]), 4, [0.5], np.arange(0, 1, 0.25))
    >>> robustness(curve)[0.5]
    Robustness(low=0.25, high=0.75, area=0.625)
    """
    hits_IT, thresholds_T = to_numpy(outcome["hits"]), to_numpy(outcome["thresholds"])
    low, high = plateau(hits_IT, outcome["count"], thresholds_T, tolerance)
    areas = area(hits_IT, outcome["count"], thresholds_T)
    rows = zip(low.tolist(), high.tolist(), areas.tolist(), strict=True)
    return {iou: Robustness(*row) for iou, row in zip(outcome["per_iou"], rows, strict=True)}


def plateau(
    hits_RT: npt.ArrayLike, count: npt.ArrayLike, thresholds_T: Floats, tolerance: float = TOLERANCE
) -> tuple[Floats, Floats]:
    """Return where the plateau of each curve begins and ends: two float64 [R].

    Args:
        hits_RT: correct images per curve and threshold.
        count: how many images there are; one number, or one per curve.
        thresholds_T: ascending, in [0, 1).
        tolerance: as in `robustness`; at least 0.

    >>> low, high = plateau([[50, 100, 99, 98, 99]], 100, np.arange(0, 1, 0.2))
    >>> low.round(6).tolist(), high.round(6).tolist()
    ([0.2], [0.6])
    """
    if tolerance < 0:
        raise ValueError(f"expected a tolerance of at least 0, got {tolerance}")
    hits = np.asarray(hits_RT)
    best = hits.argmax(1)[:, None]
    # in whole images; rounded first, since 0.07 * 100 is more than 7 and 0.29 * 100 less than 29 in floating point
    allowed = np.floor(np.round(tolerance * np.atleast_1d(np.asarray(count, np.float64)), 6))
    below = hits < np.take_along_axis(hits, best, axis=1) - allowed[:, None]
    index = np.arange(hits.shape[1])
    first = np.where(below & (index < best), index + 1, 0).max(1)
    end = np.where(below & (index > best), index, len(index)).min(1)
    edges = np.append(thresholds_T, 1.0)
    return edges[first], edges[end]


def area(hits_RT: npt.ArrayLike, count: npt.ArrayLike, thresholds_T: Floats) -> Floats:
    """Return the mean accuracy over the thresholds [0, 1) of each curve, float64 [R]; arguments as in `plateau`.

    >>> area([[4, 2, 0, 0]], 4, np.arange(0, 1, 0.25)).tolist()
    [0.375]
    """
    widths = np.diff(np.append(thresholds_T, 1.0))
    values: Floats = np.asarray(hits_RT, np.float64) @ widths / np.asarray(count, np.float64)
    return values


# --- statistics for `Levels.bootstrap`: the curve of each resample ---------------------------------------------------


def plateau_of(
    hits_nT: npt.NDArray[np.bool_], thresholds_T: Floats, tolerance: float = TOLERANCE
) -> Callable[[npt.NDArray[np.float32]], Floats]:
    """Return the statistic "width of the plateau"; the best threshold is chosen anew in every resample.

    >>> hits = np.array([[True, True], [True, False]])
    >>> plateau_of(hits, np.array([0.0, 0.5]))(np.array([[1, 1], [2, 0]], np.float32)).tolist()
    [0.5, 1.0]
    """
    hits = hits_nT.astype(np.float32)  # products are exact: all sums are integers below 2 ** 24

    def statistic(drawn_Rn: npt.NDArray[np.float32]) -> Floats:
        low, high = plateau(drawn_Rn @ hits, drawn_Rn.sum(1, dtype=np.float64), thresholds_T, tolerance)
        return high - low

    return statistic


def area_of(hits_nT: npt.NDArray[np.bool_], thresholds_T: Floats) -> Callable[[npt.NDArray[np.float32]], Floats]:
    """Return the statistic "area under the accuracy".

    >>> hits = np.array([[True, True], [True, False]])
    >>> area_of(hits, np.array([0.0, 0.5]))(np.array([[1, 1], [0, 2]], np.float32)).tolist()
    [0.75, 0.5]
    """
    hits = hits_nT.astype(np.float32)

    def statistic(drawn_Rn: npt.NDArray[np.float32]) -> Floats:
        return area(drawn_Rn @ hits, drawn_Rn.sum(1, dtype=np.float64), thresholds_T)

    return statistic
