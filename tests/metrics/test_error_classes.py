"""Error classes: each by hand, all against the definition written as a loop, and their counts against the metrics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wsolbench.boxes.maps import normalize_maps
from wsolbench.boxes.scan import boxes_at_threshold
from wsolbench.boxes.truth import iou_matrix
from wsolbench.metrics import GTKnownLoc, TopKLoc, label_rank
from wsolbench.metrics.error_classes import ErrorClass, classify_errors

TRUE = [10, 10, 19, 19]  # 100 pixels


def name_of(box, truth):
    (code,) = classify_errors(np.array([box]), [np.array(truth)]).location
    return str(ErrorClass(code))


@pytest.mark.parametrize(
    ("box", "truth", "want"),
    [
        (TRUE, [TRUE], "hit"),
        ([10, 10, 19, 14], [TRUE], "hit"),  # 50 / 100: the level itself is a hit
        ([10, 10, 19, 13], [TRUE], "part"),  # 40 / 100, all of it inside
        ([5, 10, 14, 19], [TRUE], "wrong place"),  # half of either: not more than half of the box, less than .7
        ([5, 11, 14, 18], [TRUE], "wrong place"),  # 40 of 80
        ([6, 12, 14, 16], [TRUE], "part"),  # 25 of 45
        ([10, 10, 19, 39], [TRUE], "more"),  # 100 / 300
        ([10, 13, 19, 32], [TRUE], "more"),  # 70 of the object's 100, inclusive; 70 of the box's 200
        ([10, 14, 19, 33], [TRUE], "wrong place"),  # 60 of 100, 60 of 200
        ([10, 13, 19, 24], [TRUE], "part"),  # 70 of 120 and 70 of 100, IoU 70 / 150: part comes before more
        ([40, 40, 49, 49], [TRUE], "wrong place"),
        ([40, 40, 49, 49], [TRUE, [60, 60, 69, 69]], "wrong place"),
        ([0, 0, 59, 59], [TRUE, [30, 30, 39, 39]], "several instances"),
        ([10, 10, 19, 39], [TRUE, [10, 37, 19, 46]], "more"),  # of the second 30 of 100: .3 is not enough
        ([10, 10, 19, 40], [TRUE, [10, 37, 19, 46]], "several instances"),
        ([10, 10, 19, 40], [TRUE, [10, 10, 19, 42]], "hit"),  # a hit is a hit, however many are covered
        ([14, 10, 17, 19], [TRUE, TRUE], "several instances"),  # 40 of either of two annotations of one object
        ([16, 10, 18, 19], [TRUE, TRUE], "part"),
    ],
)
def test_by_hand(box, truth, want):
    assert name_of(box, truth) == want


def by_definition(box, truth, level):
    """The module's docstring, literally, on sets of pixels."""

    def pixels(b):
        return {(x, y) for x in range(b[0], b[2] + 1) for y in range(b[1], b[3] + 1)}

    p, all_g = pixels(box), [pixels(t) for t in truth]
    ious = [len(p & g) / len(p | g) for g in all_g]
    g = all_g[ious.index(max(ious))]
    if max(ious) >= level:
        return "hit"
    if sum(len(p & t) / len(t) > 0.3 for t in all_g) >= 2:
        return "several instances"
    if len(p & g) / len(p) > 0.5:
        return "part"
    return "more" if len(p & g) / len(g) >= 0.7 else "wrong place"


box = st.tuples(*[st.integers(0, 12)] * 4).map(
    lambda b: [min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3])]
)


@given(
    st.lists(st.tuples(box, st.lists(box, min_size=1, max_size=4)), min_size=1, max_size=6),
    st.sampled_from([0.3, 0.5, 0.7]),
)
def test_is_the_definition_pixel_by_pixel(images, level):
    boxes, truths = np.array([box for box, _ in images]), [np.array(truth) for _, truth in images]
    errors = classify_errors(boxes, truths, iou=level)
    assert [str(ErrorClass(code)) for code in errors.location] == [by_definition(*image, level) for image in images]
    assert errors.combined is None


def test_the_class_comes_first_and_the_location_stays():
    boxes, truths = np.array([TRUE, TRUE, [40, 40, 49, 49]]), [np.array([TRUE])] * 3
    errors = classify_errors(boxes, truths, [True, False, False])
    assert [str(ErrorClass(code)) for code in errors.location] == ["hit", "hit", "wrong place"]
    assert [str(ErrorClass(code)) for code in errors.combined] == ["hit", "wrong class", "wrong class"]
    assert errors.location.dtype == errors.combined.dtype == np.int8
    assert errors.counts() == {
        "GT-known": {"hit": 2, "part": 0, "more": 0, "several instances": 0, "wrong place": 1},
        "Top-1": {"hit": 1, "part": 0, "more": 0, "several instances": 0, "wrong place": 0, "wrong class": 2},
    }


def test_hits_are_those_of_the_metrics():
    rng = np.random.default_rng(3)
    maps = normalize_maps(rng.random((60, 4, 4)), 16)
    truths = [np.sort(rng.integers(0, 16, (1 + i % 3, 2, 2)), axis=1).reshape(-1, 4) for i in range(60)]
    logits, labels = torch.from_numpy(rng.normal(size=(60, 3))), torch.from_numpy(rng.integers(0, 3, 60))
    boxes = np.concatenate([boxes_at_threshold(one, 0.7) for one in maps])
    counts = classify_errors(boxes, truths, (label_rank(logits, labels) == 0).numpy()).counts()
    known, top1 = GTKnownLoc(0.7), TopKLoc(1, 0.7)
    known.update(maps, truths)
    top1.update(maps, truths, logits, labels)
    assert counts["GT-known"]["hit"] == int(known.compute()["hits"]) > 0
    assert counts["Top-1"]["hit"] == int(top1.compute()["hits"]) > 0
    assert sum(counts["GT-known"].values()) == sum(counts["Top-1"].values()) == 60
    assert min(counts["GT-known"].values()) > 0
    best = [iou_matrix(one[None], truth).max() for one, truth in zip(boxes, truths, strict=True)]
    assert counts["GT-known"]["hit"] == sum(value >= 0.5 for value in best)


def test_no_images():
    errors = classify_errors(np.zeros((0, 4), np.int64), [], [])
    assert errors.location.shape == errors.combined.shape == (0,)
    assert sum(errors.counts()["Top-1"].values()) == 0


@pytest.mark.parametrize(
    ("boxes", "truths", "correct", "message"),
    [
        (np.zeros((2, 4), int), [np.zeros((1, 4), int)], None, r"predicted boxes of shape \[1, 4\], got \[2, 4\]"),
        (np.zeros((2, 4), int), [np.zeros((1, 4), int), np.zeros((0, 4), int)], None, "true box for image 1, got none"),
        (np.zeros((1, 4), int), [np.zeros((1, 4), int)], [True, False], r"one answer per image, \[1\], got \[2\]"),
    ],
)
def test_refuses(boxes, truths, correct, message):
    with pytest.raises(ValueError, match=message):
        classify_errors(boxes, truths, correct)


GOLDEN = Path(__file__).parents[1] / "golden" / "error_classes.npz"


def random_images(count=4000, seed=0):
    """Boxes, lists of one to four true boxes, right classes; every other box lies near a true one."""
    rng = np.random.RandomState(seed)  # its stream is frozen, that of default_rng is not
    boxes = np.sort(rng.randint(0, 40, (count, 2, 2)), axis=1).reshape(-1, 4)
    truths = [np.sort(rng.randint(0, 40, (rng.randint(1, 5), 2, 2)), axis=1).reshape(-1, 4) for _ in range(count)]
    for index in range(0, count, 2):
        box = (truths[index][0] + rng.randint(-6, 7, 4)).clip(0, 60)
        boxes[index] = [*box[:2], *np.maximum(box[:2], box[2:])]
    return boxes, truths, rng.rand(count) < 0.8


def test_classes_are_those_of_the_released_code():
    """Golden: what `cls_loc_err` and `get_badcase_detail` of vasgaowei/TS-CAM (commit 25aece4, `lib/cams_deit.py`)
    answered for `random_images()`, as codes of `ErrorClass` (Python 3.11, numpy 2.4). Its hit is IoU > .5, ours >= .5.
    """
    boxes, truths, right = random_images()
    with np.load(GOLDEN, allow_pickle=False) as file:
        theirs = file["combined"]
    ours = classify_errors(boxes, truths, right).combined
    assert set(ours.tolist()) == set(map(int, ErrorClass))
    best = np.array([iou_matrix(box[None], truth).max() for box, truth in zip(boxes, truths, strict=True)])
    at_limit = (best == 0.5) & right
    assert at_limit.any()
    assert (ours[at_limit] == ErrorClass.HIT).all()
    assert (theirs[at_limit] != ErrorClass.HIT).all()
    assert ours[~at_limit].tolist() == theirs[~at_limit].tolist()
