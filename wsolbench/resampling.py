"""Statistics of resampled images: what `Levels.bootstrap` computes intervals of.

A statistic maps how often each image was drawn, float32 [R, n], to values [R]. Sums are matrix products, taken over
blocks of images so that memory does not grow with their number.
"""
# n images, T thresholds, R resamples

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

BLOCK = 1024  # images looked at a time

Floats: TypeAlias = npt.NDArray[np.float64]
Statistic: TypeAlias = Callable[[npt.NDArray[np.float32]], Floats]


def interval_of(values_R: Floats) -> tuple[float, float]:
    """Return the 95 % percentile interval of resampled values."""
    low, high = np.percentile(values_R, [2.5, 97.5])
    return float(low), float(high)


def mean_of(outcomes_n: npt.NDArray[np.bool_]) -> Statistic:
    """Return the statistic "share of correct images", for accuracies at a fixed threshold.

    >>> mean_of(np.array([True, False]))(np.array([[2, 0], [1, 1]], np.float32)).tolist()
    [1.0, 0.5]
    """
    return best_of(outcomes_n[:, None])


def best_of(*hits_nT: npt.NDArray[np.bool_], read_nT: npt.NDArray[np.bool_] | None = None) -> Statistic:
    """Return the statistic of an oracle cell: the best threshold is chosen anew in every resample.

    Several matrices (one per IoU level) are maximised separately, then averaged, as in MaxBoxAccV2. With `read_nT` the
    threshold is chosen by the one matrix `hits_nT` and the value read from the other: Top-k Loc chosen by GT-known Loc.

    >>> best_of(np.array([[True, False], [False, True]]))(np.array([[2, 0], [1, 1]], np.float32)).tolist()
    [1.0, 0.5]
    """
    if read_nT is not None and len(hits_nT) != 1:
        raise ValueError(f"expected one matrix to choose by when another is read, got {len(hits_nT)}")
    # float32 products are exact: all sums are integers below 2 ** 24; equal columns are kept once, the first of them
    chosen, kept = zip(*(_distinct(hits, read_nT) for hits in hits_nT), strict=True)
    read = None if read_nT is None else read_nT if len(kept[0]) == read_nT.shape[1] else read_nT[:, kept[0]]

    def statistic(drawn_Rn: npt.NDArray[np.float32]) -> Floats:
        counts = [_counted(drawn_Rn, hits) for hits in chosen]
        if read is not None:
            at_R = counts[0].argmax(1)
            best = [np.take_along_axis(_counted(drawn_Rn, read), at_R[:, None], axis=1)[:, 0]]
        else:
            best = [count.max(1) for count in counts]
        values: Floats = np.mean(np.stack(best).astype(np.float64), axis=0) / drawn_Rn.sum(1, dtype=np.float64)
        return values

    return statistic


def _counted(drawn_Rn: npt.NDArray[np.float32], hits_nT: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """How many correct images each resample has at each threshold, [R, T]; as float32 all of them would take 4 times the space."""
    counts = np.zeros((len(drawn_Rn), hits_nT.shape[1]), np.float32)
    for first in range(0, len(hits_nT), BLOCK):
        counts += drawn_Rn[:, first : first + BLOCK] @ hits_nT[first : first + BLOCK].astype(np.float32)
    return counts


def _distinct(
    hits_nT: npt.NDArray[np.bool_], read_nT: npt.NDArray[np.bool_] | None
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Return the distinct columns in order, and their indices: 1,000 thresholds cut a map in 255 ways."""
    changes = np.append(True, np.zeros(hits_nT.shape[1] - 1, np.bool_))
    for matrix in (hits_nT,) if read_nT is None else (hits_nT, read_nT):
        for first in range(0, len(matrix), BLOCK):
            block = matrix[first : first + BLOCK]
            changes[1:] |= (block[:, 1:] != block[:, :-1]).any(0)
    kept = np.flatnonzero(changes)
    return hits_nT if changes.all() else hits_nT[:, kept], kept
