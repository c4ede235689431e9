"""`wsolbench data check`: nothing is missed, nothing stops it, and what it says can be read by programs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from reference_trees import Tree, write_tree
from rich.console import Console

import wsolbench.data.check
from wsolbench.cli.main import main
from wsolbench.data.check import check_dataset
from wsolbench.data.check.images import Looker
from wsolbench.data.check.report import KINDS, Report, print_report
from wsolbench.errors import UsageError
from wsolbench.registry import DATASETS

DOCS = Path(__file__).resolve().parents[2] / "docs" / "data-check.md"


def kinds(report: Report, severity: str = "problem") -> list[tuple[str, str]]:
    return [(each.kind, each.split) for each in report.findings if each.severity == severity]


def real_pictures(tree: Tree) -> None:
    """Every image in the format that its name promises."""
    for split in tree.ids.values():
        for number, id in enumerate(split):
            pixels = np.random.default_rng([len(id), number]).integers(0, 255, (*tree.sizes[id][::-1], 3), np.uint8)
            Image.fromarray(pixels).save(tree.images / id)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = write_tree(tmp_path / "data", "CUB")
    real_pictures(tree)
    return tree


@pytest.fixture(autouse=True)
def complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the miniature trees count as complete."""
    for name in ("cub", "ilsvrc"):
        monkeypatch.setattr(DATASETS.get(name), "complete", {})


def check(tree: Tree, **options: Any) -> Report:
    return check_dataset(tree.name.lower(), root=tree.root, **options)


def test_a_sound_data_set_has_no_findings(tree: Tree) -> None:
    report = check(tree)
    assert report.findings == []
    assert report.complete
    assert list(report.splits) == ["train", "val", "test"]
    for split in report.splits.values():
        assert (split.images, split.checked, split.boxes, split.masks) == (12, 12, 12, None)
        assert (split.classes, split.per_class, split.files) == (3, (4, 4.0, 4), "decoded")


def test_every_problem_is_found_in_one_go(tree: Tree) -> None:
    """Several at once, in several splits: none hides another."""
    test, train = ([tree.images / id for id in tree.ids[name]] for name in ("test", "train"))
    test[0].write_bytes(b"")
    test[1].unlink()
    test[2].write_bytes(test[2].read_bytes()[:-100])
    Image.new("RGB", (99, 98)).save(test[3])
    train[0].write_bytes(b"<html>")
    report = check(tree)
    assert sorted(kinds(report)) == [
        ("corrupt", "test"), ("empty", "test"), ("missing", "test"), ("not-an-image", "train"), ("size", "test")
    ]  # fmt: skip
    assert report.splits["test"].checked == 12


def test_equal_images_are_told_by_content(tree: Tree) -> None:
    train, test = tree.ids["train"], tree.ids["test"]
    for source, target in ((train[0], train[3]), (train[1], train[2]), (train[4], test[4])):
        shutil.copy(tree.images / source, tree.images / target)
    report = check(tree)
    found = {each.kind: each for each in report.findings if each.kind != "size"}
    assert set(found) == {"duplicate", "label-conflict", "leak"}
    assert found["duplicate"].file == train[3]  # both of class 0
    assert found["label-conflict"].detail == f"same content as train: {train[1]}, with classes [1, 2]"
    assert (found["leak"].split, found["leak"].file) == ("test", test[4])
    assert found["leak"].detail == f"same content as train: {train[4]}"
    quick = {each.kind for each in check(tree, quick=True).findings}
    assert quick <= {"size"}  # content is not read


def test_one_file_in_two_splits_is_found_without_reading_it(tree: Tree) -> None:
    leaked = tree.ids["train"][0]
    for file in ("image_ids.txt", "class_labels.txt", "image_sizes.txt", "localization.txt"):
        line = next(each for each in (tree.metadata / "train" / file).read_text().splitlines() if leaked in each)
        with (tree.metadata / "test" / file).open("a") as lines:
            lines.write(f"\n{line}")
    assert kinds(check(tree, quick=True)) == kinds(check(tree)) == [("leak", "test")]


def test_counts_and_classes_are_compared(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DATASETS.get("cub"), "complete", {"train": 12, "test": 5794})
    labels = tree.metadata / "train" / "class_labels.txt"
    labels.write_text(labels.read_text().replace(",2", ",1"))
    report = check(tree)
    assert kinds(report) == [("class-absent", "train"), ("count", "test")]
    assert report.findings[0].detail == "class 2 (003.Sooty_Albatross) has no image"
    assert report.findings[1].detail == "12 images, the complete data set has 5,794"
    assert report.splits["train"].per_class == (4, 6.0, 8)
    assert report.splits["val"].expected is None


def test_odd_boxes_are_found(tmp_path: Path) -> None:
    tree = write_tree(tmp_path, "ILSVRC")
    path = tree.metadata / "test" / "localization.txt"
    first, second, third = tree.ids["test"][:3]
    width, height = tree.sizes[third]
    rest = [line for line in path.read_text().splitlines() if not line.startswith((first, second, third))]
    boxes = [f"{first},1,1,1,9", f"{second},3,3,30,30", f"{second},3,3,30,30", f"{third},0,0,{width},{height}"]
    path.write_text("\n".join([*boxes, *rest, f"{third},2,2,3,3"]))
    report = check(tree, splits=["test"])
    assert kinds(report) == [("box-degenerate", "test")]
    odd = {each.kind: each for each in report.findings if each.kind.startswith("box")}
    assert set(odd) == {"box-degenerate", "box-duplicate", "box-clipped", "box-tiny"}
    assert odd["box-duplicate"].file == second
    assert odd["box-clipped"].detail.startswith("1 boxes of '")


def test_a_missing_folder_of_images_is_said_once(tmp_path: Path) -> None:
    tree = write_tree(tmp_path, "CUB", images=False)
    report = check(tree)
    assert kinds(report) == [("no-images", "train"), ("no-images", "val"), ("no-images", "test")]
    assert report.splits["test"].boxes == 12  # boxes are looked at all the same


def test_a_broken_list_of_each_split_is_found(tree: Tree) -> None:
    for split in ("train", "test"):
        (tree.metadata / split / "class_labels.txt").write_text("what?")
    report = check(tree)
    assert kinds(report) == [("lists", "train"), ("lists", "test")]
    assert "test" in report.unopened


def test_generated_images_are_not_decoded_but_their_annotations_are_looked_at() -> None:
    report = check_dataset("badges", splits=["val"])
    assert report.findings == []
    split = report.splits["val"]
    assert (split.files, split.boxes, split.masks, split.checked) == ("generated", 300, 300, 300)


def test_the_report_is_what_the_page_describes(tree: Tree, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree.images / tree.ids["val"][0]).unlink()
    path = tmp_path / "report.json"
    assert main(["data", "check", "cub", "--root", str(tree.root), "--splits", "val", "--json", str(path)]) == 1
    content = json.loads(path.read_text())
    page = DOCS.read_text()
    documented = set(re.findall(r"^\| `([a-z_-]+)` \|", page, re.MULTILINE))
    assert set(content) | set(KINDS) | set(content["splits"]["val"]) <= documented
    assert content["counts"] == {"missing": 1}
    (finding,) = content["findings"]
    assert (finding["kind"], finding["severity"], finding["split"]) == ("missing", "problem", "val")
    assert finding["file"] == tree.ids["val"][0]
    printed = capsys.readouterr().out
    assert "problem missing (1): a listed image does not exist" in printed
    assert "1 problem; 12 images looked at" in printed


def test_few_of_many_findings_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("cub", None, False)
    report.add([wsolbench.data.check.Finding("missing", "test", f"{n}.jpg", "gone") for n in range(9)])
    print_report(report, Console(width=80))
    printed = capsys.readouterr().out
    assert "4.jpg" in printed
    assert "5.jpg" not in printed
    assert "... and 4 more; --json FILE lists them all" in printed


def test_ctrl_c_leaves_what_was_found(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree.images / tree.ids["train"][0]).unlink()
    look = Looker.__call__

    def interrupted(self: Looker, index: int) -> Any:
        if index == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return look(self, index)

    monkeypatch.setattr(Looker, "__call__", interrupted)
    path = tmp_path / "report.json"
    command = ["data", "check", "cub", "--root", str(tree.root), "--json", str(path), "--workers", "1"]
    assert main(command) == 130
    content = json.loads(path.read_text())
    assert content["complete"] is False
    assert content["counts"] == {"missing": 1}
    assert "before the interruption" in capsys.readouterr().out


def test_a_wrong_request_is_a_usage_error(tree: Tree) -> None:
    with pytest.raises(UsageError, match="unknown split of cub 'tets', did you mean 'test'"):
        check(tree, splits=["tets"])
    with pytest.raises(UsageError, match="unknown data set 'cubb', did you mean 'cub'"):
        check_dataset("cubb", root=tree.root)
    assert main(["data", "check", "cub", "--root", str(tree.root), "--workers", "0"]) == 2
