"""Statistics of resampled images: what `Levels.bootstrap` computes intervals of.

A statistic maps how often each image was drawn, float32 [R, n], to values [R]. Sums are matrix products, taken over
blocks of images so that memory does not grow with their number.
"""
# n images, T thresholds, R resamples

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

BLOCK = 1024  # images looked at a time

Floats: TypeAlias = npt.NDArray[np.float64]
Statistic: TypeAlias = Callable[[npt.NDArray[np.float32]], Floats]


def interval_of(values_R: Floats, maximum: float | None = None) -> tuple[float, float]:
    """Return the 95 % percentile interval of resampled values.

    Args:
        values_R: the statistic in each resample.
        maximum: the statistic of the sample itself, where it is a maximum over thresholds. The maximum of a resample is
            higher than the sample's, as that is higher than the truth: the percentiles are moved by where the sample's
            value lies among the resampled ones (bias-corrected, Efron 1981; `scipy.stats.bootstrap` calls it z0).
    """
    shares = np.array([0.025, 0.975])
    if maximum is not None:
        from scipy.special import ndtr, ndtri

        least, rounding = 1 / (2 * len(values_R)), 1e-12
        below, up_to = (values_R < maximum - rounding).mean(), (values_R <= maximum + rounding).mean()
        z0 = ndtri(np.clip((below + up_to) / 2, least, 1 - least))
        shares = ndtr(2 * z0 + ndtri(shares))
    low, high = np.percentile(values_R, 100 * shares)
    return float(low), float(high)


def mean_of(outcomes_n: npt.NDArray[np.bool_]) -> Statistic:
    """Return the statistic "share of correct images", for accuracies at a fixed threshold.

    >>> mean_of(np.array([True, False]))(np.array([[2, 0], [1, 1]], np.float32)).tolist()
    [1.0, 0.5]
    """
    return best_of(outcomes_n[:, None])


def best_of(*hits_nT: npt.NDArray[np.bool_]) -> Statistic:
    """Return the statistic of an oracle cell: the best threshold is chosen anew in every resample.

    Several matrices (one per IoU level) are maximised separately, then averaged, as in MaxBoxAccV2.

    >>> best_of(np.array([[True, False], [False, True]]))(np.array([[2, 0], [1, 1]], np.float32)).tolist()
    [1.0, 0.5]
    """
    chosen = [hits[:, _distinct(hits)] for hits in hits_nT]

    def statistic(drawn_Rn: npt.NDArray[np.float32]) -> Floats:
        best = [_counted(drawn_Rn, hits).max(1) for hits in chosen]
        return _shares(np.mean(np.stack(best).astype(np.float64), axis=0), drawn_Rn)

    return statistic


def read_at_best(by_nT: Sequence[npt.NDArray[np.bool_]], read_nT: npt.NDArray[np.bool_]) -> Statistic:
    """Return the statistic of a value read where others are best: Top-k Loc at the threshold best for GT-known Loc.

    The threshold is chosen anew in every resample by the sum over `by_nT`; the first wins a tie.

    >>> by, read = np.array([[True, False], [False, True]]), np.array([[False, False], [True, True]])
    >>> read_at_best([by], read)(np.array([[2, 0], [1, 1], [0, 2]], np.float32)).tolist()
    [0.0, 0.5, 1.0]
    """
    kept = _distinct(*by_nT, read_nT)
    chosen, read = [hits[:, kept] for hits in by_nT], read_nT[:, kept]

    def statistic(drawn_Rn: npt.NDArray[np.float32]) -> Floats:
        at_R = np.sum([_counted(drawn_Rn, hits) for hits in chosen], axis=0).argmax(1)
        counts_R = np.take_along_axis(_counted(drawn_Rn, read), at_R[:, None], axis=1)[:, 0]
        return _shares(counts_R.astype(np.float64), drawn_Rn)

    return statistic


def _shares(counts_R: Floats, drawn_Rn: npt.NDArray[np.float32]) -> Floats:
    # float32 products are exact: all sums are integers below 2 ** 24
    shares: Floats = counts_R / drawn_Rn.sum(1, dtype=np.float64)
    return shares


def _counted(drawn_Rn: npt.NDArray[np.float32], hits_nT: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """How many correct images each resample has at each threshold, [R, T]; as float32 all of them would take 4 times the space."""
    counts = np.zeros((len(drawn_Rn), hits_nT.shape[1]), np.float32)
    for first in range(0, len(hits_nT), BLOCK):
        counts += drawn_Rn[:, first : first + BLOCK] @ hits_nT[first : first + BLOCK].astype(np.float32)
    return counts


def _distinct(*matrices_nT: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the indices of the columns in which any matrix differs from the one before: 1,000 thresholds cut a map in 255 ways."""
    changes = np.append(True, np.zeros(matrices_nT[0].shape[1] - 1, np.bool_))
    for matrix in matrices_nT:
        for first in range(0, len(matrix), BLOCK):
            block = matrix[first : first + BLOCK]
            changes[1:] |= (block[:, 1:] != block[:, :-1]).any(0)
    return np.flatnonzero(changes)
