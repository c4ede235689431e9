"""Stored outcomes: the same numbers as the metric classes, the same bytes for the same outcomes."""

from __future__ import annotations

import dataclasses
import io
import zipfile

import numpy as np
import pytest
import scipy.stats
import torch

import wsolbench.evaluation.levels
from wsolbench.boxes.maps import normalize_maps, otsu_level, quantize, threshold_grid
from wsolbench.boxes.truth import iou_matrix
from wsolbench.errors import UsageError
from wsolbench.evaluation.levels import IOUS, Levels, load_levels, save_levels
from wsolbench.evaluation.resampling import best_of, interval_of, mean_of, read_at_best
from wsolbench.evaluation.scoring import score_maps
from wsolbench.metrics import GTKnownLoc, MaxBoxAcc, MaxBoxAccV2, PxAP, TopKLoc, label_rank

COUNT = 40


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(2)
    maps = normalize_maps(rng.random((COUNT, 5, 5)), (24, 20))
    maps[::3] *= rng.random((len(maps[::3]), 1, 1))  # maxima below 1
    maps[5] = 0
    boxes = [np.sort(rng.integers(0, 20, (1 + i % 3, 2, 2)), axis=1).reshape(-1, 4) for i in range(COUNT)]
    logits, labels = torch.from_numpy(rng.normal(size=(COUNT, 8))), torch.from_numpy(rng.integers(0, 8, COUNT))
    masks = rng.choice(np.array([0, 1, 255], np.uint8), maps.shape)
    return maps, boxes, logits, labels, masks


def score(case, keep=slice(None), masked=True):
    maps, boxes, logits, labels, masks = case
    ids = [f"img{i}" for i in range(COUNT)][keep]
    ranks, predictions = label_rank(logits, labels)[keep], logits.argmax(1)[keep]
    return score_maps(maps[keep], boxes[keep], labels[keep], ranks, predictions, ids, masks[keep] if masked else None)


@pytest.fixture(scope="module")
def levels(case):
    return score(case)


def computed(metric, *inputs):
    metric.update(*inputs)
    return metric.compute()


def assert_equal(a, b):
    for field in dataclasses.fields(Levels):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name))


# --- the numbers of the metric classes -------------------------------------------------------------------------------


@pytest.mark.parametrize("contours", ["single", "multi"])
@pytest.mark.parametrize(("ious", "interval"), [((0.5,), 0.01), (IOUS, 0.001), ((0.7, 0.3), 0.1)])
def test_max_box_acc(case, levels, contours, ious, interval):
    want = computed(MaxBoxAcc(contours, ious, interval), *case[:2])
    got = levels.box_summary(contours, ious, interval)
    assert levels.max_box_acc(contours, ious, interval) == want["value"]
    for key in ("value", "per_iou", "count", "best_thresholds"):
        assert got[key] == want[key]
    np.testing.assert_array_equal(got["hits"], want["hits"])
    np.testing.assert_array_equal(got["thresholds"], want["thresholds"])


def test_max_box_acc_v2(case, levels):
    assert levels.max_box_acc_v2() == computed(MaxBoxAccV2(), *case[:2])["value"]


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.4, 0.999, "oracle"])
@pytest.mark.parametrize("contours", ["single", "multi"])
@pytest.mark.parametrize("iou", IOUS)
def test_gt_known_and_top_k(case, levels, threshold, contours, iou):
    maps, boxes, logits, labels, _ = case
    known = computed(GTKnownLoc(threshold, iou, contours), maps, boxes)["value"]
    assert levels.gt_known_loc(threshold, iou, contours) == known
    for k in (1, 5):
        want = computed(TopKLoc(k, threshold, iou, contours), maps, boxes, logits, labels)["value"]
        assert levels.topk_loc(k, threshold, iou, contours) == want


def test_top_k_accuracy(case, levels):
    _, _, logits, labels, _ = case
    for k in (1, 5, 8):
        assert levels.topk_accuracy(k) == (logits.topk(k).indices == labels[:, None]).any(1).double().mean().item()
    np.testing.assert_array_equal(levels.predictions == levels.labels, levels.ranks == 0)


def test_pxap(case, levels):
    want, got = computed(PxAP(), case[0], case[4]), levels.pxap()
    assert got["value"] == want["value"]
    assert got["piou"] == want["piou"]
    np.testing.assert_array_equal(got["precision"], want["precision"])
    assert score(case, masked=False).pxap() is None


# --- look-ups --------------------------------------------------------------------------------------------------------


def test_hits_follow_each_maps_own_maximum(case, levels):
    maps, boxes, *_ = case
    grid = threshold_grid(0.01)
    hits = levels.hits(grid, 0.3, "multi")
    assert hits.shape == (COUNT, 100)
    for index, (map_HW, truth) in enumerate(zip(maps, boxes, strict=True)):
        for column in (0, 13, 57, 99):
            found = wsolbench.boxes.boxes_at_threshold(map_HW, grid[column], "multi")
            assert hits[index, column] == (iou_matrix(found, truth).max() >= 0.3)
    np.testing.assert_array_equal(levels.hits(grid[57], 0.3, "multi"), hits[:, 57])
    np.testing.assert_array_equal(levels.box_accuracy(grid, 0.3, "multi"), hits.mean(0))


def test_selected_threshold_is_the_first_best(levels):
    grid = threshold_grid(0.01)
    curve = levels.box_accuracy(grid)
    assert levels.select_threshold() == grid[curve.argmax()]
    assert levels.box_accuracy(levels.select_threshold()) == curve.max() == levels.max_box_acc()


def test_otsu_cuts_each_map_at_its_own_level(case, levels):
    q = quantize(case[0])
    np.testing.assert_array_equal(levels.otsu, [otsu_level(one) for one in q])
    np.testing.assert_array_equal(levels.qmax, q.max((1, 2)))
    table = levels.hits_per_level()
    np.testing.assert_array_equal(
        levels.hits_otsu(), [row[level] for row, level in zip(table, levels.otsu, strict=True)]
    )


def test_without_classifier(case):
    maps, boxes, _, labels, _ = case
    levels = score_maps(maps, boxes, labels, None, None, [str(i) for i in range(COUNT)])
    assert (levels.ranks == -1).all()
    assert (levels.predictions == -1).all()
    with pytest.raises(UsageError, match="no class scores"):
        levels.topk_loc(1, 0.4)


def test_refuses(case, levels):
    maps, boxes, _, labels, _ = case
    with pytest.raises(UsageError, match=r"unknown IoU level '0\.55'"):
        levels.hits(0.4, iou=0.55)
    with pytest.raises(UsageError, match="unknown contours 'both'"):
        levels.hits(0.4, contours="both")
    with pytest.raises(ValueError, match=r"labels of shape \[40\], got \[39\]"):
        score_maps(maps, boxes, labels[1:], None, None, [str(i) for i in range(COUNT)])
    with pytest.raises(ValueError, match=r"40 ids, got 39"):
        score_maps(maps, boxes, labels, None, None, [str(i) for i in range(COUNT - 1)])
    with pytest.raises(TypeError, match="integer labels, got float32"):
        score_maps(maps, boxes, labels.float(), None, None, [str(i) for i in range(COUNT)])
    with pytest.raises(ValueError, match="at least one image"):
        score(case, slice(0, 0)).box_accuracy(0.4)


# --- joining and keeping ---------------------------------------------------------------------------------------------


def test_batches_join_to_the_whole(case, levels):
    assert_equal(Levels.concat([score(case, keep) for keep in (slice(0, 7), slice(7, 7), slice(7, None))]), levels)
    with pytest.raises(ValueError, match="masks for all parts or for none"):
        Levels.concat([score(case), score(case, masked=False)])
    with pytest.raises(ValueError, match="at least one part"):
        Levels.concat([])


def test_blocks_of_images_do_not_show(case, levels, monkeypatch):
    monkeypatch.setattr(wsolbench.evaluation.levels, "BLOCK", 7)
    grid = threshold_grid(0.01)
    pieces = [score(case, slice(index, index + 1)).hits(grid)[0] for index in range(COUNT)]
    np.testing.assert_array_equal(levels.hits(grid), pieces)
    drawn = np.random.default_rng(0).integers(0, 3, (5, COUNT))
    want = [(row[:, None] * levels.hits(grid)).sum(0).max() / row.sum() for row in drawn]
    np.testing.assert_allclose(best_of(levels.hits(grid))(drawn.astype(np.float32)), want, rtol=0, atol=1e-12)


def test_equal_thresholds_are_dropped_and_the_first_is_kept(levels):
    grid = threshold_grid(0.001)
    kept = levels.distinct(grid)
    assert set(kept) < set(grid)
    assert len(kept) >= 255
    at = np.searchsorted(kept, grid, side="right") - 1  # the kept threshold that stands for each
    np.testing.assert_array_equal(levels.hits(kept)[:, at], levels.hits(grid))
    narrow = dataclasses.replace(levels, qmax=np.full(COUNT, 3, np.uint8))
    assert len(narrow.distinct(grid)) == 3


def test_masks_without_boxes(case, tmp_path):
    maps, _, logits, labels, masks = case
    ids = [f"img{i}" for i in range(COUNT)]
    levels = score_maps(maps, None, labels, label_rank(logits, labels), logits.argmax(1), ids, masks)
    boxed = score(case)
    for name in ("ids", "labels", "ranks", "predictions", "qmax", "otsu", "foreground", "background"):
        np.testing.assert_array_equal(getattr(levels, name), getattr(boxed, name))
    save_levels(tmp_path / "levels.npz", {"test": levels})
    loaded = load_levels(tmp_path / "levels.npz")["test"]
    assert loaded.packed is None
    assert loaded.pxap()["value"] == boxed.pxap()["value"]
    assert loaded.topk_accuracy(1) == boxed.topk_accuracy(1)
    with pytest.raises(UsageError, match="masks and no boxes: box metrics are not defined"):
        loaded.max_box_acc()
    with pytest.raises(ValueError, match="boxes for all parts or for none"):
        Levels.concat([levels, boxed])


def test_file_round_trip_is_deterministic_and_atomic(case, levels, tmp_path):
    splits = {"val": score(case, slice(0, 9), masked=False), "test": levels}
    path = tmp_path / "levels.npz"
    save_levels(path, splits)
    first = path.read_bytes()
    loaded = load_levels(path)
    assert list(loaded) == ["val", "test"]
    for split, want in splits.items():
        assert_equal(loaded[split], want)
    save_levels(path, loaded)
    assert path.read_bytes() == first
    assert {info.date_time[0] for info in zipfile.ZipFile(io.BytesIO(first)).infolist()} == {1980}
    assert [p.name for p in tmp_path.iterdir()] == ["levels.npz"]


def test_a_failed_write_leaves_the_old_file(levels, tmp_path, monkeypatch):
    path = tmp_path / "levels.npz"
    save_levels(path, {"test": levels})
    before = path.read_bytes()

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="disk full"):
        save_levels(path, {"test": levels})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["levels.npz"]


def test_foreign_files_are_refused(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(UsageError, match="not a file of stored outcomes"):
        load_levels(tmp_path / "other.npz")
    np.savez(tmp_path / "pickle.npz", schema=np.array([{}], object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load_levels(tmp_path / "pickle.npz")


def test_an_image_takes_about_200_bytes(levels):
    columns = [getattr(levels, name) for name in ("labels", "ranks", "predictions", "qmax", "otsu", "packed")]
    assert sum(column.nbytes for column in columns) / COUNT == 206


# --- bootstrap -------------------------------------------------------------------------------------------------------


def resamples(n, seed, count):
    rng = np.random.default_rng(seed)
    return [rng.integers(count, size=count) for _ in range(n)]


def test_interval_of_a_fixed_threshold_is_the_plain_bootstraps(levels):
    hits = levels.hits(0.3)
    plain = [hits[drawn].mean() for drawn in resamples(120, 3, COUNT)]
    want = np.percentile(plain, [2.5, 97.5])
    np.testing.assert_allclose(levels.bootstrap(mean_of(hits), n=120, seed=3), want, rtol=0, atol=1e-12)
    assert levels.bootstrap(mean_of(hits)) == levels.bootstrap(mean_of(hits), n=1000, seed=0)
    low, high = levels.bootstrap(mean_of(hits))
    assert low < hits.mean() < high


def test_oracle_is_maximised_anew_in_every_resample(levels):
    grid = threshold_grid(0.001)
    hits = [levels.hits(grid, iou, "multi") for iou in IOUS]
    plain = [np.mean([h[drawn].mean(0).max() for h in hits]) for drawn in resamples(60, 0, COUNT)]
    want = np.percentile(plain, [2.5, 97.5])
    np.testing.assert_allclose(levels.bootstrap(best_of(*hits), n=60), want, rtol=0, atol=1e-12)


def test_a_bias_corrected_interval_is_scipys() -> None:
    """Of symmetric data, whose acceleration is 0: there BCa and BC are one."""
    data = np.concatenate([side * np.arange(1.0, 13) for side in (-1, 1)])
    rng = np.random.default_rng(0)
    found = scipy.stats.bootstrap((data,), np.mean, n_resamples=400, method="BCa", rng=rng)
    want = found.confidence_interval
    np.testing.assert_allclose(interval_of(found.bootstrap_distribution, data.mean()), (want.low, want.high), atol=1e-9)
    moved = interval_of(found.bootstrap_distribution, float(np.percentile(found.bootstrap_distribution, 20)))
    assert moved < interval_of(found.bootstrap_distribution)  # where four of five resamples are higher, it lies lower
    assert interval_of(np.ones(50), 1.0) == interval_of(np.ones(50), 2.0) == (1.0, 1.0)


def test_top_k_is_read_where_gt_known_is_best(levels):
    known = levels.hits(threshold_grid(0.01))
    both = known & levels.in_top(3)[:, None]
    plain = [both[drawn].mean(0)[known[drawn].mean(0).argmax()] for drawn in resamples(60, 0, COUNT)]
    want = np.percentile(plain, [2.5, 97.5])
    np.testing.assert_allclose(levels.bootstrap(read_at_best([known], both), n=60), want, rtol=0, atol=1e-12)
    whole = read_at_best([known], both)(np.ones((1, COUNT), np.float32))
    assert whole[0] == levels.topk_loc(3, "oracle")
