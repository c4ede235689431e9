"""Our maths beside somebody else's: numpy, scikit-learn, torchvision and torchmetrics, where definitions coincide."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, jaccard_score, top_k_accuracy_score
from torchmetrics.classification import MulticlassAccuracy
from torchvision.ops import box_iou

from wsolbench.boxes.maps import threshold_grid
from wsolbench.boxes.truth import iou_matrix
from wsolbench.metrics import PIoU, PxAP, TopKAccuracy, TopKLoc


def pixels(seed, interval, shape=(4, 30, 40)):
    """Random scores, a third of them on, just below or just above an edge; random masks with ignored pixels."""
    rng = np.random.default_rng(seed)
    edges = np.append(np.arange(0, 1, interval), 1.0)
    special = np.concatenate([edges, np.nextafter(edges, 0), np.nextafter(edges, 2)]).clip(0, 1)
    maps = np.where(rng.random(shape) < 1 / 3, rng.choice(special, shape), rng.random(shape))
    maps.flat[: len(special)] = special[: maps.size]
    masks = np.where(rng.random(shape) < 0.5 * maps + 0.1, 1, 0)
    masks[rng.random(shape) < 0.15] = 255
    return maps, masks.astype(np.uint8)


@pytest.mark.parametrize("interval", [0.5, 0.1, 0.01, 0.001])
@pytest.mark.parametrize("seed", range(3))
def test_pooled_histograms_are_those_of_numpy(seed, interval):
    maps, masks = pixels(seed, interval)
    edges = np.append(np.arange(0, 1, interval), [1.0, 2.0, 3.0])
    metric = PxAP(interval)
    for one in range(len(maps)):
        metric.update(maps[one : one + 1], masks[one : one + 1])
    for value, counts in ((1, metric.foreground), (0, metric.background)):
        assert counts.tolist() == np.histogram(maps[masks == value], edges)[0].tolist()


@pytest.mark.parametrize("interval", [0.1, 0.01])
@pytest.mark.parametrize("seed", range(3))
def test_pxap_is_the_average_precision_of_binned_scores(seed, interval):
    """scikit-learn steps over distinct scores and PxAP over bins: the same sum once the scores are the bins."""
    maps, masks = pixels(seed, interval)
    metric = PxAP(interval)
    metric.update(maps, masks)
    counted = masks != 255
    bins = np.searchsorted(np.append(threshold_grid(interval), 1.0), maps[counted], side="right")
    want = average_precision_score(masks[counted] == 1, bins)
    assert metric.compute()["value"] == pytest.approx(want, abs=1e-12)
    assert metric.compute()["value"] != average_precision_score(masks[counted] == 1, maps[counted])  # binning counts


def test_peak_iou_is_the_best_jaccard_index():
    maps, masks = pixels(0, 0.1)
    metric = PIoU(0.1)
    metric.update(maps, masks)
    result = metric.compute()
    counted = masks != 255
    want = [jaccard_score(masks[counted] == 1, maps[counted] >= t) for t in result["thresholds"].tolist()]
    assert result["iou"].tolist() == want
    assert result["value"] == max(want)
    assert result["best_threshold"] == result["thresholds"][int(np.argmax(want))]


def logits_without_ties(count=60, classes=7):
    rng = np.random.default_rng(1)
    logits = np.stack([rng.permutation(classes) for _ in range(count)]).astype(float)
    return logits, rng.integers(0, classes, count)


@pytest.mark.parametrize("k", [1, 2, 5, 6])
def test_top_k_accuracy_is_that_of_scikit_learn_and_of_torchmetrics_without_ties(k):
    logits, labels = logits_without_ties()
    ours, theirs = TopKAccuracy(k), MulticlassAccuracy(7, top_k=k, average="micro")
    for metric in (ours, theirs):
        for part in (slice(0, 13), slice(13, None)):
            metric.update(torch.from_numpy(logits[part]), torch.from_numpy(labels[part]))
    result = ours.compute()
    assert result["value"] == top_k_accuracy_score(labels, logits, k=k, labels=range(7))
    assert result["value"] == pytest.approx(float(theirs.compute()), abs=1e-7)  # theirs is float32
    assert (result["hits"], result["count"]) == (round(60 * result["value"]), 60)


@pytest.mark.parametrize("k", [1, 2, 3, 9])
def test_top_k_accuracy_bounds_top_k_loc_with_ties_and_nan(k):
    """Every box is right, so the two must agree: ties go to the smaller class, a NaN names no class, for both."""
    logits = torch.tensor([[1.0, 1.0, 1.0], [0.0, 2.0, 2.0], [float("nan"), 9.0, 0.0], [3.0, 2.0, 1.0]])
    labels = torch.tensor([1, 2, 1, 2])
    accuracy, loc = TopKAccuracy(k), TopKLoc(k, threshold=0.4)
    accuracy.update(logits, labels)
    loc.update(np.eye(4)[None].repeat(4, 0), [np.array([[0, 0, 3, 3]])] * 4, logits, labels)
    assert accuracy.compute()["value"] == loc.compute()["value"] == {1: 0, 2: 0.5}.get(k, 0.75)


def test_top_k_accuracy_refuses():
    with pytest.raises(ValueError, match="k >= 1, got 0"):
        TopKAccuracy(0)
    with pytest.raises(ValueError, match=r"labels in 0 .. 2, got 0 .. 3"):
        TopKAccuracy().update(torch.zeros(2, 3), torch.tensor([0, 3]))


boxes = st.lists(st.tuples(*[st.integers(0, 40)] * 4), min_size=1, max_size=6).map(
    lambda rows: np.array([[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in rows])
)


@given(boxes, boxes)
def test_iou_is_that_of_torchvision_on_boxes_one_pixel_larger(first, second):
    """The reference counts x1 - x0 + 1 pixels, torchvision x1 - x0."""
    grown = [torch.from_numpy(one + np.array([0, 0, 1, 1])).double() for one in (first, second)]
    assert iou_matrix(first, second).tolist() == box_iou(*grown).tolist()
