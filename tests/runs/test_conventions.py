"""`evaluate.convention`: a run's maps, scored on test by a paper's own rules too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import staged_fakes  # noqa: F401 (registers methods)
import torch
from engine_fakes import SIDE, FakeData, FakeSplit, fake_config

from wsolbench.boxes.maps import normalize_maps
from wsolbench.config.identity import deciding_run
from wsolbench.config.schema import RunConfig
from wsolbench.conventions import get_convention
from wsolbench.data.annotations import AnnotationReader
from wsolbench.data.dataset import DatasetInfo
from wsolbench.data.split import Split
from wsolbench.errors import UsageError
from wsolbench.evaluation.by_convention import score_convention
from wsolbench.evaluation.cells import convention_cells
from wsolbench.metrics import label_rank
from wsolbench.record import Cell, RunRecord
from wsolbench.registry import register_dataset
from wsolbench.runs.engine import run
from wsolbench.runs.load import load_run
from wsolbench.runs.opening import Session, open_job
from wsolbench.types import Sample


class Shifted(FakeSplit):
    """Other image content: everything three pixels to the left."""

    def sample(self, index: int, augment: torch.Generator | None) -> Sample:
        sample = super().sample(index, augment)
        return replace(sample, image_CHW=sample.image_CHW.roll(-3, dims=2))


class Cropping(FakeData):
    """A data set that can show the middle of a larger image."""

    @dataclass
    class Config:
        per_class: int = 4
        geometry: str = "resize"

    @property
    def info(self) -> DatasetInfo:
        return replace(super().info, geometry=self.config.geometry)

    def split(self, name: str) -> FakeSplit:
        return Shifted(name, self.config.per_class) if self.config.geometry == "centre-crop" else super().split(name)


register_dataset("fake-cropping")(Cropping)


def config(
    out: Path, convention: str, dataset: str = "fake-data", method: str = "sharp-b", **options: Any
) -> RunConfig:
    """A run of a method whose maps are the same in batches of any size, so one pass over all images must find them again."""
    made = fake_config(out, method)
    return replace(
        made,
        dataset={**made.dataset, "name": dataset, **options},
        evaluate=replace(made.evaluate, convention=convention),
    )


def record_of(asked: RunConfig) -> RunRecord:
    outcome = run(asked)
    assert outcome.record is not None
    return outcome.record


def expected(asked: RunConfig, split: Split) -> list[Cell]:
    """The convention's numbers from the finished run's network, one image after the other."""
    convention = get_convention(asked.evaluate.convention)
    method = load_run(open_job(asked, Session()).directory.path)
    samples, outcomes = list(split), []
    labels = torch.tensor([sample.label for sample in samples])
    answer = method.localize(torch.stack([sample.image_CHW for sample in samples]), labels)
    maps = answer.maps_Bhw.detach()
    scores = normalize_maps(maps, (SIDE, SIDE)) if convention.box_rule_only else maps.numpy()
    assert answer.logits_BK is not None
    truth, ranks = [split.annotation(id) for id in split.ids], label_rank(answer.logits_BK, labels)
    outcomes = score_convention(
        convention, scores, truth, labels, ranks, split.ids, (SIDE, SIDE), asked.dataset["name"]
    )
    return convention_cells(outcomes, AnnotationReader())


@pytest.mark.parametrize("name", ["tscam", "sat (box rule only)"])
def test_a_convention_of_whole_images_scores_the_very_maps_of_the_run(tmp_path: Path, name: str) -> None:
    asked = config(tmp_path, name)
    record = record_of(asked)
    found = [cell for cell in record.cells if cell.convention != "reference"]
    assert found == expected(asked, FakeSplit("test", 4))
    assert {cell.convention for cell in found} == {name}
    plain = record_of(config(tmp_path, "reference"))
    assert [cell for cell in record.cells if cell.convention == "reference"] == plain.cells
    assert record.hash != plain.hash


def test_a_convention_of_crops_gets_maps_of_crops(tmp_path: Path) -> None:
    asked = config(tmp_path, "sat", "fake-cropping")
    record = record_of(asked)
    found = [cell for cell in record.cells if cell.convention == "sat"]
    assert found == expected(asked, Shifted("test", 4))
    assert found != expected(asked, FakeSplit("test", 4)), "the two contents give the same numbers: nothing was tested"
    plain = record_of(config(tmp_path, "reference", "fake-cropping"))
    assert [cell for cell in record.cells if cell.convention == "reference"] == plain.cells


def test_a_data_set_of_crops_needs_no_further_pass(tmp_path: Path) -> None:
    asked = config(tmp_path, "sat", "fake-cropping", geometry="centre-crop")
    found = [cell for cell in record_of(asked).cells if cell.convention == "sat"]
    assert found == expected(asked, Shifted("test", 4))


def test_a_threshold_that_test_chose_is_marked_and_in_the_ledger(tmp_path: Path) -> None:
    record = record_of(config(tmp_path, "sat (box rule only)"))
    assert all(
        cell.oracle and cell.threshold_by == "test-oracle" for cell in record.cells if cell.convention != "reference"
    )
    purpose = "threshold selection (convention sat (box rule only))"
    assert {"split": "test", "kind": "boxes", "purpose": purpose, "images": 12} in record.ledger.annotations
    fixed = record_of(config(tmp_path, "tscam"))
    assert not any(cell.oracle for cell in fixed.cells if cell.convention == "tscam")
    assert not any("convention" in use["purpose"] for use in fixed.ledger.annotations)


def test_what_cannot_be_computed_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"data set 'fake-data' shows them one way only: take 'sat \(box rule only\)'"):
        open_job(config(tmp_path, "sat"), Session())
    with pytest.raises(UsageError, match="unknown convention 'tscan', did you mean 'tscam'"):
        open_job(config(tmp_path, "tscan"), Session())
    assert not list(tmp_path.rglob("config.yaml"))


def test_older_runs_keep_their_hash(tmp_path: Path) -> None:
    assert "convention" not in deciding_run(config(tmp_path, "reference"))["evaluate"]
    assert deciding_run(config(tmp_path, "tscam"))["evaluate"]["convention"] == "tscam"
