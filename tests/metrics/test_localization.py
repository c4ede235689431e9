"""Maths of GT-known and Top-k Loc, and of the label's rank."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsolbench.boxes.maps import normalize_maps
from wsolbench.errors import UsageError
from wsolbench.metrics import GTKnownLoc, MaxBoxAcc, TopKLoc, label_rank


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(4)
    maps = normalize_maps(rng.random((30, 4, 4)), 16)
    boxes = [np.sort(rng.integers(0, 16, (2, 2, 2)), axis=1).reshape(-1, 4) for _ in maps]
    return maps, boxes, torch.from_numpy(rng.normal(size=(30, 6))), torch.from_numpy(rng.integers(0, 6, 30))


@given(hnp.arrays(np.int8, st.tuples(st.integers(1, 6), st.integers(1, 8)), elements=st.integers(0, 3)), st.data())
def test_rank_is_the_position_in_a_stable_descending_sort(logits, data):
    classes = logits.shape[1]
    labels = data.draw(hnp.arrays(np.int64, len(logits), elements=st.integers(0, classes - 1)))
    order = np.argsort(-logits.astype(int), axis=1, kind="stable")
    want = [row.tolist().index(label) for row, label in zip(order, labels, strict=True)]
    assert label_rank(torch.from_numpy(logits).float(), torch.from_numpy(labels)).tolist() == want


def test_rank_agrees_with_topk_and_argmax_without_ties():
    logits, labels = torch.randn(50, 20, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 20
    rank = label_rank(logits, labels)
    assert torch.equal(rank == 0, logits.argmax(1) == labels)
    assert torch.equal(rank < 5, (logits.topk(5).indices == labels[:, None]).any(1))


def test_a_nan_ranks_nothing():
    logits = torch.tensor([[float("nan"), 1.0], [float("nan"), 1.0], [0.0, 1.0]])
    assert label_rank(logits, torch.tensor([0, 1, 1])).tolist() == [2, 2, 0]
    metric = TopKLoc(k=5, threshold=0.4)
    metric.update(np.eye(4)[None].repeat(3, 0), [np.array([[0, 0, 3, 3]])] * 3, logits, torch.tensor([0, 1, 1]))
    assert metric.compute()["value"] == 1 / 3


@pytest.mark.parametrize(
    ("logits", "labels", "error", "message"),
    [
        (torch.zeros(2), torch.zeros(2).long(), ValueError, r"logits \[B, K\] and labels \[B\], got \[2\] and \[2\]"),
        (torch.zeros(2, 3), torch.zeros(3).long(), ValueError, r"got \[2, 3\] and \[3\]"),
        (torch.zeros(2, 3), torch.zeros(2), TypeError, "integer labels, got torch.float32"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), ValueError, r"labels in 0 .. 2, got 0 .. 3"),
        (torch.zeros(2, 3), torch.tensor([-1, 0]), ValueError, r"labels in 0 .. 2, got -1 .. 0"),
    ],
)
def test_rank_refuses(logits, labels, error, message):
    with pytest.raises(error, match=message):
        label_rank(logits, labels)


def test_oracle_gt_known_is_maxboxacc(case):
    maps, boxes, *_ = case
    oracle, reference = GTKnownLoc("oracle"), MaxBoxAcc()
    oracle.update(maps, boxes)
    reference.update(maps, boxes)
    assert oracle.compute()["value"] == reference.compute()["value"]
    at = reference.compute()["best_thresholds"][0.5]
    fixed = GTKnownLoc(at)
    fixed.update(maps, boxes)
    assert fixed.compute()["value"] == reference.compute()["value"]
    assert fixed.compute()["best_thresholds"] == {0.5: at}


@pytest.mark.parametrize("threshold", [0.1, 0.4, "oracle"])
def test_top_1_below_top_5_below_gt_known(case, threshold):
    maps, boxes, logits, labels = case
    values = []
    for k in (1, 3, 6):
        metric = TopKLoc(k, threshold)
        metric.update(maps, boxes, logits, labels)
        values.append(metric.compute()["value"])
    known = GTKnownLoc(threshold)
    known.update(maps, boxes)
    assert values[0] < values[1] < values[2] == known.compute()["value"]


def test_top_k_counts_by_hand():
    maps = np.zeros((4, 8, 8))
    maps[:, 2:5, 2:6] = 1
    right, wrong = np.array([[2, 2, 6, 5]]), np.array([[0, 0, 1, 1]])
    metric = TopKLoc(k=1, threshold=0.4)
    logits = torch.eye(2)[[0, 1, 0, 1]]
    metric.update(maps, [right, right, wrong, wrong], logits, torch.tensor([0, 0, 0, 0]))
    result = metric.compute()
    assert result["value"] == 0.25
    assert result["hits"].tolist() == [[1]]
    assert result["count"] == 4


def test_oracle_is_chosen_by_gt_known_not_by_top_k():
    # threshold 0 (body) is right for two images with a wrong class, 0.5 and above (core) for the one with a right class
    map_HW = np.zeros((16, 16))
    map_HW[1:11, 1:11] = 0.5
    map_HW[1:5, 1:5] = 1
    boxes = [np.array([[1, 1, 5, 5]]), np.array([[1, 1, 11, 11]]), np.array([[1, 1, 11, 11]])]
    metric = TopKLoc(k=1)
    metric.update(np.stack([map_HW] * 3), boxes, torch.eye(3), torch.tensor([0, 0, 0]))
    assert metric.compute()["best_thresholds"] == {0.5: 0.0}
    assert metric.compute()["value"] == 0


def test_refuses(case):
    maps, boxes, logits, labels = case
    with pytest.raises(UsageError, match="unknown threshold 'orcale', did you mean 'oracle'"):
        GTKnownLoc("orcale")
    with pytest.raises(ValueError, match=r"thresholds in \[0, 1\)"):
        GTKnownLoc(1.0)
    with pytest.raises(ValueError, match="k >= 1"):
        TopKLoc(k=0)
    with pytest.raises(ValueError, match="labels of 30 images, got those of 2"):
        TopKLoc().update(maps, boxes, logits[:2], labels[:2])
