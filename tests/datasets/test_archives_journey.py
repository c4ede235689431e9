"""The real command on a miniature archive: trained, thresholds chosen on images held out, tested, recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from native_trees import write_cub
from reference_trees import write_tree

from wsolbench.cli.main import main


@pytest.mark.slow  # two networks of real size learn from a handful of images
@pytest.mark.parametrize(("method", "backbone"), [("cam", "resnet10t"), ("sat", "deit_tiny_patch16_224")])
def test_run_on_the_archive_of_cub(tmp_path: Path, method: str, backbone: str) -> None:
    write_cub(write_tree(tmp_path / "reference", "CUB", per_class=4), tmp_path / "root")
    arguments = [
        *("run", "--methods", method, "--dataset", "cub", "--root", str(tmp_path / "root"), "--backbone", backbone),
        *("--device", "cpu", "dataset.val=holdout", "dataset.holdout=1", "pretrained=false", "train.steps=1"),
        *("train.batch_size=4", f"out={tmp_path / 'out'}"),
    ]
    assert main(arguments) == 0
    (path,) = (tmp_path / "out").rglob("record.json")
    record = json.loads(path.read_text())
    assert record["ledger"]["val_source"] == "hold-out of 1 images per class from train (seed 0)"
    assert record["ledger"]["labels"] == {"train": 9, "val": 3, "test": 12}
    cells = {cell["metric"]: cell["value"] for cell in record["cells"]}
    assert 0 <= cells["GT-known"] <= 1
