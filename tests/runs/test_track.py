"""What is told while a run goes on can be read back, once, and being watched changes nothing."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from engine_fakes import SharedB, fake_config

from wsolbench.cli.main import main
from wsolbench.config.identity import deciding_values
from wsolbench.data.pictures import overlay
from wsolbench.errors import UsageError
from wsolbench.runs.engine import run
from wsolbench.runs.opening import Session, open_job
from wsolbench.runs.track import check_tracker, open_tracker
from wsolbench.runs.watch import watched_maps
from wsolbench.types import Batch

reader = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed: .[track]"
)


def told(folder: Path) -> Any:
    """TensorBoard's own reader, which keeps every point here."""
    events = reader.EventAccumulator(str(folder), size_guidance={reader.SCALARS: 0, reader.IMAGES: 0})
    events.Reload()
    return events


def steps(events: Any, name: str) -> list[int]:
    return [point.step for point in events.Scalars(name)]


def test_what_is_told_can_be_read_back(tmp_path: Path) -> None:
    outcome = run(fake_config(tmp_path, track="tensorboard"))
    assert outcome.directory is not None
    assert outcome.record is not None
    events = told(outcome.directory / "track")
    lines = [json.loads(line) for line in (outcome.directory / "train.jsonl").read_text().splitlines()]
    assert steps(events, "train/loss") == [line["step"] for line in lines] == [3, 6, 9]
    assert [point.value for point in events.Scalars("train/loss")] == pytest.approx([line["loss"] for line in lines])
    assert [point.value for point in events.Scalars("train/lr")] == pytest.approx([line["lr"] for line in lines])
    for cell in outcome.record.cells:
        (point,) = events.Scalars(f"test/{cell.column}")
        assert (point.step, point.value) == (9, pytest.approx(100 * cell.value))
    shown = [name for name in events.Tags()["images"] if name.startswith("maps/val/")]
    assert len(shown) == 4  # of val, at its ends and between
    assert [picture.step for picture in events.Images(shown[0])] == [0, 3, 6, 9]
    assert len([name for name in events.Tags()["images"] if name.startswith("chosen/val/")]) == 4


@pytest.mark.parametrize("method", ["tiny", "shared-b"])  # batch norm, dropout and a map that draws; maps by gradients
def test_being_watched_changes_no_number_and_no_identity(method: str, tmp_path: Path) -> None:
    paths = []
    for track in (None, "tensorboard"):
        outcome = run(fake_config(tmp_path / str(track), method, track=track))
        assert outcome.directory is not None
        paths.append(outcome.directory)
    assert paths[0].relative_to(tmp_path / "None") == paths[1].relative_to(tmp_path / "tensorboard")
    assert (paths[0] / "levels.npz").read_bytes() == (paths[1] / "levels.npz").read_bytes()
    weights = [next((tmp_path / name).rglob("last.safetensors")).read_bytes() for name in ("None", "tensorboard")]
    assert weights[0] == weights[1]
    assert not list((tmp_path / "None").rglob("track"))
    assert deciding_values({"track": "tensorboard"}) == {}


def test_a_run_that_is_taken_up_has_each_point_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = fake_config(tmp_path, "interrupted", track="tensorboard", epochs=6)
    monkeypatch.setenv("INTERRUPT_AT_LOSS", "10")
    with pytest.raises(KeyboardInterrupt):
        run(config)
    monkeypatch.setenv("INTERRUPT_AT_LOSS", "-1")
    folder = next(tmp_path.rglob("track"))
    (train,) = folder.glob("*.train")
    writer = open_tracker("tensorboard", folder, "train", 9, "a process that died after it told of steps 12 and 15")
    for step in (12, 15):
        writer.scalars(step, {"train/loss": -1.0})
    writer.close()
    outcome = run(config)
    assert outcome.directory is not None
    assert train.is_file()
    events = told(folder)
    assert steps(events, "train/loss") == [3, 6, 9, 12, 15, 18]
    assert min(point.value for point in events.Scalars("train/loss")) > 0
    assert len(events.Scalars("test/Top-1 Cls")) == 1
    run(config, rerun=True)
    assert steps(told(folder), "train/loss") == [3, 6, 9, 12, 15, 18]


def test_a_shared_classifier_is_watched_where_it_lies(tmp_path: Path) -> None:
    for method in ("shared-a", "shared-b"):
        assert run(fake_config(tmp_path, method, track="tensorboard")).record is not None
    (train,) = tmp_path.rglob("*.train")  # trained once, for both
    assert train.parents[2].name == "_classifiers"
    assert len(list(tmp_path.rglob("*.evaluate"))) == 2


def test_training_does_not_notice_that_maps_are_made() -> None:
    method = SharedB(SharedB.Config(), num_classes=3, class_names=("a", "b", "c"), backbone=None, pretrained=False)
    method.train()
    method.classifier.norm.eval()  # type: ignore[union-attr]
    batch = Batch(["x"], torch.rand(1, 3, 16, 16), torch.tensor([1]), {})
    before = torch.random.get_rng_state(), {name: value.clone() for name, value in method.state_dict().items()}
    maps_Bhw = watched_maps(method, batch, torch.device("cpu"))
    assert maps_Bhw.shape == (1, 8, 8)
    assert not maps_Bhw.requires_grad
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert all(torch.equal(value, before[1][name]) for name, value in method.state_dict().items())
    assert method.training
    assert method.classifier.training  # type: ignore[union-attr]
    assert not method.classifier.norm.training  # type: ignore[union-attr]
    assert all(parameter.grad is None for parameter in method.parameters())


def test_what_goes_wrong_with_a_tracker_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", full)
    arguments = ["--methods", "tiny", "--dataset", "fake-data", "train.epochs=2", "--out", str(tmp_path)]
    assert main(["run", *arguments, "--track", "tensorboard"]) == 0
    assert "tensorboard is told no more: OSError: [Errno 28] No space left on device" in capsys.readouterr().err


def test_other_processes_than_the_first_tell_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsolbench.distributed.is_first", lambda: False)
    run(fake_config(tmp_path, track="tensorboard"))
    assert not list(tmp_path.rglob("track"))


def test_a_tracker_that_is_not_there_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="unknown tracker 'tensorbord', did you mean 'tensorboard'"):
        open_job(fake_config(tmp_path, track="tensorbord"), Session())
    monkeypatch.setattr("wsolbench.runs.track.find_spec", lambda name: None)
    arguments = ["--methods", "tiny", "--dataset", "fake-data", "--out", str(tmp_path)]
    assert main(["run", *arguments, "--track", "wandb"]) == 2
    assert "--track wandb needs the package wandb, which is not installed: pip install wandb" in capsys.readouterr().err
    assert main(["run", *arguments, "track=wandb"]) == 2
    assert not list(tmp_path.rglob("config.yaml"))
    check_tracker(None)


def test_wandb_is_told_the_same_under_an_id_that_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is a stand-in here: it is large, and its server is out of reach of tests."""
    asked: list[dict[str, Any]] = []
    logged: list[tuple[int, str]] = []

    class Run:
        def log(self, values: dict[str, Any], step: int) -> None:
            logged.extend((step, name) for name in values)

        def finish(self) -> None:
            logged.append((-1, "finish"))

    fake: Any = ModuleType("wandb")
    fake.init = lambda **options: asked.append(options) or Run()
    fake.Image = lambda pixels: pixels
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("wsolbench.runs.track.find_spec", lambda name: object())
    outcome = run(replace(fake_config(tmp_path), track="wandb"))
    assert outcome.directory is not None
    assert [each["id"] for each in asked] == [f"{outcome.directory.name}-{part}" for part in ("train", "evaluate")]
    assert {(each["mode"], each["resume"], each["dir"]) for each in asked} == {
        ("offline", "allow", str(outcome.directory / "track"))
    }
    assert {step for step, name in logged if name == "train/loss"} == {3, 6, 9}
    assert logged.count((-1, "finish")) == 2


def test_overlays_mix_an_image_and_the_colours_of_a_map() -> None:
    image = np.full((2, 2, 3), 100, np.uint8)
    map_HW = np.array([[0, 255], [0, 255]], np.uint8)
    assert (overlay(image, map_HW, 0.0) == image).all()
    assert overlay(image, map_HW, 1.0)[0].tolist() == [[68, 1, 84], [253, 231, 37]]  # the ends of viridis
