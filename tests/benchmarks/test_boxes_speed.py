"""Speed of the level tables against a contour loop over every threshold; `pytest tests/benchmarks --benchmark-only`."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from wsolbench.boxes import best_iou_per_level, iou_matrix, normalize_maps
from wsolbench.levels import score_maps

pytestmark = pytest.mark.benchmark(warmup=True, warmup_iterations=1, min_rounds=3, max_time=2.0)


def cam_like(count, side, coarse=8):
    """Smooth positive blobs on a coarse grid, upsampled as class activation maps are."""
    rng = np.random.default_rng(0)
    grid = np.stack([cv2.GaussianBlur(rng.random((coarse, coarse)), (3, 3), 1) for _ in range(count)])
    return normalize_maps(grid, side), [np.array([[side // 4, side // 4, side // 2, side // 2]])] * count


def naive(maps_BHW, boxes, thresholds, contours):
    """Contours of every threshold, none skipped."""
    best = np.zeros((len(maps_BHW), len(thresholds)))
    for image, (map_HW, truth) in enumerate(zip(maps_BHW, boxes, strict=True)):
        H, W = map_HW.shape
        q = (map_HW * 255).astype(np.uint8)
        for column, threshold in enumerate(thresholds):
            _, binary = cv2.threshold(q, int(threshold * q.max()), 255, cv2.THRESH_BINARY)
            found, _ = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
            kept = [max(found, key=cv2.contourArea)] if contours == "single" else found
            rectangles = [cv2.boundingRect(contour) for contour in kept]
            corners = [(x, y, min(x + w, W - 1), min(y + h, H - 1)) for x, y, w, h in rectangles]
            best[image, column] = iou_matrix(np.array(corners), truth).max()
    return best


@pytest.mark.parametrize("contours", ["single", "multi", "both"])
@pytest.mark.parametrize(("count", "side"), [(32, 64), (4, 224)])
def test_levels(benchmark, count, side, contours):
    maps, boxes = cam_like(count, side)
    benchmark(best_iou_per_level, maps, boxes, contours)


@pytest.mark.parametrize(("contours", "interval"), [("single", 0.01), ("multi", 0.001)])
@pytest.mark.parametrize(("count", "side"), [(8, 64), (2, 224)])
def test_naive(benchmark, count, side, contours, interval):
    maps, boxes = cam_like(count, side)
    benchmark.pedantic(naive, (maps, boxes, np.arange(0, 1, interval), contours), rounds=3)


@pytest.mark.parametrize("threads", [1, 2])
def test_everything_stored(benchmark, threads):
    maps, boxes = cam_like(64, 64)
    zeros = [0] * 64
    benchmark(score_maps, maps, boxes, zeros, zeros, zeros, [str(i) for i in range(64)], None, threads)
