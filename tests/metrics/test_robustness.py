"""Plateau and area: by hand, against loops, and on what metrics and stored outcomes return."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from metric_cases import COUNT, inputs

from wsolbench.boxes.maps import threshold_grid
from wsolbench.evaluation.scoring import score_maps
from wsolbench.metrics import MaxBoxAcc, MaxBoxAccV2
from wsolbench.metrics.robustness import area, area_of, plateau, plateau_of, robustness


@pytest.mark.parametrize(
    ("hits", "want"),
    [
        ([100] * 10, (0, 1)),  # flat: the whole of it
        ([0] * 10, (0, 1)),
        ([0, 0, 100, 0, 0, 0, 0, 0, 0, 0], (0.2, 0.3)),  # one cell
        ([100, 0, 0, 0, 0, 0, 0, 0, 0, 0], (0, 0.1)),
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 100], (0.9, 1)),
        ([0, 99, 100, 99, 98, 99, 0, 0, 0, 0], (0.1, 0.4)),  # exactly one point below belongs to it; a gap ends it
        ([0, 100, 0, 100, 100, 100, 0, 0, 0, 0], (0.1, 0.2)),  # the first best one, not the widest
        ([0, 98, 99, 100, 100, 99, 98, 0, 0, 0], (0.2, 0.6)),
    ],
)
def test_plateau_by_hand(hits, want):
    low, high = plateau([hits], 100, threshold_grid(0.1))
    assert (low.tolist(), high.tolist()) == ([pytest.approx(want[0])], [pytest.approx(want[1])])


def loop(hits, count, edges, points):
    """The plateau by walking from the best threshold to both sides, in whole hundredths of an image."""
    best = max(range(len(hits)), key=lambda i: (hits[i], -i))

    def near(i):
        return 100 * (hits[best] - hits[i]) <= points * count

    first = end = best
    while first > 0 and near(first - 1):
        first -= 1
    while end < len(hits) and near(end):
        end += 1
    return edges[first], edges[end]


@given(
    st.lists(st.lists(st.integers(0, 300), min_size=7, max_size=7), min_size=1, max_size=5),
    st.integers(300, 1000),
    st.integers(0, 30),
)
def test_plateau_is_the_walk_from_the_best_threshold(curves, count, points):
    grid = threshold_grid(0.15)  # the last cell is narrower than the others
    low, high = plateau(curves, count, grid, points / 100)
    edges = [*grid.tolist(), 1.0]
    assert list(zip(low.tolist(), high.tolist(), strict=True)) == [loop(each, count, edges, points) for each in curves]


def test_area_is_the_mean_over_equal_cells_and_weighs_a_narrow_one():
    assert area([[1, 2, 3, 4]], 4, threshold_grid(0.25)).tolist() == [np.mean([1, 2, 3, 4]) / 4]
    grid = np.array([0.0, 0.4, 0.8])
    assert area([[0, 0, 10]], 10, grid) == pytest.approx(0.2)
    assert area([[10, 10, 10]], 10, grid) == pytest.approx(1)


@pytest.fixture(scope="module")
def levels():
    case = inputs()
    return score_maps(case["maps_BHW"], case["boxes"], [0] * COUNT, None, None, [str(i) for i in range(COUNT)])


def test_metrics_and_stored_outcomes_give_the_same(levels):
    case = inputs()
    for metric, summary in (
        (MaxBoxAcc(), levels.box_summary()),
        (MaxBoxAccV2(), levels.box_summary("multi", (0.3, 0.5, 0.7), 0.001)),
    ):
        metric.update(case["maps_BHW"], case["boxes"])
        found = robustness(metric.compute())
        assert found == robustness(summary)
        for iou, each in found.items():
            assert each.low <= summary["best_thresholds"][iou] < each.high
            assert 0 < each.area <= summary["per_iou"][iou]
            assert 0 < each.width <= 1


def test_wider_tolerance_wider_plateau(levels):
    summary = levels.box_summary()
    widths = [robustness(summary, tolerance)[0.5].width for tolerance in (0, 0.1, 0.3, 1)]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1] == 1
    with pytest.raises(ValueError, match="tolerance of at least 0"):
        robustness(summary, -0.1)


def test_statistics_of_resamples_are_those_of_the_drawn_images(levels):
    grid = threshold_grid(0.01)
    hits, rng = levels.hits(grid), np.random.default_rng(0)
    drawn = np.stack([np.bincount(rng.integers(COUNT, size=COUNT), minlength=COUNT) for _ in range(20)])
    curves = np.stack([np.repeat(hits, times, axis=0).sum(0) for times in drawn])
    low, high = plateau(curves, COUNT, grid)
    assert plateau_of(hits, grid)(drawn.astype(np.float32)).tolist() == (high - low).tolist()
    assert area_of(hits, grid)(drawn.astype(np.float32)).tolist() == area(curves, COUNT, grid).tolist()
