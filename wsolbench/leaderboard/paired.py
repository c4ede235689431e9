"""Is one method better than another, or was it the images, or the seeds? A paired test over both.

Test images and training seeds are crossed: each of S trained networks sees all n images. That is the setting of
multi-reader multi-case studies (readers = seeds, cases = images), so the test is theirs: the analysis of variance of
Obuchowski and Rockette (1995) with the degrees of freedom of Hillis (2007), for the difference D_s of two methods that
share seed and images. With S seeds

    var = var_s(D_s) / S + max(cov, 0),    df = var ** 2 / ((var_s(D_s) / S) ** 2 / (S - 1)),    t = mean(D_s) / sqrt(var)

where cov, what the images add and no further seed can remove, is the mean covariance of D_s and D_s' over bootstrap
resamples of the images. An oracle cell chooses its threshold anew in each resample. Bootstrapping three seeds instead
would call noise significant: `tests/support/coverage_simulation.py` measures both. The p-values of a table are corrected
by Holm's method. With five seeds or more the test keeps its level, with three it errs in 6 to 8 % of cases instead of 5.
"""
# S seeds, R resamples, n images

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsolbench.boxes.maps import threshold_grid
from wsolbench.errors import WsolbenchError
from wsolbench.evaluation.cells import V1_INTERVAL, V2_INTERVAL, statistics_at
from wsolbench.evaluation.levels import IOUS, Levels
from wsolbench.evaluation.resampling import Statistic, best_of, mean_of
from wsolbench.evaluation.threshold import Threshold
from wsolbench.record import Cell

LEVEL = 0.05  # of significance


@dataclass(frozen=True)
class Paired:
    """The mean difference of two methods, with its 95 % interval and the two-sided p-value of "they are equal"."""

    difference: float
    low: float
    high: float
    p: float
    seeds: int
    df: float  # of the t-distribution; infinite where only images vary


def paired_test(observed_S: npt.ArrayLike, resampled_SR: npt.ArrayLike) -> Paired:
    """Test whether the mean difference is zero.

    Args:
        observed_S: difference of the two methods for each seed, fractions.
        resampled_SR: the same in R resamples of the images, the same images for all seeds.

    >>> rng = np.random.default_rng(0)
    >>> one = paired_test([0.1], 0.1 + 0.02 * rng.standard_normal((1, 1000)))
    >>> one.p < 0.001, one.low < 0.065, one.high > 0.135, one.df
    (True, True, True, inf)
    """
    from scipy import stats

    d_S, d_SR = np.asarray(observed_S, np.float64), np.asarray(resampled_SR, np.float64)
    seeds = len(d_S)
    if d_SR.ndim != 2 or len(d_SR) != seeds or not seeds:
        raise ValueError(f"expected resamples of {seeds} seeds, got shape {list(d_SR.shape)}")
    covariance_SS = np.atleast_2d(np.cov(d_SR))
    if seeds == 1:
        by_seed, by_image = 0.0, float(covariance_SS[0, 0])
    else:
        by_seed = float(d_S.var(ddof=1)) / seeds
        by_image = max(0.0, float(covariance_SS[~np.eye(seeds, dtype=bool)].mean()))
    mean, variance = float(d_S.mean()), by_seed + by_image
    df = np.inf if by_seed == 0 else (seeds - 1) * (variance / by_seed) ** 2
    if variance == 0:  # equal in every image and seed, or different in none but by a constant
        return Paired(mean, mean, mean, float(mean == 0), seeds, df)
    error = float(np.sqrt(variance))
    half = float(stats.t.ppf(0.975, df)) * error
    return Paired(mean, mean - half, mean + half, float(2 * stats.t.sf(abs(mean) / error, df)), seeds, df)


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for having looked at all of them (Holm 1979).

    >>> [round(each, 3) for each in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    if not p:
        return []
    from statsmodels.stats.multitest import multipletests

    return [float(each) for each in multipletests(p, alpha=LEVEL, method="holm")[1]]


def statistic_of(levels: Levels, cell: Cell, interval: float, candidates: Sequence[float] = ()) -> Statistic:
    """What a cell is a value of, as a function of the images drawn: the one its bootstrap interval was computed with.

    Args:
        levels: outcomes of the evaluated split.
        cell: of the record of that run.
        interval: step between the thresholds an oracle chooses among (`evaluate.interval`),
        candidates: or those thresholds themselves.

    Raises:
        WsolbenchError: the metric has no outcome per image that is stored.
    """
    metric, _, iou = cell.metric.partition("@")
    if cell.convention == "reference":
        if cell.metric in ("Top-1 Cls", "Top-5 Cls"):
            return mean_of(levels.in_top(int(metric[4])))
        if cell.metric in ("GT-known", "Top-1 Loc", "Top-5 Loc") and cell.threshold_by is not None:
            threshold = Threshold(cell.threshold, cell.threshold_by, cell.oracle, tuple(candidates))
            return statistics_at(levels, threshold, interval)(cell.metric)
        if cell.metric == "MaxBoxAcc":
            return best_of(levels.hits(levels.distinct(threshold_grid(V1_INTERVAL))))
        if metric == "MaxBoxAccV2":
            grid = levels.distinct(threshold_grid(V2_INTERVAL))
            ious = (float(f"0{iou}"),) if iou else IOUS
            return best_of(*(levels.hits(grid, each, "multi") for each in ious))
    raise WsolbenchError(
        f"'{cell.column}' cannot be compared in pairs: it has no outcome per image (PxAP and pIoU pool the pixels of all "
        "images, other conventions store none); choose another --metric"
    )


def value_of(statistic: Statistic, images: int) -> float:
    """The statistic of the images as they are, each drawn once."""
    return float(statistic(np.ones((1, images), np.float32))[0])
