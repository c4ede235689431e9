"""A user's own images through the command line: run, look, and what is said where ground truth is missing."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pytest
from folder_trees import FolderTree, write_folder

from wsolbench.cli.main import main
from wsolbench.record import RunRecord, read_record

QUICK = ["--backbone", "badges_cnn", "train.steps=2", "train.batch_size=8", "evaluate.batch_size=8", "--device", "cpu"]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderTree:
    monkeypatch.chdir(tmp_path)
    return write_folder(tmp_path / "mine")


def run(tree: FolderTree, *words: str, methods: str = "center-box") -> int:
    return main(["run", "--methods", methods, "--dataset", "folder", "--root", str(tree.root), *QUICK, *words])


def records() -> dict[str, RunRecord]:
    found = [read_record(path) for path in Path("results").glob("runs/folder/*/*/*/*/record.json")]
    return {f"{record.method} {record.protocol}": record for record in found}


def columns(record: RunRecord) -> set[str]:
    return {cell.column for cell in record.cells}


def test_a_trained_method_and_a_baseline_are_run_scored_and_listed(tree, capsys):
    tree.write_csv()
    assert run(tree, methods="cam,center-box") == 0
    assert "GT-known@val" in capsys.readouterr().out
    cam, box = records()["cam full"], records()["center-box full"]
    assert {"GT-known@val", "Top-1 Loc@val", "Top-1 Cls", "MaxBoxAccV2"} <= columns(cam)
    assert cam.ledger.labels == {"train": 18, "val": 12, "test": 12}
    value = next(cell.value for cell in box.cells if cell.column == "MaxBoxAcc")
    assert 0 <= value <= 1
    (path,) = Path("results").glob("runs/folder/center-box/*/*/*/images.csv.gz")
    rows = list(csv.DictReader(io.StringIO(gzip.decompress(path.read_bytes()).decode())))
    assert [row["id"] for row in rows if row["split"] == "test"] == tree.ids["test"]
    assert run(tree, methods="center-box") == 0
    assert "done before" in capsys.readouterr().out
    assert main(["leaderboard", "results", "--format", "csv"]) == 0
    assert "folder" in capsys.readouterr().out


def test_without_val_boxes_the_presets_that_remain_are_named_and_run(tree, capsys):
    tree.write_csv(ids=tree.ids["test"])
    assert run(tree) == 2
    message = capsys.readouterr().err
    assert "protocol 'full' chooses by the boxes of val, but data set 'folder' has none there" in message
    assert "--protocol labels-only or " in message
    assert run(tree, "--protocol", "reference", methods="cam,center-box") == 0
    record = records()["cam reference"]
    assert "GT-known@test-oracle" in columns(record)
    assert {use["split"] for use in record.ledger.annotations} == {"test"}
    assert run(tree, "--protocol", "5shot+reference") == 0


def test_without_any_ground_truth_nothing_is_started(tree, capsys):
    assert run(tree) == 2
    assert (
        "the test images of data set 'folder' have no boxes and no masks: no map could be scored"
        in capsys.readouterr().err
    )
    assert not records()


def test_masks_alone_are_scored_by_pixels(tree, capsys):
    tree.write_masks()
    assert run(tree) == 0
    assert {"PxAP", "pIoU"} <= columns(records()["center-box full"])
    assert not any("GT-known" in column for column in columns(records()["center-box full"]))


def test_masks_beside_boxes_are_scored_by_both(tree):
    tree.write_masks()
    tree.write_csv()
    assert run(tree) == 0
    assert {"PxAP", "GT-known@val"} <= columns(records()["center-box full"])


def test_options_of_the_data_set_reach_it_and_a_wrong_one_is_named(tree, capsys):
    tree.write_csv("elsewhere.csv")
    assert run(tree, "dataset.boxes=elsewhere.csv") == 0
    (config,) = Path("results").glob("runs/folder/*/*/*/*/config.yaml")
    capsys.readouterr()
    assert main(["run", "--config", str(config)]) == 0
    assert "done before" in capsys.readouterr().out
    assert run(tree, "dataset.boxs=elsewhere.csv") == 2
    assert "did you mean 'dataset.boxes'?" in capsys.readouterr().err


def test_a_sheet_is_drawn_with_the_options_of_a_run(tree, capsys):
    tree.write_masks("truth")
    show = ["data", "show", "folder", "--root", str(tree.root)]
    assert main(show) == 0
    assert main([*show, "dataset.masks=truth", "-o", "masks.png"]) == 0
    assert Path("masks.png").read_bytes() != Path("folder-val.png").read_bytes()
    for words, message in (
        (["dataset.mask=truth"], "unknown key 'dataset.mask', did you mean 'dataset.masks'?"),
        (["train.epochs=1"], "unknown key 'train.epochs'"),
        (["dataset.val_share=0.1,0.2"], "'dataset.val_share=0.1,0.2' is a sweep"),
    ):
        capsys.readouterr()
        assert main([*show, *words]) == 2
        assert message in capsys.readouterr().err


def test_a_sheet_is_drawn(tree, capsys):
    tree.write_csv()
    assert main(["data", "show", "folder", "--root", str(tree.root), "--split", "test", "-o", "sheet.png"]) == 0
    assert Path("sheet.png").read_bytes()[:4] == b"\x89PNG"
    assert main(["data", "show", "folder", "--root", "nowhere"]) == 2
    assert "wsolbench data init nowhere" in capsys.readouterr().err
