"""Speed of the one pass against contour loops; `pytest tests/benchmarks --benchmark-only`.

The ratio in one interleaved run, and the table in results/profile, are made by tests/support/boxes_speed.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from boxes_speed import KINDS, TRUTH, cam_like, distinct_levels, every_threshold

from wsolbench.boxes.scan import scan_maps
from wsolbench.evaluation.scoring import score_maps

pytestmark = pytest.mark.benchmark(warmup=True, warmup_iterations=1, min_rounds=3, max_time=2.0)

UPSAMPLED = [kind for kind in KINDS if kind != "noise"]


@pytest.mark.parametrize("contours", ["single", "multi", "both"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_pass(benchmark, kind, contours):
    map_HW = np.ascontiguousarray(KINDS[kind](np.random.default_rng(0)))
    benchmark(scan_maps, map_HW[None], [TRUTH], contours)


@pytest.mark.parametrize("loop", [every_threshold, distinct_levels])
@pytest.mark.parametrize(("contours", "interval"), [("single", 0.01), ("multi", 0.001)])
@pytest.mark.parametrize("kind", UPSAMPLED)
def test_contour_loops(benchmark, kind, contours, interval, loop):
    map_HW = KINDS[kind](np.random.default_rng(0))
    benchmark.pedantic(loop, (map_HW, TRUTH, contours, np.arange(0, 1, interval)), rounds=3)


@pytest.mark.parametrize("threads", [1, 2])
def test_everything_stored(benchmark, threads):
    rng = np.random.default_rng(0)
    maps = np.stack([cam_like(rng, side=64, coarse=8) for _ in range(64)])
    zeros = [0] * 64
    benchmark(
        score_maps, maps, [np.array([[16, 16, 32, 32]])] * 64, zeros, zeros, zeros, list(map(str, zeros)), None, threads
    )


def test_the_loops_compute_what_the_pass_does():
    """Not timed: a ratio between different results would mean nothing."""
    rng = np.random.default_rng(0)
    for kind in UPSAMPLED:
        map_HW = KINDS[kind](rng)
        for row, contours in enumerate(("single", "multi")):
            for interval in (0.01, 0.05):
                thresholds = np.arange(0, 1, interval)
                found = scan_maps(map_HW[None], [TRUTH])
                expected = found.iou_MBL[row, 0, (thresholds * 255).astype(int)]
                assert (every_threshold(map_HW, TRUTH, contours, thresholds) == expected).all()
                assert (distinct_levels(map_HW, TRUTH, contours, thresholds) == expected).all()
