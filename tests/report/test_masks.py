"""Galleries of data with masks and no boxes, as OpenImages has them, against numbers made by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from engine_fakes import SIDE, FakeData, FakeSplit, fake_config
from torch import Tensor

from wsolbench.data.dataset import DatasetInfo
from wsolbench.method.base import Untrained
from wsolbench.registry import register_dataset, register_method
from wsolbench.report.gallery import Options
from wsolbench.report.pictures import outline
from wsolbench.report.write import write_report
from wsolbench.runs.engine import run
from wsolbench.types import Annotation, Prediction

Pixels = np.ndarray[Any, Any]
LEFT = 6  # columns of an image in which the map is high


class MaskSplit(FakeSplit):
    """The upper row of every image is ignored."""

    def annotation(self, id: str) -> Annotation:
        whole = super().annotation(id)
        assert whole.mask_HW is not None
        mask_HW = whole.mask_HW.copy()
        mask_HW[0] = 255
        return Annotation(id, whole.size_HW, None, mask_HW)


class MaskData(FakeData):
    def __init__(self, config: FakeData.Config, *, root: str | Path | None = None) -> None:
        super().__init__(config, root=root)
        self._splits: dict[str, FakeSplit] = {name: MaskSplit(name, config.per_class) for name in self.splits}

    @property
    def info(self) -> DatasetInfo:
        counts = {name: len(split) for name, split in self._splits.items()}
        names = ("a", "b", "c")
        return DatasetInfo("Masks", "-", "-", "r1", names, (SIDE, SIDE), counts, has_boxes=False, has_masks=True)


class Left(Untrained):
    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Prediction:
        maps_Bhw = torch.zeros(len(images_BCHW), SIDE, SIDE)
        maps_Bhw[:, :, :LEFT] = 1
        return Prediction(None, maps_Bhw)


register_dataset("mask-data")(MaskData)
register_method("left")(Left)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WSOLBENCH_CACHE", str(tmp_path / "cache"))
    for method in ("left", "centre"):
        run(fake_config(tmp_path / "results", method, dataset={"name": "mask-data"}))
    return tmp_path / "results"


def iou(region: Pixels, mask: Pixels) -> float:
    """Of pixels that are not ignored."""
    kept = region & (mask != 255)
    return float((kept & (mask == 1)).sum() / (kept | (mask == 1)).sum())


def best_cut(split: MaskSplit, high: Pixels) -> Pixels:
    """A map of two values has two cuts: all pixels or the high ones; the better one over the pooled pixels of the split."""
    masks = np.stack([np.asarray(split.annotation(id).mask_HW) for id in split.ids])
    cuts = (np.ones_like(high), high)
    return max(cuts, key=lambda region: iou(np.broadcast_to(region, masks.shape), masks))


def test_masks_and_regions_are_outlined_and_compared(results: Path, tmp_path: Path) -> None:
    page = write_report([results], tmp_path / "r.html", Options(images=1, ids=("test/006",))).read_text()
    assert "There are no pictures" not in page
    assert "Left out" not in page
    assert "No maps of" not in page
    assert re.findall(r"<h4>(.*?)</h4>", page) == ["Asked for", "Sample"]
    cards = re.split(r'<details class="card"', page)[1:]
    assert len(cards) == 5
    split = MaskSplit("test", 4)
    high = {"left": np.zeros((SIDE, SIDE), bool), "centre": np.zeros((SIDE, SIDE), bool)}
    high["left"][:, :LEFT] = True
    high["centre"][4:12, 4:12] = True
    regions = {method: best_cut(split, region) for method, region in high.items()}
    for card in cards:
        (id,) = re.findall(r'<span class="id">(.*?)</span>', card)
        mask_HW = split.annotation(id).mask_HW
        assert mask_HW is not None
        values = []
        for method, region in regions.items():
            values.append(iou(region, mask_HW))
            assert f"<b>{method}</b><span>IoU {values[-1]:.2f}†</span>" in card
        assert f"mean IoU {sum(values) / 2:.2f}" in card
        assert card.count('class="truth"') == card.count('class="box"') == 2
        assert card.count('class="map"') == 2
    assert "true mask" in page
    (index,) = re.findall(r'<script type="application/json" class="index">(.*?)</script>', page, re.DOTALL)
    assert json.loads(index)["boxes"] is False
    assert len(json.loads(index)["ids"]) == 12


def test_without_maps_the_masks_are_shown_and_without_outcomes_no_regions(results: Path, tmp_path: Path) -> None:
    page = write_report([results], tmp_path / "r.html", Options(images=1, maps=False)).read_text()
    assert page.count('class="truth"') == 8
    assert 'class="box"' not in page
    for path in results.rglob("levels.npz"):
        path.unlink()
    page = write_report([results], tmp_path / "r.html", Options(images=1)).read_text()
    assert page.count('class="map"') == 8
    assert 'class="box"' not in page
    assert "No regions of left · full: FileNotFoundError" in page


@pytest.mark.parametrize("seed", range(4))
def test_an_outline_filled_again_is_the_region(seed: int) -> None:
    random = np.random.default_rng(seed)
    region = cv2.resize(random.random((6, 6)), (24, 24), interpolation=cv2.INTER_CUBIC) > 0.5
    region[9:15, 9:15] = True
    region[11:13, 11:13] = False  # a hole
    drawn = np.zeros((240, 240), np.uint8)
    rings = [
        np.array([[10 * float(x), 10 * float(y)] for x, y in (point.split() for point in ring.split("L"))])
        for ring in re.findall(r"M(.*?)Z", outline(region))
    ]
    cv2.fillPoly(drawn, [np.rint(ring).astype(np.int32) for ring in rings], 1)  # even-odd, as nested rings are holes
    centres = drawn[5::10, 5::10].astype(bool)
    assert (centres != region).mean() < 0.01
    assert outline(np.zeros((3, 3), bool)) == ""
