"""The numbers of a run, looked up from its stored outcomes, each with its selector and its 95 % interval."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from wsolbench.boxes.maps import threshold_grid
from wsolbench.config.selectors import SELECTOR_OF
from wsolbench.data.annotations import AnnotationReader
from wsolbench.evaluation.by_convention import ConventionOutcomes
from wsolbench.evaluation.levels import IOUS, Levels
from wsolbench.evaluation.resampling import Statistic, best_of, interval_of, mean_of, read_at_best
from wsolbench.evaluation.threshold import Threshold
from wsolbench.metrics.robustness import area_of, plateau_of, robustness
from wsolbench.record import Cell

RESAMPLES = 1000
V1_INTERVAL = 0.01  # MaxBoxAcc is defined on 100 thresholds,
V2_INTERVAL = 0.001  # MaxBoxAccV2 on 1,000, whatever a selector chooses among


def compute_cells(
    levels: Levels, threshold: Threshold | None, reader: AnnotationReader, interval: float, split: str = "test"
) -> list[Cell]:
    """All metrics on the outcomes of the evaluated split.

    Class metrics and Top-k Loc are left out where there is no classifier; box metrics where there are no boxes, and so
    no threshold. The interval of an oracle cell chooses the threshold anew in every resample and is bias-corrected. PxAP pools the pixels of all images, so
    it has no interval over images.
    """
    has_classes = bool((levels.ranks >= 0).all())
    cells: list[Cell] = []
    if has_classes:
        for k in (1, 5):
            cells.append(_cell(levels, f"Top-{k} Cls", levels.topk_accuracy(k), mean_of(levels.in_top(k))))
    if threshold is not None:
        cells += _at_threshold(levels, threshold, interval, has_classes)
        cells += _max_box_acc(levels, reader, split)
        cells += _curve(levels, reader, split)
    pixels = levels.pxap()
    if pixels is not None:
        peak = reader.choose_on(split, levels, "peak IoU over thresholds", "masks")
        cells += [Cell("PxAP", pixels["value"]), Cell("pIoU", pixels["piou"], oracle=peak)]
    return cells


def _at_threshold(levels: Levels, threshold: Threshold, interval: float, has_classes: bool) -> list[Cell]:
    """GT-known Loc and Top-k Loc; one threshold, the one chosen for GT-known, serves them all."""
    hits_n = threshold.hits(levels)
    cell = partial(
        _cell,
        levels,
        threshold=threshold.value,
        threshold_by=threshold.by,
        oracle=threshold.oracle,
        maximum=threshold.oracle,
    )
    correct = {"GT-known": hits_n}
    for k in (1, 5) if has_classes else ():
        correct[f"Top-{k} Loc"] = hits_n & levels.in_top(k)
    statistic = statistics_at(levels, threshold, interval)
    return [cell(metric, int(each_n.sum()) / len(levels), statistic(metric)) for metric, each_n in correct.items()]


def statistics_at(levels: Levels, threshold: Threshold, interval: float) -> Callable[[str], Statistic]:
    """Statistics of "GT-known" and "Top-k Loc" at a threshold; an oracle chooses it anew in every resample, by whatever it was chosen by."""
    if not threshold.oracle:
        hits_n = threshold.hits(levels)
        return lambda metric: mean_of(hits_n if metric == "GT-known" else hits_n & levels.in_top(int(metric[4])))
    grid = np.array(threshold.candidates) if threshold.candidates else levels.distinct(threshold_grid(interval))
    hits_nT = levels.hits(grid)
    by = [hits_nT]
    if threshold.candidates and (levels.ranks >= 0).all():
        by.append(hits_nT & levels.in_top(1)[:, None])

    def statistic(metric: str) -> Statistic:
        if metric == "GT-known":
            return best_of(hits_nT) if len(by) == 1 else read_at_best(by, hits_nT)
        return read_at_best(by, hits_nT & levels.in_top(int(metric[4]))[:, None])

    return statistic


def protocol_cells(levels: Levels, threshold: Threshold, interval: float, checkpoint_by: str) -> list[Cell]:
    """GT-known and Top-1 Loc of one combination of a checkpoint's and a threshold's selector."""
    has_classes = bool((levels.ranks >= 0).all())
    return [
        replace(cell, checkpoint_by=checkpoint_by)
        for cell in _at_threshold(levels, threshold, interval, has_classes)
        if cell.metric in ("GT-known", "Top-1 Loc")
    ]


def convention_cells(outcomes: ConventionOutcomes, reader: AnnotationReader, split: str = "test") -> list[Cell]:
    """The numbers the paper's code prints, each with the threshold it was read at and who chose that.

    They have no bootstrap interval: the code prints none. Where the code chooses among thresholds, it does so by the
    boxes of the split it scores, which `reader` notes.
    """
    at, by, oracle = outcomes.chosen(), f"fixed:{outcomes.thresholds[0]:g}", False
    if len(outcomes.thresholds) > 1:
        by = SELECTOR_OF[split]
        oracle = reader.choose_on(split, outcomes, f"threshold selection (convention {outcomes.convention.name})")
    values = {"GT-known": outcomes.accuracy()}
    if outcomes.has_classes:
        values |= {f"Top-{k} Loc": outcomes.accuracy(top_k=k) for k in (1, 5)}
    if outcomes.convention.v2 == "mean Loc@.3/.5/.7":
        levels = [outcomes.accuracy(iou) for iou in IOUS]
        values |= {f"Loc@.{round(10 * iou)}": level for iou, level in zip(IOUS, levels, strict=True)}
        values[outcomes.convention.v2] = np.mean(levels, axis=0)
    return [
        Cell(
            metric,
            float(value_T[at]),
            threshold=outcomes.thresholds[at],
            threshold_by=by,
            oracle=oracle,
            convention=outcomes.convention.name,
        )
        for metric, value_T in values.items()
    ]


def _max_box_acc(levels: Levels, reader: AnnotationReader, split: str) -> list[Cell]:
    """MaxBoxAcc and MaxBoxAccV2: the best threshold on the evaluated images themselves, an oracle by definition."""
    oracle = reader.choose_on(split, levels, "maximum over thresholds (MaxBoxAcc, MaxBoxAccV2)")
    single = best_of(levels.hits(levels.distinct(threshold_grid(V1_INTERVAL))))
    cells = [_cell(levels, "MaxBoxAcc", levels.max_box_acc(interval=V1_INTERVAL), single, oracle=oracle, maximum=True)]
    # IoU levels one after the other: a matrix of 50,000 images takes 13 MB, and the resamples are the same for each
    grid, resampled, per_iou = levels.distinct(threshold_grid(V2_INTERVAL)), [], []
    for iou in IOUS:
        resampled.append(levels.resample(best_of(levels.hits(grid, iou, "multi")), RESAMPLES))
        value = levels.max_box_acc("multi", (iou,), V2_INTERVAL)
        name = f"MaxBoxAccV2@.{round(10 * iou)}"
        per_iou.append(Cell(name, value, *interval_of(resampled[-1], value), oracle=oracle))
    mean = levels.max_box_acc_v2()
    interval = interval_of(np.mean(resampled, axis=0), mean)
    return [*cells, Cell("MaxBoxAccV2", mean, *interval, oracle=oracle), *per_iou]


def _curve(levels: Levels, reader: AnnotationReader, split: str = "test") -> list[Cell]:
    """How the curve lies whose maximum MaxBoxAcc is: its plateau is found by the best threshold, its area by none."""
    found = robustness(levels.box_summary(interval=V1_INTERVAL))[0.5]
    oracle = reader.choose_on(split, levels, "plateau around the best threshold (BoxAcc plateau)")
    grid = threshold_grid(V1_INTERVAL)
    hits = levels.hits(grid)
    return [
        _cell(levels, "BoxAcc plateau", found.width, plateau_of(hits, grid), oracle=oracle),
        _cell(levels, "BoxAcc area", found.area, area_of(hits, grid)),
    ]


def _cell(
    levels: Levels,
    metric: str,
    value: float,
    statistic: Statistic,
    *,
    threshold: float | None = None,
    threshold_by: str | None = None,
    oracle: bool = False,
    maximum: bool = False,
) -> Cell:
    """`maximum`: the value is one over thresholds, or is read where another is."""
    low, high = levels.bootstrap(statistic, RESAMPLES, maximum=float(value) if maximum else None)
    return Cell(metric, float(value), low, high, threshold, threshold_by, oracle)
