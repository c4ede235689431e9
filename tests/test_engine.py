"""One run, from configuration to record."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_fakes import FakeData, FakeSplit, SharedB, fake_config

import wsolbench.engine
import wsolbench.registry
import wsolbench.training
from wsolbench.boxes import normalize_maps, quantize
from wsolbench.config import RunConfig, from_yaml
from wsolbench.engine import load_run, run
from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.job import Session, open_job, resolve_device
from wsolbench.levels import load_levels
from wsolbench.loading import eval_batches
from wsolbench.protocol import AnnotationReader
from wsolbench.record import SCHEMA, Cell, RunRecord, comparable, read_record
from wsolbench.rundir import digest
from wsolbench.selectors import Checkpoint


def finished(config: RunConfig, session: Session | None = None, **options: Any) -> RunRecord:
    outcome = run(config, session=session, **options)
    assert outcome.status == "done"
    assert outcome.record is not None
    assert outcome.directory is not None
    assert read_record(outcome.directory / "record.json") == outcome.record
    return outcome.record


def folder_of(config: RunConfig) -> Path:
    return open_job(config, Session()).directory.path


def cells(record: RunRecord) -> dict[str, Cell]:
    return {cell.column: cell for cell in record.cells}


# --- identity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["tiny", "shared-b", "centre"])
def test_the_same_command_twice_gives_the_same_bits(tmp_path: Path, method: str) -> None:
    a, b = fake_config(tmp_path / "a", method), fake_config(tmp_path / "b", method)
    first, second = finished(a), finished(b)
    assert comparable(first) == comparable(second)
    for name in ("levels.npz", "images.csv.gz"):
        assert (folder_of(a) / name).read_bytes() == (folder_of(b) / name).read_bytes()


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    assert finished(fake_config(tmp_path, seed=0)).cells != finished(fake_config(tmp_path, seed=1)).cells


def test_what_cannot_change_a_number_is_not_in_the_hash(tmp_path: Path) -> None:
    plain = fake_config(tmp_path)
    changed = fake_config(tmp_path / "other", threads=2, save_every=0.0)
    changed.train.workers = changed.evaluate.workers = 1
    spelled = fake_config(tmp_path, method={"name": "tiny", "scale": 1.0})  # type: ignore[arg-type]
    spelled.method = {"name": "tiny", "scale": 1.0}
    hashes = {open_job(config, Session()).directory.hash for config in (plain, changed, spelled)}
    assert len(hashes) == 1


def test_what_decides_a_number_is_in_the_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"1")
    variants = [
        fake_config(tmp_path),
        fake_config(tmp_path, seed=1),
        fake_config(tmp_path, lr=0.5),
        fake_config(tmp_path, shots=1),
        fake_config(tmp_path, interval=0.1),
        fake_config(tmp_path, dataset={"name": "fake-data", "per_class": 5}),
        fake_config(tmp_path, checkpoint="last", name="other"),
    ]
    variants.append(fake_config(tmp_path))
    variants[-1].checkpoint = str(weights)
    hashes = [open_job(config, Session()).directory.hash for config in variants]
    weights.write_bytes(b"2")
    hashes.append(open_job(variants[-1], Session()).directory.hash)
    monkeypatch.setattr(wsolbench.registry.METHODS.get("tiny"), "version", 2)
    hashes.append(open_job(variants[0], Session()).directory.hash)
    assert len(set(hashes)) == len(hashes)


# --- what is left behind ---------------------------------------------------------------------------------------------


def test_run_directory_holds_what_the_design_says(tmp_path: Path) -> None:
    config = fake_config(tmp_path, shots=2)
    finished(config)
    names = {path.name for path in folder_of(config).iterdir()}
    assert names == {
        "config.yaml",
        "env.json",
        "train.jsonl",
        "subset.json",
        "last.safetensors",
        "levels.npz",
        "images.csv.gz",
        "record.json",
    }
    repeated = from_yaml((folder_of(config) / "config.yaml").read_text())
    repeated.method = config.method  # from_yaml spells defaults out
    repeated.dataset = config.dataset
    assert repeated == config
    assert not [path for path in folder_of(config).iterdir() if path.suffix == ".tmp"]


def test_subset_holds_the_images_that_were_drawn(tmp_path: Path) -> None:
    config = fake_config(tmp_path, shots=2, val_per_class=1)
    record = finished(config)
    subset = json.loads((folder_of(config) / "subset.json").read_text())
    assert len(subset["train"]["ids"]) == 6
    assert len(subset["val"]["ids"]) == 3
    assert load_levels(folder_of(config) / "levels.npz")["val"].ids.tolist() == subset["val"]["ids"]
    assert record.ledger["labels"] == {"train": 6, "val": 3, "test": 12}


def test_images_csv_agrees_with_the_stored_outcomes(tmp_path: Path) -> None:
    config = fake_config(tmp_path)
    record = finished(config)
    with gzip.open(folder_of(config) / "images.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    threshold = cells(record)["GT-known@val"].threshold
    assert threshold is not None
    for name, levels in load_levels(folder_of(config) / "levels.npz").items():
        of_split = [row for row in rows if row["split"] == name]
        assert [row["id"] for row in of_split] == levels.ids.tolist()
        assert [row["hit"] == "1" for row in of_split] == levels.hits(threshold).tolist()
        assert [int(row["rank"]) for row in of_split] == levels.ranks.tolist()
        assert all((row["hit"] == "1") == (float(row["iou"]) >= 0.5) for row in of_split)
        assert [row["hit"] == "1" for row in of_split] == [row["location"] == "hit" for row in of_split]
        assert [row["rank"] != "0" for row in of_split] == [row["error"] == "wrong class" for row in of_split]
        assert all(row["error"] in ("wrong class", row["location"]) for row in of_split)
    hits = np.mean([row["hit"] == "1" for row in rows if row["split"] == "test"])
    assert cells(record)["GT-known@val"].value == hits


def test_the_record_counts_the_errors_of_the_test_images(tmp_path: Path) -> None:
    config = fake_config(tmp_path)
    record = finished(config)
    with gzip.open(folder_of(config) / "images.csv.gz", "rt") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    found = cells(record)
    for kind, column, cell in (("GT-known", "location", "GT-known@val"), ("Top-1", "error", "Top-1 Loc@val")):
        counts = record.errors[kind]
        assert {name: count for name, count in counts.items() if count} == Counter(row[column] for row in rows)
        assert counts["hit"] / len(rows) == found[cell].value


# --- cells and marks -------------------------------------------------------------------------------------------------


def test_cells_of_a_classifier(tmp_path: Path) -> None:
    found = cells(finished(fake_config(tmp_path)))
    assert list(found) == [
        "Top-1 Cls",
        "Top-5 Cls",
        "GT-known@val",
        "Top-1 Loc@val",
        "Top-5 Loc@val",
        "MaxBoxAcc",
        "MaxBoxAccV2",
        "MaxBoxAccV2@.3",
        "MaxBoxAccV2@.5",
        "MaxBoxAccV2@.7",
        "BoxAcc plateau",
        "BoxAcc area",
        "PxAP",
        "pIoU",
    ]
    assert {name for name, cell in found.items() if cell.oracle} == {
        "MaxBoxAcc",
        "MaxBoxAccV2",
        "MaxBoxAccV2@.3",
        "MaxBoxAccV2@.5",
        "MaxBoxAccV2@.7",
        "BoxAcc plateau",
        "pIoU",
    }
    assert found["Top-1 Loc@val"].value <= found["Top-5 Loc@val"].value <= found["GT-known@val"].value
    assert found["GT-known@val"].value <= found["MaxBoxAcc"].value
    v2 = [found[f"MaxBoxAccV2@.{level}"].value for level in (3, 5, 7)]
    assert found["MaxBoxAccV2"].value == pytest.approx(np.mean(v2))
    for name, cell in found.items():
        if name not in ("PxAP", "pIoU"):
            assert cell.low is not None
            assert cell.high is not None
            assert cell.low <= cell.value <= cell.high


def test_no_classifier_no_class_metrics(tmp_path: Path) -> None:
    record = finished(fake_config(tmp_path, "centre"))
    assert not [name for name in cells(record) if name.startswith("Top-")]
    assert record.ledger["training"] == "none"
    assert record.ledger["labels"]["train"] == 0
    assert record.cost["train_seconds"] == 0
    assert record.cost["trainable"] == 0


def test_the_oracle_protocol_marks_its_cells(tmp_path: Path) -> None:
    record = finished(fake_config(tmp_path, threshold="test-oracle"))
    found = cells(record)
    assert {"GT-known@test-oracle", "Top-1 Loc@test-oracle"} <= found.keys()
    assert all(found[f"{name}@test-oracle"].oracle for name in ("GT-known", "Top-1 Loc", "Top-5 Loc"))
    assert found["GT-known@test-oracle"].value == found["MaxBoxAcc"].value
    purposes = {(use["split"], use["purpose"]) for use in record.ledger["annotations"]}
    assert ("test", "threshold selection") in purposes
    assert ("val", "threshold selection") not in purposes


def test_the_ledger_counts_every_image_whose_annotation_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, set[str]] = {}
    whole = FakeSplit.annotation

    def annotation(self: FakeSplit, id: str) -> Any:
        asked.setdefault(id.partition("/")[0], set()).add(id)
        return whole(self, id)

    monkeypatch.setattr(FakeSplit, "annotation", annotation)
    record = finished(fake_config(tmp_path, val_per_class=2))
    scored = {
        use["split"]: use["images"]
        for use in record.ledger["annotations"]
        if use["purpose"] == "scoring" and use["kind"] == "boxes"
    }
    assert scored == {name: len(ids) for name, ids in asked.items()} == {"val": 6, "test": 12}


def test_what_pretraining_saw_of_the_data_is_in_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = FakeData.info.fget
    seen = replace(whole(FakeData(FakeData.Config())), imagenet_overlap="drawn from ImageNet")
    monkeypatch.setattr(FakeData, "info", property(lambda self: seen))
    ledgers = {}
    for pretrained in (True, False):
        job = open_job(fake_config(tmp_path, backbone="resnet10t", pretrained=pretrained), Session())
        ledgers[pretrained] = wsolbench.engine._ledger(
            job, AnnotationReader(), {"test": []}, Checkpoint(0, "last"), None
        )
    assert ledgers[True]["pretraining_overlap"] == "drawn from ImageNet"
    assert "pretraining_overlap" not in ledgers[False]


@pytest.mark.parametrize(("method", "name"), [("shared-a", "classifier.json"), ("tiny", "training.json")])
def test_what_a_shared_training_says_of_itself_is_what_its_folder_is_named_after(
    tmp_path: Path, method: str, name: str
) -> None:
    finished(fake_config(tmp_path, method, checkpoint="val-boxes"))
    (path,) = tmp_path.glob(f"runs/*/_*/*/{name}")
    content = json.loads(path.read_text())
    assert content.pop("hash") == digest(content)
    assert path.parent.name == digest(content)[:8]


# --- training kinds --------------------------------------------------------------------------------------------------


def test_one_shot_takes_the_steps_of_the_full_run(tmp_path: Path) -> None:
    assert finished(fake_config(tmp_path, shots=1)).ledger["optimizer_steps"] == 9
    assert finished(fake_config(tmp_path)).ledger["optimizer_steps"] == 9


def test_post_hoc_methods_share_one_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []
    whole = wsolbench.training.fit

    def counted(method: Any, *arguments: Any, **options: Any) -> None:
        trained.append(type(method).__name__)
        whole(method, *arguments, **options)

    monkeypatch.setattr(wsolbench.training, "fit", counted)
    a = finished(fake_config(tmp_path, "shared-a"))
    b = finished(fake_config(tmp_path, "shared-b"))
    assert trained == ["SharedA"]
    assert a.provenance["classifier"] == b.provenance["classifier"]
    assert a.cost["train_seconds"] == b.cost["train_seconds"] != 0
    assert cells(a)["Top-1 Cls"] == cells(b)["Top-1 Cls"]
    home = tmp_path / "runs/fake-data/_classifiers" / str(a.provenance["classifier"])
    assert {path.name for path in home.iterdir()} == {
        "classifier.json",
        "config.yaml",
        "env.json",
        "last.safetensors",
        "train.jsonl",
    }
    finished(fake_config(tmp_path, "shared-a", seed=1))
    finished(fake_config(tmp_path, "shared-a", shots=1))
    finished(fake_config(tmp_path, "shared-a", threshold="test-oracle", name="reference"))  # selection comes later
    assert trained == ["SharedA"] * 3


def test_a_classifier_that_would_differ_is_not_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = finished(fake_config(tmp_path, "shared-a"))
    monkeypatch.setattr(SharedB, "param_groups", lambda self, train: [{"params": list(self.parameters()), "lr": 0.5}])
    assert finished(fake_config(tmp_path, "shared-b")).provenance["classifier"] != a.provenance["classifier"]


def test_zero_steps_evaluate_the_given_weights(tmp_path: Path) -> None:
    first = fake_config(tmp_path)
    trained = finished(first)
    again = fake_config(tmp_path, steps=0)
    again.checkpoint = str(folder_of(first) / "last.safetensors")
    record = finished(again)
    assert record.cells == trained.cells
    assert record.ledger["training"] == "none"
    assert record.ledger["start"]["sha256"]


# --- skipping, refusing ----------------------------------------------------------------------------------------------


def test_a_finished_run_is_skipped_and_rerun_forces(tmp_path: Path) -> None:
    config = fake_config(tmp_path)
    record = finished(config)
    path = folder_of(config) / "record.json"
    made = path.stat().st_mtime_ns
    outcome = run(config)
    assert outcome.status == "skipped"
    assert outcome.record == record
    assert str(record.provenance["created"]) in outcome.reason
    assert str(record.provenance["commit"] or "unknown") in outcome.reason
    assert path.stat().st_mtime_ns == made
    assert comparable(finished(config, rerun=True)) == comparable(record)
    assert path.stat().st_mtime_ns != made


def test_rerun_trains_a_shared_classifier_once_per_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("shared-a", "shared-b")
    for name in names:
        finished(fake_config(tmp_path, name))
    trained = []
    whole = wsolbench.training.fit
    monkeypatch.setattr(wsolbench.training, "fit", lambda *a, **k: (trained.append(1), whole(*a, **k)))
    session = Session()
    for name in names:
        finished(fake_config(tmp_path, name), session, rerun=True)
    assert trained == [1]


def test_a_run_that_another_version_of_the_code_began_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = fake_config(tmp_path, "shared-b")
    whole = wsolbench.engine.environment
    monkeypatch.setattr(
        wsolbench.engine, "environment", lambda device: whole(device) | {"commit": "old", "dirty": False}
    )
    finished(fake_config(tmp_path, "shared-a"))  # leaves the classifier
    monkeypatch.setattr(
        wsolbench.engine, "environment", lambda device: whole(device) | {"commit": "new", "dirty": True}
    )
    assert finished(config).notes == ["several versions of the code had a hand in this run: old, new with changes"]
    assert finished(config, rerun=True).notes == []


def test_a_record_of_a_newer_schema_is_one_sentence(tmp_path: Path) -> None:
    config = fake_config(tmp_path)
    finished(config)
    path = folder_of(config) / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": SCHEMA + 1}))
    with pytest.raises(WsolbenchError, match="upgrade wsolbench"):
        run(config)
    assert path.is_file()


def test_a_foreign_directory_is_refused(tmp_path: Path) -> None:
    config = fake_config(tmp_path)
    folder = folder_of(config)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("someone: else\n")
    with pytest.raises(WsolbenchError, match="belongs to another run"):
        run(config)
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "tyni"}, r"unknown method 'tyni'"),
        ({"dataset": {"name": "fake-dat"}}, r"unknown data set 'fake-dat'"),
        ({"device": "tpu"}, r"unknown device 'tpu'"),
        ({"device": "cuda:99"}, r"--device cuda:99 was asked for, but"),
        ({"shots": 5}, r"5 training images per class were asked for, but class 0 has only 4"),
        ({"val_per_class": 5}, r"5 val images per class"),
        ({"threshold": "best"}, r"unknown protocol.threshold 'best'"),
    ],
)
def test_bad_requests_are_usage_errors(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run(fake_config(tmp_path, **changes))


def test_auto_takes_what_is_there() -> None:
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_maps_of_a_wrong_shape_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = wsolbench.registry.METHODS.get("centre")
    whole = tiny.localize

    def localize(self: Any, images: Any, labels: Any = None) -> Any:
        answer = whole(self, images, labels)
        answer.maps_Bhw = answer.maps_Bhw[:, None]
        return answer

    monkeypatch.setattr(tiny, "localize", localize)
    with pytest.raises(WsolbenchError, match=r"Centre.localize answered maps of shape \[5, 1, 16, 16\] for 5 images"):
        run(fake_config(tmp_path, "centre"))


# --- afterwards ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["tiny", "shared-b", "centre"])
def test_load_run_gives_the_method_that_was_scored(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = fake_config(tmp_path, method)
    finished(config)
    folder = folder_of(config)
    job = open_job(config, Session())
    monkeypatch.chdir(folder.parent)
    trained = load_run(folder.name)
    assert not any(module.training for module in trained.modules())
    # in the batches of the evaluation: others round otherwise, and classes that lie close together change places
    batches = list(eval_batches(job.dataset.split("test"), batch_size=config.evaluate.batch_size))
    answers = [trained.localize(batch.images_BCHW, batch.labels_B) for batch in batches]
    levels = load_levels(folder / "levels.npz")["test"]
    maps_Bhw = torch.cat([answer.maps_Bhw for answer in answers])
    maps = quantize(normalize_maps(maps_Bhw, job.dataset.info.resolution_HW))
    assert (np.abs(maps.max(axis=(1, 2)).astype(int) - levels.qmax) <= 1).all()
    logits = [answer.logits_BK for answer in answers if answer.logits_BK is not None]
    assert len(logits) == (0 if method == "centre" else len(batches))
    if logits:
        assert torch.cat(logits).argmax(1).tolist() == levels.predictions.tolist()
