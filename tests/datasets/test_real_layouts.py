"""`wsolbench run` from the command line on miniature trees in the layouts of real data sets, with the authors' recipes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from native_trees import write_cub
from reference_trees import write_tree

from wsolbench.cli.main import main
from wsolbench.record import RunRecord, read_record

SHORT = ("pretrained=false", "train.steps=2", "train.batch_size=4", "evaluate.batch_size=4", "--device", "cpu")


def run(out: Path, *words: str) -> dict[str, RunRecord]:
    assert main(["run", *words, "--out", str(out), *SHORT]) == 0
    records = [read_record(path) for path in sorted(out.glob("runs/*/*/*/*/*/record.json"))]
    return {record.method: record for record in records}


@pytest.mark.slow
def test_sat_and_cam_run_on_cub_as_its_archive_unpacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Through sat's recipe, whose convention looks at crops: images, boxes and columns of its own."""
    tree, root = write_tree(tmp_path / "made", "CUB"), tmp_path / "data"
    images = write_cub(tree, root) / "images"
    shutil.copytree(tree.metadata / "val", root / "metadata" / "CUB" / "val")  # CUBV2 comes from metadata only
    for id in tree.ids["val"]:
        (images / id).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tree.images / id, images / id)
    words = ("--dataset", "cub", "--root", str(root), "experiment=sat_cub")
    records = run(tmp_path / "out", "--methods", "sat,cam", "--backbone", "deit_tiny_patch16_224", *words)
    assert {*records} == {"sat", "cam"}
    sat = records["sat"]
    columns = {cell.column: cell for cell in sat.cells}
    assert {"GT-known@val", "Top-1 Loc@val", "GT-known@test-oracle [sat]", "Top-1 Loc@test-oracle [sat]"} <= {*columns}
    assert columns["GT-known@test-oracle [sat]"].threshold in (0.3, 0.35, 0.4, 0.45)
    assert not [cell for cell in records["cam"].cells if cell.convention != "reference"]
    assert sat.ledger.weights is None
    assert sat.ledger.test_images == 12
    assert "GT-known" in capsys.readouterr().out
    again = run(tmp_path / "out", "--methods", "sat", "--backbone", "deit_tiny_patch16_224", *words)
    assert again["sat"] == sat, "a finished run is skipped"


@pytest.mark.slow
def test_cam_runs_on_ilsvrc_with_a_network_of_convolutions(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_tree(root, "ILSVRC")
    words = ("--dataset", "ilsvrc", "--root", str(root), "dataset.geometry=centre-crop", "evaluate.convention=bas")
    record = run(tmp_path / "out", "--methods", "cam", "--backbone", "resnet10t", *words)["cam"]
    assert {cell.column for cell in record.cells} >= {"GT-known@val", "GT-known@fixed:0.45 [bas]", "MaxBoxAcc"}
    assert record.config["dataset"]["geometry"] == "centre-crop"


@pytest.mark.slow
def test_masks_without_boxes_are_scored_by_their_pixels(tmp_path: Path) -> None:
    write_tree(tmp_path / "data", "OpenImages")
    words = ("--dataset", "openimages", "--root", str(tmp_path / "data"))
    record = run(tmp_path / "out", "--methods", "cam", "--backbone", "resnet10t", *words)["cam"]
    assert {cell.metric for cell in record.cells} == {"Top-1 Cls", "Top-5 Cls", "PxAP", "pIoU"}
    assert record.ledger.threshold is None
