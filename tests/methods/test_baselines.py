"""Trivial baselines: hand-computed maps."""

from __future__ import annotations

import math

import pytest
import torch

import wsolbench


def localize(name: str, height: int, width: int, **config: float) -> torch.Tensor:
    prediction = wsolbench.create_method(name, num_classes=3, **config).localize(torch.zeros(2, 3, height, width))
    assert prediction.logits_BK is None
    assert torch.equal(prediction.maps_Bhw[0], prediction.maps_Bhw[1])
    return prediction.maps_Bhw[0]


def test_center_box_covers_its_share_of_the_image() -> None:
    map_HW = localize("center-box", 8, 16, area=0.25)
    expected = torch.zeros(8, 16)
    expected[2:6, 4:12] = 1
    assert torch.equal(map_HW, expected)
    assert localize("center-box", 224, 224).mean().item() == pytest.approx(0.5, abs=0.01)


def test_full_image_is_ones_with_one_zero_corner() -> None:
    map_HW = localize("full-image", 5, 7)
    assert map_HW[-1, -1] == 0
    assert map_HW.sum() == 34


def test_center_gaussian_is_symmetric_and_has_its_width() -> None:
    map_HW = localize("center-gaussian", 5, 9, sigma=0.2)
    assert map_HW[2, 4] == 1
    assert torch.equal(map_HW, map_HW.flip(0))
    assert torch.equal(map_HW, map_HW.flip(1))
    assert map_HW[3, 4].item() == pytest.approx(math.exp(-0.5))  # one pixel of five is one sigma
    assert map_HW[2, 7].item() == pytest.approx(math.exp(-0.5 * (3 / 9 / 0.2) ** 2))
