"""Oracle of PxAP: numpy's own histograms over all pixels at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsolbench.metrics import PxAP


def naive(maps, masks, interval):
    """PxAP and peak IoU by definition; numpy.histogram for the bins, one threshold at a time for the peak."""
    edges = np.append(np.arange(0, 1, interval), [1.0, 2.0, 3.0])
    tp = np.histogram(maps[masks == 1], edges)[0].astype(float)[::-1].cumsum()
    fp = np.histogram(maps[masks == 0], edges)[0].astype(float)[::-1].cumsum()
    value, last = 0.0, 0.0
    for kept, wrong in zip(tp, fp, strict=True):
        if kept + wrong > 0:
            value += (kept / tp[-1] - last) * kept / (kept + wrong)
            last = kept / tp[-1]
    peak = 0.0
    for threshold in edges[:-2]:
        above = maps >= threshold
        inside, outside = (above & (masks == 1)).sum(), (above & (masks == 0)).sum()
        peak = max(peak, inside / ((masks == 1).sum() + outside))
    return value, peak


def random_pixels(seed, shape=(6, 20, 24)):
    rng = np.random.default_rng(seed)
    maps = rng.random(shape)
    maps[rng.random(shape) < 0.2] = 1.0
    maps[rng.random(shape) < 0.2] = rng.choice(np.arange(0, 1, 0.001))  # exactly on an edge
    masks = np.where(rng.random(shape) < 0.3 * maps + 0.1, 1, 0)
    masks[rng.random(shape) < 0.15] = 255
    return maps, masks.astype(np.uint8)


@pytest.mark.parametrize("interval", [0.1, 0.01, 0.001])
@pytest.mark.parametrize("seed", range(3))
def test_value_is_the_naive_one(seed, interval):
    maps, masks = random_pixels(seed)
    metric = PxAP(interval)
    for batch in (slice(0, 2), slice(2, None)):
        metric.update(torch.from_numpy(maps[batch]), torch.from_numpy(masks[batch]))
    result = metric.compute()
    value, peak = naive(maps, masks, interval)
    assert result["value"] == pytest.approx(value, abs=1e-12)
    assert result["piou"] == peak


@settings(deadline=None, max_examples=50)
@given(
    hnp.arrays(np.float64, (1, 4, 5), elements=st.floats(0, 1)),
    hnp.arrays(np.uint8, (1, 4, 5), elements=st.sampled_from([0, 1, 255])),
)
def test_curves_are_those_of_the_pixels_at_or_above(maps, masks):
    masks[0, 0, 0] = 1
    metric = PxAP(0.1)
    metric.update(maps, masks)
    result = metric.compute()
    assert result["thresholds"].tolist() == [*np.arange(0, 1, 0.1), 1.0]
    for threshold, precision, recall in zip(
        result["thresholds"].tolist(), result["precision"].tolist(), result["recall"].tolist(), strict=True
    ):
        tp, fp = ((maps >= threshold) & (masks == value) for value in (1, 0))
        assert recall == tp.sum() / (masks == 1).sum()
        assert np.isnan(precision) if not (tp | fp).any() else precision == tp.sum() / (tp | fp).sum()
    assert result["recall"][0] == 1
    value, peak = naive(maps, masks, 0.1)
    assert result["value"] == pytest.approx(value, abs=1e-12)
    assert result["piou"] == peak
    assert 0 <= result["value"] <= 1 + 1e-12


def test_by_hand():
    metric = PxAP()
    metric.update(np.array([[[0.9, 0.8, 0.1, 1.0]]]), np.array([[[1, 0, 1, 255]]]))
    result = metric.compute()
    assert result["value"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert result["piou"] == 2 / 3
    assert result["precision"][-1].isnan()  # the only pixel there is ignored


def test_perfect_map_scores_one():
    masks = np.array([[[0, 1], [1, 1]]])
    metric = PxAP()
    metric.update(masks.astype(float), masks)
    assert metric.compute()["value"] == metric.compute()["piou"] == 1


def test_state_survives_casts():
    maps, masks = random_pixels(0)
    metric = PxAP().half().set_dtype(torch.float16)
    metric.update(maps, masks)
    assert metric.foreground.dtype == torch.int64
    assert int(metric.foreground.sum() + metric.background.sum()) == (masks != 255).sum()


@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        (np.zeros((1, 2, 2)), np.zeros((1, 2, 3)), r"maps' shape \[1, 2, 2\], got \[1, 2, 3\]"),
        (np.zeros((1, 2, 2)), np.full((1, 2, 2), 2), "1 \\(object\\), 0 \\(background\\) and 255"),
        (np.full((1, 2, 2), np.nan), np.zeros((1, 2, 2)), "without NaN"),
    ],
)
def test_refuses(maps, masks, message):
    with pytest.raises(ValueError, match=message):
        PxAP().update(maps, masks)


def test_refuses_a_split_without_foreground():
    metric = PxAP()
    metric.update(np.zeros((1, 2, 2)), np.zeros((1, 2, 2), int))
    with pytest.raises(ValueError, match="at least one foreground pixel"):
        metric.compute()
