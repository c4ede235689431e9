"""Maths of the box metrics: hand-computed values, sums, dtypes, and one number whatever the batches."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torchmetrics import MetricCollection

import wsolbench.metrics
from wsolbench.boxes.maps import normalize_maps
from wsolbench.errors import UsageError
from wsolbench.metrics import GTKnownLoc, MaxBoxAcc, MaxBoxAccV2


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    maps = normalize_maps(rng.random((12, 5, 5)), 24)
    boxes = [np.sort(rng.integers(0, 24, (1 + i % 2, 2, 2)), axis=1).reshape(-1, 4) for i in range(12)]
    return torch.from_numpy(maps), boxes


def test_public_names():
    assert sorted(wsolbench.metrics.__all__) == wsolbench.metrics.__all__
    assert set(wsolbench.metrics.__all__) <= set(dir(wsolbench.metrics))
    assert all(hasattr(wsolbench.metrics, name) for name in wsolbench.metrics.__all__)
    with pytest.raises(AttributeError, match=r"wsolbench\.metrics attribute MaxBoxAc"):
        wsolbench.metrics.MaxBoxAc  # noqa: B018


def test_each_iou_level_has_its_own_threshold():
    # a bright 4x4 core in a dim 10x10 body: the core is right for one image, the body for the other
    map_HW = np.zeros((16, 16))
    map_HW[1:11, 1:11] = 0.5
    map_HW[1:5, 1:5] = 1
    core, body = np.array([[1, 1, 5, 5]]), np.array([[1, 1, 11, 11]])
    metric = MaxBoxAcc(ious=(0.1, 0.5))
    metric.update(np.stack([map_HW] * 3), [core, body, body])
    result = metric.compute()
    assert result["per_iou"] == {0.1: 1.0, 0.5: 2 / 3}  # IoU of core and body is 25 / 121
    assert result["value"] == (1 + 2 / 3) / 2
    assert result["best_thresholds"] == {0.1: 0.0, 0.5: 0.0}
    assert result["hits"][1].tolist() == [2] * 50 + [1] * 50  # 0.5 becomes 127, and int(0.5 * 255) is 127
    assert result["count"] == 3


def test_iou_is_inclusive():
    map_HW = np.zeros((1, 8, 8))
    map_HW[0, :2, :3] = 1  # box (0, 0, 3, 2): 12 pixels
    metric = MaxBoxAcc()
    metric.update(map_HW, [np.array([[0, 0, 3, 5]])])  # 24 pixels
    assert metric.compute()["value"] == 1


def test_defaults():
    v1, v2 = MaxBoxAcc(), MaxBoxAccV2()
    assert (v1.contours, v1.ious, len(v1.thresholds)) == ("single", (0.5,), 100)
    assert (v2.contours, v2.ious, len(v2.thresholds)) == ("multi", (0.3, 0.5, 0.7), 1000)
    assert v1.higher_is_better
    assert not v1.full_state_update


@pytest.mark.parametrize("make", [MaxBoxAcc, MaxBoxAccV2, GTKnownLoc, lambda: GTKnownLoc(0.4)])
def test_state_survives_casts_pickling_and_shape(make, case):
    metric = make()
    shape = (len(metric.ious), len(metric.thresholds))
    metric.update(*case)
    want = metric.compute()
    for cast in (lambda m: m.half(), lambda m: m.float(), lambda m: m.double(), lambda m: m.set_dtype(torch.float16)):
        metric = cast(metric)
        torch.nn.ModuleList([metric]).half()
    for one in (metric, pickle.loads(pickle.dumps(metric))):
        one.update(*case)
        result = one.compute()
        assert one.hits.dtype == one.count.dtype == result["hits"].dtype == torch.int64
        assert tuple(result["hits"].shape) == shape
        assert tuple(result["thresholds"].shape) == shape[1:]
        assert torch.equal(result["hits"], 2 * want["hits"])
        assert result["value"] == want["value"]


def test_batches_change_nothing(case):
    maps, boxes = case
    whole, parts = MaxBoxAccV2(), MaxBoxAccV2()
    whole.update(maps, boxes)
    parts(maps[:1], boxes[:1])  # forward, which computes the batch's own value as well
    parts.update(maps[1:5], boxes[1:5])
    parts.update(maps[5:5], [])
    parts.update(maps[5:], boxes[5:])
    assert torch.equal(whole.compute()["hits"], parts.compute()["hits"])
    assert parts.compute()["count"] == 12
    parts.reset()
    assert not parts.hits.any()


def test_a_collection_keeps_metrics_apart_that_agree_on_the_first_batch(case):
    maps, boxes = case
    hit = torch.zeros_like(maps[:1])
    hit[0, 2:5, 2:6] = 1
    makers = {
        "single": MaxBoxAcc,
        "multi": lambda: MaxBoxAcc("multi"),
        "loose": lambda: MaxBoxAcc(ious=(0.1,)),
        "fixed": lambda: GTKnownLoc(0.4),
        "lower": lambda: GTKnownLoc(0.2),
    }
    together = MetricCollection({name: make() for name, make in makers.items()})
    alone = {name: make() for name, make in makers.items()}
    for batch in ((hit, [np.array([[2, 2, 6, 5]])]), (maps, boxes)):
        together.update(*batch)
        for metric in alone.values():
            metric.update(*batch)
    for name, metric in alone.items():
        assert torch.equal(together[name].compute()["hits"], metric.compute()["hits"])


def test_refuses():
    with pytest.raises(UsageError, match="unknown contours"):
        MaxBoxAcc(contours="both")
    with pytest.raises(ValueError, match="IoU levels in"):
        MaxBoxAcc(ious=(50,))
    with pytest.raises(ValueError, match="interval"):
        MaxBoxAcc(interval=0)
    with pytest.warns(UserWarning, match="before"), pytest.raises(RuntimeError, match="call update first"):
        MaxBoxAcc().compute()
