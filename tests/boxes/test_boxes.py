"""Maths of quantisation, levels, IoU and boxes; what the edge refuses. The oracle is in metrics/test_oracle.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsolbench.boxes.maps import level_of, normalize_maps, otsu_level, quantize, threshold_grid
from wsolbench.boxes.scan import best_iou_per_level, boxes_at_threshold, scan_maps
from wsolbench.boxes.truth import iou_matrix, resize_boxes, resize_mask
from wsolbench.errors import UsageError

q_maps = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))


def as_map(q_HW):
    return q_HW.astype(np.float64) / 255


def picture(*rows):
    return np.array([[float(c == "#") for c in row] for row in rows])


@st.composite
def box_lists(draw, side=12):
    corners = st.tuples(*[st.integers(0, side - 1)] * 4)
    boxes = draw(st.lists(corners, min_size=1, max_size=4))
    return np.array([[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in boxes])


@pytest.mark.parametrize("module", ["wsolbench.boxes", "wsolbench.evaluation.levels", "wsolbench.metrics"])
def test_import_is_light(module):
    code = f"import sys, {module}; print({{'torch', 'torchmetrics', 'scipy', 'numba'}} & set(sys.modules))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# --- values ----------------------------------------------------------------------------------------------------------


def test_normalize_is_resize_then_min_max():
    raw = np.random.default_rng(0).normal(size=(3, 7, 5)).astype(np.float32)
    maps = normalize_maps(torch.from_numpy(raw), (40, 30))
    assert maps.shape == (3, 40, 30)
    assert maps.dtype == np.float64
    for one, out in zip(raw, maps, strict=True):
        big = cv2.resize(one.astype(np.float64), (30, 40), interpolation=cv2.INTER_CUBIC)
        np.testing.assert_array_equal(out, (big - big.min()) / (big - big.min()).max())
        assert out.min() == 0
        assert out.max() == 1


def test_normalize_of_constant_and_nan_is_zero():
    raw = np.stack([np.full((3, 3), 7.0), np.full((3, 3), np.nan), np.arange(9.0).reshape(3, 3)])
    raw[1, 0, 0] = 1
    maps = normalize_maps(raw, 6)
    assert not maps[:2].any()
    assert maps[2].max() == 1


def test_normalize_reads_any_dtype_and_leaves_its_input_alone():
    raw = torch.arange(12.0).reshape(1, 3, 4).requires_grad_()
    want = normalize_maps(raw, (3, 4))
    np.testing.assert_array_equal(normalize_maps(raw.bfloat16(), (3, 4)), want)
    np.testing.assert_array_equal(normalize_maps(raw.detach().int().numpy(), (3, 4)), want)
    array = raw.detach().double().numpy().copy()
    normalize_maps(array, (3, 4))
    np.testing.assert_array_equal(array, raw.detach().numpy())


def test_normalize_refuses():
    with pytest.raises(UsageError, match="unknown convention 'referense', did you mean 'reference'"):
        normalize_maps(np.zeros((1, 2, 2)), 4, "referense")
    with pytest.raises(ValueError, match=r"\[B, h, w\], got \[2, 2\]"):
        normalize_maps(np.zeros((2, 2)), 4)


def test_quantisation_keeps_every_level():
    levels = np.arange(256)
    np.testing.assert_array_equal(quantize(levels / 255), levels)
    assert quantize(np.array(np.nextafter(1, 0))) == 254


@pytest.mark.parametrize("steps", [100, 1000])
def test_levels_of_full_range_are_exact_floors(steps):
    assert level_of(threshold_grid(1 / steps), 255).tolist() == [step * 255 // steps for step in range(steps)]


@given(st.integers(0, 255), st.floats(0, 1, exclude_max=True))
def test_level_lies_below_the_maximum(qmax, threshold):
    level = level_of(threshold, qmax)
    assert level == int(threshold * qmax)
    assert 0 <= level <= max(qmax - 1, 0)


@pytest.mark.parametrize("interval", [0.01, 0.001, 1 / 49, 0.3, 1])
def test_threshold_grid_stays_below_one(interval):
    grid = threshold_grid(interval)
    assert grid[0] == 0
    assert grid[-1] < 1
    assert len(set(level_of(grid, 255).tolist())) == min(len(grid), 255)


@pytest.mark.parametrize("threshold", [1.0, -0.1, float("nan")])
def test_level_refuses(threshold):
    with pytest.raises(ValueError, match=r"thresholds in \[0, 1\)"):
        level_of(threshold, 255)


@given(q_maps)
def test_otsu_maximises_the_variance_between_classes(q):
    level = otsu_level(q)
    assert 0 <= level <= max(int(q.max()) - 1, 0)

    def variance(t):
        low, high = q[q <= t].astype(float), q[q > t].astype(float)
        return low.size * high.size * (high.mean() - low.mean()) ** 2 if low.size and high.size else 0.0

    best = max(variance(t) for t in range(255))
    assert variance(level) == pytest.approx(best, rel=1e-6)


# --- ground truth ----------------------------------------------------------------------------------------------------


def test_resize_multiplies_first():
    boxes = np.array([[0, 0, 61, 100]])
    assert resize_boxes(boxes, (112, 112), (224, 224)).tolist() == [[0, 0, 122, 200]]
    assert resize_boxes(boxes, (200, 100), (224, 50)).tolist() == [[0, 0, 30, 112]]


@given(box_lists(400), st.integers(400, 900), st.integers(400, 900))
def test_resized_boxes_are_truncated(boxes, height, width):
    sizes = [width, height, width, height]
    want = [[int(c * 224 / s) for c, s in zip(box, sizes, strict=True)] for box in boxes.tolist()]
    assert resize_boxes(boxes, (height, width), (224, 224)).tolist() == want


def test_resized_mask_takes_the_floor_index():
    mask = np.random.default_rng(0).choice(np.array([0, 1, 255], np.uint8), (37, 53))
    rows, columns = np.arange(24) * 37 // 24, np.arange(40) * 53 // 40
    np.testing.assert_array_equal(resize_mask(mask, (24, 40)), mask[rows][:, columns])


@given(box_lists(), box_lists())
def test_iou_counts_pixels(first, second):
    def pixels(box):
        x0, y0, x1, y1 = box
        return {(x, y) for x in range(x0, x1 + 1) for y in range(y0, y1 + 1)}

    want = [[len(pixels(a) & pixels(b)) / len(pixels(a) | pixels(b)) for b in second] for a in first]
    np.testing.assert_array_equal(iou_matrix(first, torch.from_numpy(second)), want)


# --- boxes -----------------------------------------------------------------------------------------------------------


def test_box_is_one_past_the_object_and_clipped_at_the_edge():
    map_HW = picture("......", ".##...", ".##...", ".....#")
    assert boxes_at_threshold(map_HW, 0.5).tolist() == [[1, 1, 3, 3]]
    assert sorted(boxes_at_threshold(map_HW, 0.5, "multi").tolist()) == [[1, 1, 3, 3], [5, 3, 5, 3]]


def test_hole_is_a_contour_of_its_own():
    map_HW = picture("........", ".#####..", ".#...#..", ".#.#.#..", ".#...#..", ".#####..", "........")
    assert boxes_at_threshold(map_HW, 0.5).tolist() == [[1, 1, 6, 6]]
    # the hole's rectangle is the background's, grown by one pixel on each side: here the ring's own
    assert sorted(boxes_at_threshold(map_HW, 0.5, "multi").tolist()) == [[1, 1, 6, 6], [1, 1, 6, 6], [3, 3, 4, 4]]


def test_single_box_has_the_largest_filled_area_not_the_most_pixels():
    ring_and_block = picture("#####.......", "#...#..####.", "#...#..####.", "#...#..####.", "#####..####.")
    assert boxes_at_threshold(ring_and_block, 0.5).tolist() == [[0, 0, 5, 4]]  # 16 pixels each, areas 16 and 9


def test_tie_goes_to_the_component_that_starts_last():
    assert boxes_at_threshold(picture("#.#", "...", ".#."), 0.5).tolist() == [[1, 2, 2, 2]]


def test_empty_map_is_the_corner_pixel():
    map_HW = np.full((5, 5), 0.003)
    assert boxes_at_threshold(map_HW, 0.3, "multi").tolist() == [[0, 0, 0, 0]]
    best = best_iou_per_level(map_HW[None], [np.array([[0, 0, 0, 0], [3, 3, 4, 4]])], "both")
    np.testing.assert_array_equal(best, np.ones((2, 1, 255)))


@given(q_maps, box_lists(12), st.floats(0, 1, exclude_max=True))
def test_level_table_agrees_with_boxes_at_threshold(q, truth, threshold):
    truth = np.minimum(truth, [q.shape[1], q.shape[0]] * 2)
    table = best_iou_per_level(as_map(q)[None], [truth], "both")
    for contours, row in zip(("single", "multi"), table[:, 0], strict=True):
        boxes = boxes_at_threshold(as_map(q), threshold, contours)
        assert row[level_of(threshold, q.max())] == iou_matrix(boxes, truth).max()
        np.testing.assert_array_equal(row, best_iou_per_level(as_map(q)[None], [truth], contours)[0])
    assert (table[1] >= table[0]).all()


@given(q_maps, box_lists(12))
def test_transposing_changes_nothing_for_multi(q, truth):
    truth = np.minimum(truth, [q.shape[1], q.shape[0]] * 2)
    flipped = best_iou_per_level(as_map(q).T[None], [truth[:, [1, 0, 3, 2]]], "multi")
    np.testing.assert_array_equal(flipped, best_iou_per_level(as_map(q)[None], [truth], "multi"))


def test_batch_and_threads_change_nothing():
    rng = np.random.default_rng(1)
    maps = normalize_maps(rng.random((9, 5, 5)), (20, 24))
    boxes = [np.array([[2, 3, 10 + i, 12]]) for i in range(9)]
    want = best_iou_per_level(maps, boxes, "both")
    np.testing.assert_array_equal(best_iou_per_level(torch.from_numpy(maps), boxes, "both", threads=3), want)
    for i in range(9):
        np.testing.assert_array_equal(best_iou_per_level(maps[[i]], [boxes[i]], "both")[:, 0], want[:, i])
    alone = np.concatenate([scan_maps(maps[[i]], [boxes[i]]).boxes_BL4 for i in range(9)])
    np.testing.assert_array_equal(scan_maps(maps, boxes, threads=8).boxes_BL4, alone)
    assert best_iou_per_level(maps[:0], [], "both").shape == (2, 0, 255)


# --- the edge --------------------------------------------------------------------------------------------------------

GOOD, BOX = np.zeros((1, 8, 8)), [np.array([[0, 0, 1, 1]])]


@pytest.mark.parametrize(
    ("maps", "boxes", "error", "message"),
    [
        (GOOD.astype(np.float32), BOX, TypeError, "expected float64 score maps, got float32"),
        (GOOD.tolist(), BOX, TypeError, "expected a numpy array or a tensor, got list"),
        (GOOD[0], BOX, ValueError, r"shape \[B, H, W\], got \[8, 8\]"),
        (GOOD[None], BOX, ValueError, r"shape \[B, H, W\], got \[1, 1, 8, 8\]"),
        (GOOD * np.nan, BOX, ValueError, "without NaN"),
        (GOOD + 1.5, BOX, ValueError, r"in \[0, 1\], got values in \[1.5, 1.5\]"),
        (GOOD - np.inf, BOX, ValueError, r"in \[0, 1\]"),
        (GOOD, [], ValueError, "boxes of 1 images, got those of 0"),
        (GOOD, [np.zeros((0, 4), int)], ValueError, "at least one box for image 0"),
        (GOOD, [np.array([[0.0, 0, 1, 1]])], TypeError, "integer boxes of image 0, got float64"),
        (GOOD, [np.array([0, 0, 1, 1])], ValueError, r"shape \[N, 4\], got \[4\]"),
        (GOOD, [np.array([[2, 0, 1, 1]])], ValueError, "0 <= x0 <= x1"),
        (GOOD, [np.array([[0, -1, 1, 1]])], ValueError, "0 <= x0 <= x1"),
        (GOOD, [np.array([[0, 0, 9, 1]])], ValueError, "outside the 8x8 map: use wsolbench.boxes.resize_boxes"),
    ],
)
def test_refuses(maps, boxes, error, message):
    with pytest.raises(error, match=message):
        best_iou_per_level(maps, boxes)


def test_refuses_unknown_contours():
    with pytest.raises(UsageError, match="unknown contours 'mutli', did you mean 'multi'"):
        best_iou_per_level(GOOD, BOX, "mutli")
    with pytest.raises(UsageError, match="unknown contours 'both'"):
        boxes_at_threshold(GOOD[0], 0.5, "both")


def test_kernels_compile_where_nothing_can_be_cached(monkeypatch):
    """numba refuses cache=True if neither the package's folder nor the user's can be written."""
    import numba

    from wsolbench.system.compiled import compiled

    asked = []

    def njit(**options):
        asked.append(options)
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(numba, "njit", njit)
    assert compiled(abs) is abs
    assert asked == [{"nogil": True, "cache": True}, {"nogil": True}]


def test_normalize_knows_the_conventions():
    """SAT scales the small map first, so that its maximum may stay below 1 once resized."""
    raw = np.random.default_rng(0).random((2, 5, 5))
    assert normalize_maps(raw, 20, "sat").max(axis=(1, 2)).max() < 1 == normalize_maps(raw, 20).max()
    with pytest.raises(UsageError, match="unknown convention 'stat', did you mean 'sat'"):
        normalize_maps(raw, 20, "stat")
