"""A whole evaluation: several scorers, other number formats, and memory that does not grow with the number of images."""

from __future__ import annotations

import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_fakes import SIDE, FakeSplit, Tiny
from evaluation_memory import pass_through, slope
from evaluation_speed import interval

import wsolbench.evaluation.parts
import wsolbench.evaluation.scoring
from wsolbench.config.schema import Dtype, EvaluateConfig
from wsolbench.data.annotations import AnnotationReader
from wsolbench.evaluation.evaluate import evaluate
from wsolbench.evaluation.frame import Frame
from wsolbench.evaluation.levels import Levels
from wsolbench.evaluation.scoring import Scoring
from wsolbench.method.base import Method
from wsolbench.system.progress import Silent
from wsolbench.types import Prediction


def outcomes(folder: Path, method: Method | None = None, **changes: Any) -> Levels:
    """Of 30 images in batches of 4, with boxes and masks."""
    torch.manual_seed(0)
    return evaluate(
        method or Tiny(Tiny.Config(), num_classes=3, backbone=None),
        "test",
        FakeSplit("test", per_class=10),
        Scoring(Frame((SIDE, SIDE), has_masks=True)),
        EvaluateConfig(**({"batch_size": 4} | changes)),
        seed=0,
        device=torch.device("cpu"),
        reader=AnnotationReader(),
        folder=folder,
        reporter=Silent(),
    ).levels()


def equal(a: Levels, b: Levels) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in vars(a))


def test_several_scorers_change_nothing(tmp_path: Path) -> None:
    alone = outcomes(tmp_path / "1")
    assert alone.ids.tolist() == [f"test/{index:03d}" for index in range(30)]
    assert equal(alone, outcomes(tmp_path / "4", threads=4))


def test_outcomes_come_from_disk_whole_and_in_order(tmp_path: Path) -> None:
    assert equal(outcomes(tmp_path / "often", save_every=0.0), outcomes(tmp_path / "once"))
    assert len(list((tmp_path / "often").glob("*.levels.npz"))) > 1


def test_maps_of_another_format_are_scored_as_float32(tmp_path: Path) -> None:
    seen = []

    class Watched(Tiny):
        def localize(self, images_BCHW: torch.Tensor, labels_B: torch.Tensor | None = None) -> Prediction:
            seen.append(self.net(images_BCHW).dtype)
            return super().localize(images_BCHW, labels_B)

    low = outcomes(tmp_path / "bf16", Watched(Tiny.Config(), num_classes=3, backbone=None), dtype=Dtype.bf16)
    assert set(seen) == {torch.bfloat16}
    assert (low.predictions >= 0).all()
    assert not torch.is_autocast_enabled("cpu")


def test_maps_are_scored_during_the_next_forward_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first batch's maps are not done before the second's forward pass has begun, nor that before their scoring has."""
    scoring, forward = threading.Event(), threading.Event()
    whole = wsolbench.evaluation.scoring.normalize_maps

    def scored(*asked: Any) -> Any:
        scoring.set()
        assert forward.wait(30)
        return whole(*asked)

    class Meeting(Tiny):
        def localize(self, images_BCHW: torch.Tensor, labels_B: torch.Tensor | None = None) -> Prediction:
            if self.batches == 1:
                assert scoring.wait(30)
                forward.set()
            return super().localize(images_BCHW, labels_B)

    monkeypatch.setattr(wsolbench.evaluation.scoring, "normalize_maps", scored)
    assert len(outcomes(tmp_path, Meeting(Tiny.Config(), num_classes=3, backbone=None))) == 30


def test_contours_are_found_without_the_interpreter_lock() -> None:
    """So the scorers' threads and the one that runs the forward pass do not wait for each other."""
    from wsolbench.boxes import onepass

    compiled = [each for each in vars(onepass).values() if hasattr(each, "targetoptions")]
    assert compiled
    assert all(each.targetoptions.get("nogil") for each in compiled)


def test_an_error_of_a_scorer_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: AnnotationReader, *asked: Any) -> Any:
        raise ZeroDivisionError("no box")

    monkeypatch.setattr(AnnotationReader, "read", fails)
    with pytest.raises(ZeroDivisionError, match="no box"):
        outcomes(tmp_path)


def test_memory_grows_by_less_than_outcomes_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stays of an image is its line in the ledger of annotations; its outcomes, 300 bytes, lie on disk."""
    monkeypatch.setattr(wsolbench.evaluation.parts, "IN_MEMORY", 2**17)  # a part every 150 images or so
    flush, images = wsolbench.evaluation.parts.Parts.flush, [0]
    readings: list[tuple[int, float]] = []

    def watched(parts: wsolbench.evaluation.parts.Parts) -> None:
        images[0] += sum(len(part) for part in parts._fresh)
        flush(parts)
        readings.append((images[0], float(tracemalloc.get_traced_memory()[0])))

    monkeypatch.setattr(wsolbench.evaluation.parts.Parts, "flush", watched)
    tracemalloc.start(1)
    try:
        pass_through(2000, 32, tmp_path)
    finally:
        tracemalloc.stop()
    assert len(readings) > 10
    assert readings[-1][0] == 2000
    bytes_an_image = slope(readings, 300) / 10_000
    assert bytes_an_image < 150


def test_the_interval_of_the_speed_script_is_that_of_a_median() -> None:
    assert interval(np.full(5, 1.25)) == (1.25, 1.25)
    low, high = interval(np.linspace(1, 2, 21))
    assert 1.2 < low < 1.5 < high < 1.8
