"""Oracle: a plain contour loop over every requested threshold, as metrics are defined, against ours; no difference.

`WSOLBENCH_ORACLE_MAPS=10000 pytest tests/metrics/test_oracle.py -s` runs it on more maps and prints the count.
"""

from __future__ import annotations

import os
import time

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsolbench.boxes.maps import level_of, normalize_maps, quantize
from wsolbench.boxes.scan import scan_maps
from wsolbench.evaluation.scoring import score_maps
from wsolbench.metrics import MaxBoxAcc, MaxBoxAccV2

COUNT = int(os.environ.get("WSOLBENCH_ORACLE_MAPS", "300"))


# --- the naive evaluator ---------------------------------------------------------------------------------------------


def naive_iou(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]) + 1, 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]) + 1, 0)
    area_a = (a[2] - a[0] + 1) * (a[3] - a[1] + 1)
    area_b = (b[2] - b[0] + 1) * (b[3] - b[1] + 1)
    union = area_a + area_b - width * height
    return width * height / union if union > 0 else 0.0


def naive_best_iou(map_HW, truth, thresholds):
    """Best IoU of the single box, and of all boxes, at each threshold: two lists; and the single boxes."""
    H, W = map_HW.shape
    q = (map_HW * 255).astype(np.uint8)
    single, multi, single_boxes = [], [], []
    for threshold in thresholds:
        level = int(threshold * np.max(q))
        _, binary = cv2.threshold(q, level, 255, cv2.THRESH_BINARY)
        contours, _ = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)

        def corners(contour):
            x, y, w, h = cv2.boundingRect(contour)
            return x, y, min(x + w, W - 1), min(y + h, H - 1)

        boxes = [corners(contour) for contour in contours] or [(0, 0, 0, 0)]
        largest = corners(max(contours, key=cv2.contourArea)) if contours else (0, 0, 0, 0)
        single_boxes.append(largest)
        single.append(max(naive_iou(largest, b) for b in truth))
        multi.append(max(naive_iou(a, b) for a in boxes for b in truth))
    return single, multi, single_boxes


# --- maps ------------------------------------------------------------------------------------------------------------


def upsampled(rng, size, coarse):
    return normalize_maps(rng.random((1, coarse, coarse)), size)[0]


def holed(rng, size):
    out = np.zeros(size)
    for step in range(4):
        value = rng.random() if step % 2 == 0 else 0.1 * rng.random()
        out[step : size[0] - step, step : size[1] - step] = value
    return out


def one_pixel(rng, size):
    out = np.zeros(size)
    out[rng.integers(size[0]), rng.integers(size[1])] = rng.choice([1.0, 0.5, 0.003])
    return out


KINDS = {
    "smooth": lambda rng, size: upsampled(rng, size, 4),
    "rough": lambda rng, size: upsampled(rng, size, 9),
    "noise": lambda rng, size: rng.random(size),
    "sparse": lambda rng, size: rng.random(size) * (rng.random(size) < 0.3),
    "plateau": lambda rng, size: np.round(upsampled(rng, size, 5) * 4) / 4,
    "quantised": lambda rng, size: rng.integers(0, 256, size) / 255,
    "holed": holed,
    "rings": lambda rng, size: (np.round(upsampled(rng, size, 5) * 9) % 2) * rng.random(),
    "checkerboard": lambda rng, size: (np.indices(size).sum(0) % 2) * rng.random(size).round(1),
    "one pixel": one_pixel,
    "constant": lambda rng, size: np.full(size, rng.choice([0.0, 0.003, 0.5, 1.0])),
    "dim": lambda rng, size: upsampled(rng, size, 4) * rng.random() * 0.2,
    "spots": lambda rng, size: (rng.random(size) < 0.1) * rng.random(size).round(1),
    "stripes": lambda rng, size: np.sin(np.indices(size)[rng.integers(2)] * rng.random() * 3) ** 2 * rng.random(size),
    "basins": lambda rng, size: 1 - upsampled(rng, size, 6) * rng.random(),
}


def random_boxes(rng, H, W):
    return np.sort(rng.integers(0, [W, H], (int(rng.integers(1, 4)), 2, 2)), axis=1).reshape(-1, 4)


def random_case(rng, kind, index):
    """A map and its boxes: one in five is tiny, one in twenty up to 90 pixels a side."""
    sides = (1, 5) if index % 5 == 0 else (25, 91) if index % 20 == 1 else (5, 25)
    H, W = (int(side) for side in rng.integers(*sides, 2))
    return np.ascontiguousarray(KINDS[kind](rng, (H, W))), random_boxes(rng, H, W)


# --- the comparison --------------------------------------------------------------------------------------------------


def differences(map_HW, truth, thresholds):
    """How many best IoUs, of both contour modes, and boxes of the largest contour are not the naive evaluator's."""
    found = scan_maps(map_HW[None], [truth])
    at = level_of(thresholds, found.qmax_B[0])
    *ious, boxes = naive_best_iou(map_HW, truth.tolist(), thresholds)
    wrong_boxes = (found.boxes_BL4[0, at] != np.array(boxes)).any(1)
    return int((found.iou_MBL[:, 0, at] != np.array(ious)).sum() + wrong_boxes.sum())


@pytest.mark.parametrize("kind", KINDS)
def test_best_iou_is_the_naive_one(kind):
    rng = np.random.default_rng([7, list(KINDS).index(kind)])
    thresholds, start, wrong = np.arange(0, 1, 0.01), time.perf_counter(), 0
    count = -(-COUNT // len(KINDS))
    for index in range(count):
        map_HW, truth = random_case(rng, kind, index)
        wrong += differences(map_HW, truth, thresholds)
    seconds = time.perf_counter() - start
    print(f"\n{kind}: {count} maps x 100 thresholds x 2 modes, {wrong} differences, {seconds:.1f} s")
    assert wrong == 0


@pytest.mark.parametrize("size", [(32, 32), (17, 48), (224, 224), (300, 401)])
def test_larger_maps(size):
    """At every level of the map where it is small, at 100 or 20 thresholds where contours take long."""
    rng = np.random.default_rng(3)
    for kind in KINDS if max(size) < 50 else ("smooth", "rough", "plateau", "holed", "rings", "basins", "one pixel"):
        truth = random_boxes(rng, *size)
        map_HW = np.ascontiguousarray(KINDS[kind](rng, size))
        assert differences(map_HW, truth, np.arange(0, 1, 0.001 if max(size) < 50 else 0.01)) == 0
    assert differences(rng.random(size), truth, np.arange(0, 1, 0.05)) == 0


flat = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14), elements=st.integers(0, 3))
rich = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9))


@given(flat | rich, st.integers(1, 255), st.integers(0, 2**32 - 1))
def test_no_map_is_found_that_differs(q, factor, seed):
    """Few values make plateaus, ties and nested holes; the factor spreads them over the levels."""
    map_HW = (q.astype(np.int64) * factor % 256) / 255
    truth = random_boxes(np.random.default_rng(seed), *map_HW.shape)
    values = np.unique(quantize(map_HW))
    thresholds = np.unique([0.0, *(values / 256), *((values + 0.5) / 256)])
    assert differences(map_HW, truth, thresholds) == 0


def test_many_boxes_of_truth():
    rng = np.random.default_rng(11)
    map_HW = KINDS["rough"](rng, (40, 50))
    truth = np.concatenate([random_boxes(rng, 40, 50) for _ in range(150)])
    assert len(truth) > 259  # the most boxes a real image has
    assert differences(map_HW, truth, np.arange(0, 1, 0.01)) == 0


def test_metrics_and_stored_outcomes_are_the_naive_ones():
    rng, size = np.random.default_rng(5), (20, 28)
    maps = np.stack([KINDS[kind](rng, size) for kind in KINDS if kind != "noise" for _ in range(2)])
    boxes = [random_boxes(rng, *size) for _ in maps]
    v1, v2 = MaxBoxAcc(), MaxBoxAccV2()
    for batch in (slice(0, 7), slice(7, None)):
        v1.update(maps[batch], boxes[batch])
        v2.update(maps[batch], boxes[batch])
    levels = score_maps(maps, boxes, [0] * len(maps), None, None, [str(i) for i in range(len(maps))])

    coarse = [naive_best_iou(m, b.tolist(), np.arange(0, 1, 0.01))[0] for m, b in zip(maps, boxes, strict=True)]
    hits = (np.array(coarse) >= 50 / 100).sum(0)
    assert v1.compute()["hits"].tolist() == [hits.tolist()]
    assert v1.compute()["value"] == hits.max() / len(maps) == levels.max_box_acc()

    fine = [naive_best_iou(m, b.tolist(), np.arange(0, 1, 0.001))[1] for m, b in zip(maps, boxes, strict=True)]
    hits = np.stack([(np.array(fine) >= level / 100).sum(0) for level in (30, 50, 70)])
    assert v2.compute()["hits"].tolist() == hits.tolist()
    assert v2.compute()["value"] == np.average(hits.max(1) / len(maps)) == levels.max_box_acc_v2()
