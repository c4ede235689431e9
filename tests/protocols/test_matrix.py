"""Protocols that choose among checkpoints: one training serves them all, and a look-up equals a computation from scratch."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_fakes import SIDE, FakeSplit, fake_config
from staged_fakes import BEST_STEP, PSEUDO_XY, MovedSplit, moved

import wsolbench.runs.trained
from wsolbench import load_run
from wsolbench.boxes.maps import normalize_maps
from wsolbench.boxes.truth import resize_boxes
from wsolbench.config.compose import expand
from wsolbench.config.identity import deciding_run
from wsolbench.config.presets import protocol_presets
from wsolbench.config.saved import from_yaml, to_yaml
from wsolbench.config.schema import RunConfig
from wsolbench.errors import UsageError
from wsolbench.method.checkpoint import read_tensors
from wsolbench.metrics import GTKnownLoc, MaxBoxAcc, TopKLoc
from wsolbench.pseudo_boxes.folder import read_pseudo_boxes, write_pseudo_boxes
from wsolbench.record import Cell, RunRecord, comparable
from wsolbench.runs.engine import run
from wsolbench.runs.opening import Session, open_job


@pytest.fixture
def pseudo(tmp_path: Path) -> Path:
    """Pseudo-boxes of val: the true ones, moved."""
    split = FakeSplit("val", 4)
    boxes = [tuple(moved(split.annotation(id).boxes_N4[0], PSEUDO_XY)) for id in split.ids]
    write_pseudo_boxes(tmp_path / "pseudo", split, [(SIDE, SIDE)] * len(split), boxes, {"source": "moved"})
    return tmp_path / "pseudo"


def config(out: Path, method: str = "shared-b", **changes: Any) -> RunConfig:
    made = fake_config(out, method, **changes)
    return replace(made, train=replace(made.train, epochs=4, lr=0.05))


def staged(out: Path, method: str = "staged-b", **changes: Any) -> RunConfig:
    """With a method and data for which every selector has another best checkpoint, on any processor."""
    return replace(config(out, method, **changes), dataset={"name": "moved-data"})


def done(asked: RunConfig) -> tuple[RunRecord, Path]:
    outcome = run(asked)
    assert outcome.record is not None
    assert outcome.directory is not None
    return outcome.record, outcome.directory


def predictions(method: Any, split: FakeSplit) -> list[tuple[Any, list[Any], Any, Any]]:
    """Score maps, true boxes, logits and label of one image after the other."""
    found = []
    for sample in split:
        labels = torch.tensor([sample.label])
        answer = method.localize(sample.image_CHW[None], labels)
        truth = split.annotation(sample.id)
        boxes = [resize_boxes(truth.boxes_N4, truth.size_HW, (SIDE, SIDE))]
        found.append((normalize_maps(answer.maps_Bhw.detach(), (SIDE, SIDE)), boxes, answer.logits_BK.detach(), labels))
    return found


def updated(metric: Any, images: list[tuple[Any, list[Any], Any, Any]]) -> dict[str, Any]:
    for maps, boxes, logits, labels in images:
        metric.update(maps, boxes, *((logits, labels) if isinstance(metric, TopKLoc) else ()))
    return metric.compute()


def test_every_cell_of_the_matrix_equals_a_computation_from_scratch(tmp_path: Path, pseudo: Path) -> None:
    """By the metric classes, from the weights of every snapshot; cells cut at each map's Otsu level are left to others."""
    record, folder = done(staged(tmp_path, matrix=True, pseudo_boxes=str(pseudo)))
    snapshots = sorted((folder.parents[3] / "_classifiers").glob("*/snapshots/*.safetensors"))
    assert [int(path.stem) for path in snapshots] == [0, 3, 6, 9, 12]
    drawn = read_pseudo_boxes(pseudo, MovedSplit("val", 4))
    method, states = load_run(folder), []
    for path in snapshots:
        method.classifier.load_state_dict(read_tensors(path))
        val, test = predictions(method, MovedSplit("val", 4)), predictions(method, MovedSplit("test", 4))
        stand_ins = [
            (maps, [drawn.boxes[id][None]], *others)
            for id, (maps, _, *others) in zip(MovedSplit("val", 4).ids, val, strict=True)
        ]
        right = [int(logits.argmax()) == int(label) for _, _, logits, label in val]
        found = {
            "val-boxes": updated(MaxBoxAcc(), val),
            "val-pseudo:moved": updated(MaxBoxAcc(), stand_ins),
            "test-oracle": updated(MaxBoxAcc(), test),
        }
        scores = {name: each["value"] for name, each in found.items()} | {"class-accuracy": np.mean(right)}
        states.append((test, scores, {name: each["best_thresholds"][0.5] for name, each in found.items()}))
    checked = set()
    for cell in record.matrix:
        scores = [state[1].get(cell.checkpoint_by, 0.0) for state in states]
        at = len(states) - 1 if cell.checkpoint_by == "last" else int(np.argmax(scores))
        assert 3 * at == BEST_STEP[cell.checkpoint_by.removesuffix(":moved")]
        test, _, thresholds = states[at]
        assert cell.oracle == ("test-oracle" in (cell.checkpoint_by, cell.threshold_by))
        if cell.threshold_by == "otsu":
            assert cell.threshold is None
            continue
        assert cell.threshold == thresholds[cell.threshold_by]
        metric = GTKnownLoc(cell.threshold) if cell.metric == "GT-known" else TopKLoc(k=1, threshold=cell.threshold)
        assert cell.value == updated(metric, test)["value"]
        checked.add((cell.checkpoint_by, cell.threshold_by, cell.metric))
    assert len(checked) == 5 * 3 * 2
    assert len(record.matrix) == 5 * 4 * 2


PRESETS = {
    "labels-only": ("class-accuracy", "otsu"),
    "realistic": ("val-pseudo", "val-pseudo"),
    "paper-sat": ("test-oracle:sat", "test-oracle:sat"),
    "paper-tscam": ("test-oracle:tscam", "fixed:tscam"),
    "full": ("last", "val-boxes"),
    "reference": ("last", "test-oracle"),
    "matrix": ("last", "val-boxes"),
}


def test_presets_are_those_of_the_design() -> None:
    assert {*PRESETS} == {*protocol_presets()}
    for name, selectors in PRESETS.items():
        (made,) = expand(["cam"], protocol=name)
        assert (made.protocol.checkpoint, made.protocol.threshold) == selectors
        assert (made.protocol.shots, made.protocol.fraction, made.protocol.matrix) == (None, None, name == "matrix")
        assert from_yaml(to_yaml(made)) == made
    (made,) = expand(["cam"], protocol="5shot+realistic")
    assert (made.protocol.name, made.protocol.shots, made.protocol.checkpoint) == ("5shot+realistic", 5, "val-pseudo")
    (made,) = expand(["cam"], protocol="10percent")
    assert (made.protocol.name, made.protocol.fraction) == ("10percent", 0.1)


def test_one_training_serves_every_protocol(tmp_path: Path, pseudo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[int] = []
    whole = wsolbench.runs.trained.fit
    monkeypatch.setattr(wsolbench.runs.trained, "fit", lambda *a, **k: (trained.append(1), whole(*a, **k)))
    for method in ("staged", "staged-a", "staged-b"):
        matrix, _ = done(staged(tmp_path, method, matrix=True, pseudo_boxes=str(pseudo)))
        table = {(cell.checkpoint_by, cell.threshold_by, cell.metric): cell for cell in matrix.matrix}
        for checkpoint, threshold in (
            ("class-accuracy", "otsu"),
            ("val-boxes", "val-boxes"),
            ("val-pseudo", "val-pseudo"),
            ("test-oracle", "test-oracle"),
        ):
            asked = staged(tmp_path, method, checkpoint=checkpoint, threshold=threshold, pseudo_boxes=str(pseudo))
            record, folder = done(asked)
            assert record.ledger.checkpoint_step == BEST_STEP[checkpoint]
            full = {"val-pseudo": "val-pseudo:moved"}
            checkpoint, threshold = full.get(checkpoint, checkpoint), full.get(threshold, threshold)
            for cell in record.cells:
                if cell.metric in ("GT-known", "Top-1 Loc"):
                    same = table[checkpoint, threshold, cell.metric]
                    assert (cell.value, cell.low, cell.high, cell.threshold) == (
                        same.value, same.low, same.high, same.threshold
                    )  # fmt: skip
            assert record.test_selected == (checkpoint == "test-oracle")
            assert record.ledger.checkpoint == checkpoint
            assert (folder / record.ledger.weights_file).is_file()
    assert sum(trained) == 2, "the first trains itself, the two others share a classifier"


@pytest.mark.parametrize("method", ["tiny", "shared-b"])
def test_the_weights_of_the_chosen_checkpoint_are_kept_and_loaded(tmp_path: Path, method: str) -> None:
    record, folder = done(config(tmp_path, method, checkpoint="test-oracle", threshold="test-oracle"))
    assert record.ledger.weights_file == "best-test-oracle.safetensors"
    chosen = read_tensors(folder / "best-test-oracle.safetensors")
    loaded = load_run(folder)
    module = loaded if method == "tiny" else loaded.classifier
    assert all(torch.equal(value, chosen[name]) for name, value in module.state_dict().items())
    (snapshot,) = folder.parents[3].glob(f"_*/*/snapshots/{record.ledger.checkpoint_step:08d}.safetensors")
    assert snapshot.read_bytes() == (folder / "best-test-oracle.safetensors").read_bytes()


def test_the_last_checkpoint_of_a_matrix_is_that_of_a_plain_run(tmp_path: Path) -> None:
    plain, folder = done(config(tmp_path / "a", "tiny"))
    matrix, other = done(config(tmp_path / "b", "tiny", matrix=True))
    assert plain.cells == matrix.cells
    for name in ("levels.npz", "images.csv.gz", "last.safetensors"):
        assert (folder / name).read_bytes() == (other / name).read_bytes()


def test_a_matrix_that_was_cut_short_comes_to_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = done(config(tmp_path / "a", "tiny", matrix=True))
    other = config(tmp_path / "b", "tiny", matrix=True)
    monkeypatch.setenv("INTERRUPT_AT_BATCH", "7")  # in the middle of the third checkpoint
    interrupted = replace(other, method={"name": "interrupted"})
    with pytest.raises(KeyboardInterrupt):
        run(interrupted)
    monkeypatch.delenv("INTERRUPT_AT_BATCH")
    resumed, _ = done(interrupted)
    assert resumed.matrix == whole.matrix
    assert resumed.cells == whole.cells


def test_without_boxes_of_val_the_presets_that_remain_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeSplit, "annotated", property(lambda self: not self.ids[0].startswith("val")), raising=False)
    with pytest.raises(UsageError, match=r"by the boxes of val, .*--protocol labels-only or paper-sat or .*reference"):
        run(config(tmp_path))
    record, _ = done(config(tmp_path, checkpoint="class-accuracy", threshold="otsu"))
    assert not any(use["split"] == "val" and use["kind"] == "boxes" for use in record.ledger.annotations)
    with pytest.raises(UsageError, match=r"give protocol.pseudo_boxes=FOLDER .* or take --protocol .*labels-only"):
        run(config(tmp_path, checkpoint="val-pseudo", threshold="otsu"))


def test_the_protocol_is_named_after_the_source_of_its_pseudo_boxes(tmp_path: Path, pseudo: Path) -> None:
    asked = config(tmp_path, checkpoint="last", threshold="val-pseudo", pseudo_boxes=str(pseudo), name="realistic")
    job = open_job(asked, Session())
    assert job.config.protocol.name == "realistic+moved"
    assert open_job(job.config, Session()).directory.path == job.directory.path, "a repeated run is the same"
    assert open_job(config(tmp_path, pseudo_boxes=str(pseudo)), Session()).config.protocol.name == "full"
    (made,) = expand(["cam"], protocol="realistic", overrides=[f"protocol.pseudo_boxes={pseudo}"])
    assert made.protocol.name == "realistic"


def test_the_ledger_says_whose_pseudo_boxes_and_which_models_made_them(tmp_path: Path, pseudo: Path) -> None:
    (pseudo / "source.json").write_text(json.dumps({"source": "rpn", "external": "a detector trained with boxes"}))
    record, _ = done(config(tmp_path, threshold="val-pseudo", pseudo_boxes=str(pseudo)))
    told = record.ledger.pseudo_boxes
    assert (told["source"], told["external"]) == ("rpn", "a detector trained with boxes")
    assert told["sha256"] == read_pseudo_boxes(pseudo, FakeSplit("val", 4)).sha256
    assert "pseudo_boxes" not in done(config(tmp_path))[0].ledger.as_json()


def test_pseudo_boxes_of_another_source_are_refused(tmp_path: Path, pseudo: Path) -> None:
    with pytest.raises(UsageError, match=r"chooses by 'val-pseudo:rpn', but .* holds pseudo-boxes of 'moved'"):
        open_job(config(tmp_path, threshold="val-pseudo:rpn", pseudo_boxes=str(pseudo)), Session())


def test_the_place_of_pseudo_boxes_decides_nothing_their_content_does(tmp_path: Path, pseudo: Path) -> None:
    def hash_of(folder: Path) -> str:
        return open_job(config(tmp_path, threshold="val-pseudo", pseudo_boxes=str(folder)), Session()).directory.hash

    shutil.copytree(pseudo, tmp_path / "elsewhere")
    assert hash_of(pseudo) == hash_of(tmp_path / "elsewhere")
    lines = (pseudo / "localization.txt").read_text().splitlines()
    fields = lines[0].split(",")
    lines[0] = ",".join([fields[0], "0", "0", "3", "3"])
    (tmp_path / "elsewhere" / "localization.txt").write_text("\n".join(lines))
    assert hash_of(pseudo) != hash_of(tmp_path / "elsewhere")


def test_older_runs_keep_their_hash(tmp_path: Path) -> None:
    assert {*deciding_run(config(tmp_path))["protocol"]} == {
        "name", "shots", "budget", "checkpoint", "threshold", "val_per_class"
    }  # fmt: skip


def test_select_every_thins_the_checkpoints(tmp_path: Path) -> None:
    record, folder = done(config(tmp_path, "tiny", checkpoint="val-boxes", select_every=3))
    assert record.ledger.checkpoints == 3
    names = sorted(path.stem for path in folder.parents[3].glob("_trainings/*/snapshots/*"))
    assert [int(name) for name in names] == [0, 9, 12]


def test_a_method_without_training_has_nothing_to_choose(tmp_path: Path) -> None:
    record, _ = done(config(tmp_path, "centre", checkpoint="val-boxes", threshold="otsu"))
    assert not record.test_selected
    assert record.ledger.checkpoints == 1
    assert not [use for use in record.ledger.annotations if use["purpose"] == "checkpoint selection"]


def test_the_matrix_survives_the_record(tmp_path: Path) -> None:
    record, folder = done(config(tmp_path, "tiny", matrix=True))
    assert all(isinstance(cell, Cell) for cell in record.matrix)
    assert json.loads((folder / "record.json").read_text())["matrix"][0]["checkpoint_by"] == "last"
    again, _ = done(config(tmp_path / "again", "tiny", matrix=True))
    assert comparable(record) == comparable(again)
    assert "selection_seconds" in record.cost


def test_a_fraction_takes_a_share_of_every_class_and_holds_the_shots(tmp_path: Path) -> None:
    def drawn(**changes: Any) -> set[str]:
        job = open_job(config(tmp_path, **changes), Session())
        return {job.train_split.ids[index] for index in job.indices}

    half, one = drawn(fraction=0.5), drawn(shots=1)
    assert len(half) == 6
    assert one < half < drawn(fraction=0.75) < drawn()
    assert np.array_equal(sorted(drawn(fraction=0.01)), sorted(one)), "at least one image of every class"
    with pytest.raises(UsageError, match="contradict"):
        expand(["cam"], overrides=["protocol.shots=1", "protocol.fraction=0.5"])
