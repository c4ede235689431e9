"""Draws that are the same everywhere, lists of images given back, images left out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_fakes import CLASSES, FakeData, FakeSplit, fake_config

from wsolbench.cli.main import main
from wsolbench.config.compose import expand
from wsolbench.config.saved import from_yaml, to_yaml
from wsolbench.config.schema import DataConfig, OnBadImage, RunConfig
from wsolbench.data.bad_images import BadImages
from wsolbench.data.draws import draw_per_class
from wsolbench.data.split import Subset
from wsolbench.data.subsets import draw_subset, read_subset
from wsolbench.errors import BadImage, UsageError, WsolbenchError
from wsolbench.record import RunRecord
from wsolbench.runs.engine import run
from wsolbench.runs.job import Job
from wsolbench.runs.opening import Session, open_job
from wsolbench.system.progress import Silent


def finished(config: RunConfig) -> tuple[RunRecord, Path]:
    outcome = run(config)
    assert outcome.record is not None
    assert outcome.directory is not None
    return outcome.record, outcome.directory


def opened(config: RunConfig) -> Job:
    return open_job(config, Session())


def train_ids(config: RunConfig) -> list[str]:
    job = opened(config)
    return [job.train_split.ids[index] for index in job.indices]


# --- draws -----------------------------------------------------------------------------------------------------------

DRAW = """
import sys, json
from engine_fakes import FakeSplit
from wsolbench.data.draws import draw_per_class
split = FakeSplit("train", per_class=20)
order = json.loads(sys.argv[1])
split.ids, split.labels = [split.ids[i] for i in order], split.labels[order]
print(json.dumps([split.ids[i] for i in draw_per_class(split, 3, revision="r1", seed=0, what="training")]))
"""


def test_a_draw_is_the_same_in_every_process_and_order() -> None:
    """These ids are what seed 0 draws on every machine: whoever changes them changes all published few-shot runs."""
    expected = [f"train/{number:03d}" for number in (5, 12, 18, 25, 38, 39, 43, 52, 53)]
    split = FakeSplit("train", per_class=20)
    assert [split.ids[i] for i in draw_per_class(split, 3, revision="r1", seed=0, what="training")] == expected
    order = np.random.RandomState(1).permutation(60).tolist()
    environment = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", DRAW, json.dumps(order)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert json.loads(done.stdout) == expected


def test_data_draw_writes_what_a_few_shot_run_draws(tmp_path: Path) -> None:
    file = tmp_path / "two.json"
    command = ["data", "draw", "badges", "--shots", "2", "--val-per-class", "1", "--seed", "3", "-o", str(file)]
    assert main(command) == 0
    (config,) = expand(["center-box"], protocol="2shot", seeds=[3], overrides=["protocol.val_per_class=1"])
    config.out = str(tmp_path)
    subset = read_subset(file)
    assert list(subset.ids["train"]) == train_ids(config)
    assert list(subset.ids["val"]) == opened(config).val_split.ids
    assert main(["data", "draw", "badges", "--shots", "0"]) == 2


# --- lists -----------------------------------------------------------------------------------------------------------


def with_subset(out: Path, file: Path, **changes: Any) -> RunConfig:
    return fake_config(out, data=DataConfig(subset=str(file)), **changes)


def test_a_saved_draw_given_back_is_the_same_training(tmp_path: Path) -> None:
    drawn, folder = finished(fake_config(tmp_path / "a", shots=2, val_per_class=1))
    given, again = finished(with_subset(tmp_path / "b", folder / "subset.json", shots=2, val_per_class=1))
    assert given.cells == drawn.cells
    assert given.protocol == drawn.protocol
    assert (again / "subset.json").read_bytes() == (folder / "subset.json").read_bytes()
    assert (again / "levels.npz").read_bytes() == (folder / "levels.npz").read_bytes()
    source = given.ledger.subset
    assert source["path"].endswith("subset.json")
    assert source["images"] == {"train": 6, "val": 3}
    assert len(source["sha256"]) == 64


def test_the_ids_of_a_list_decide_a_run_and_its_place_does_not(tmp_path: Path) -> None:
    first, moved, other = tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "c.txt"
    first.write_text("train/004\ntrain/000\ntrain/002\n")
    moved.write_text("train/000\r\ntrain/002\r\ntrain/004")
    other.write_text("train/000\ntrain/002\ntrain/005\n")
    jobs = [opened(with_subset(tmp_path, file)) for file in (first, moved, other)]
    assert train_ids(with_subset(tmp_path, first)) == ["train/000", "train/002", "train/004"]
    assert jobs[0].directory.hash == jobs[1].directory.hash != jobs[2].directory.hash
    assert jobs[0].directory.path == jobs[1].directory.path
    names = [job.config.protocol.name for job in jobs]
    assert names[0] == names[1] != names[2]
    assert names[0].startswith("full+subset-")
    repeated = from_yaml(to_yaml(jobs[0].config))  # what config.yaml holds
    assert opened(repeated).directory.hash == jobs[0].directory.hash


def test_shared_classifiers_know_of_the_list(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("train/000\ntrain/001\ntrain/002\n")
    plain, _ = finished(fake_config(tmp_path, "shared-a"))
    listed, _ = finished(with_subset(tmp_path, file, method="shared-a"))
    assert listed.provenance["classifier"] != plain.provenance["classifier"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train/000\ntrain/00\n", r"unknown image of train 'train/00', named by '.*', did you mean 'train/0"),
        ("train/000\ntrain/000\n", r"line 2: 'train/000', expected each id once, but line 1 holds it too"),
        ("train/000\n../x\n", r"line 2: '\.\./x', expected a relative path"),
        ("", "lists no image"),
        ("{", "is not JSON"),
        ("[]", "lists no images"),
        ('{"test": {"ids": ["test/000"]}}', "lists no images"),
        ('{"train": {"ids": []}}', "train.ids is not a list of at least one id"),
        ('{"train": {"ids": [1]}}', "train.ids is not a list of at least one id"),
        ('{"train": {"ids": ["train/000", "train/000"]}}', "train.ids holds 'train/000' twice"),
        ('{"train": {"ids": ["/a"]}}', "train.ids holds '/a', expected a relative path"),
        ('{"val": {"ids": ["train/000"]}}', "unknown image of val 'train/000'"),
    ],
)
def test_a_list_that_cannot_be_is_one_sentence(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "list"
    file.write_text(content)
    with pytest.raises(WsolbenchError, match=message):
        opened(with_subset(tmp_path, file))


def test_a_list_keeps_what_the_protocol_promises(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_text("train/000\ntrain/001\ntrain/002\ntrain/003\n")
    with pytest.raises(UsageError, match=r"promises 1 training images per class, but '.*' lists 2 of class 0"):
        opened(with_subset(tmp_path, file, shots=1))
    with pytest.raises(UsageError, match=r"data.subset='nowhere.json' is no file"):
        opened(with_subset(tmp_path, Path("nowhere.json")))
    with pytest.raises(UsageError, match="would sweep a path"):
        expand(["center-box"], overrides=["data.subset=a.txt,b.txt"])


# --- images left out -------------------------------------------------------------------------------------------------


class Damaged(FakeSplit):
    """A split some of whose images cannot be read; counts how often it was asked for one."""

    def __init__(self, name: str, per_class: int, bad: set[str]) -> None:
        super().__init__(name, per_class)
        self.bad = bad
        self.loads = 0

    def sample(self, index: int, augment: Any) -> Any:
        self.loads += 1
        if self.ids[index] in self.bad:
            raise BadImage(f"{self.ids[index]}.jpg", "cannot be decoded: truncated")
        return super().sample(index, augment)


@pytest.fixture
def damage(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the fake data set's images bad, by id."""

    def do(*ids: str) -> None:
        def split(self: FakeData, name: str) -> Damaged:
            return Damaged(name, self.config.per_class, set(ids))

        monkeypatch.setattr(FakeData, "split", split)

    return do


def skipping(out: Path, **changes: Any) -> RunConfig:
    return fake_config(out, data=DataConfig(on_bad_image=OnBadImage.skip), **changes)


def test_a_run_that_uses_neither_has_the_hash_it_had(tmp_path: Path) -> None:
    """Of the commit before these options: finished runs must be found again."""
    assert opened(fake_config(tmp_path)).directory.hash.startswith("b7cfa4b536157d97")
    assert opened(fake_config(tmp_path, shots=1)).directory.hash.startswith("d33e67ae7491238b")
    assert opened(skipping(tmp_path)).directory.hash.startswith("b7cfa4b536157d97")  # nothing is bad: the same run


def test_the_numbers_are_those_of_the_images_that_are_left(tmp_path: Path, damage: Any) -> None:
    file = tmp_path / "good.json"
    split = {name: FakeSplit(name, 4).ids for name in ("train", "val")}
    good = {name: {"ids": [id for id in ids if id not in ("train/004", "val/007")]} for name, ids in split.items()}
    file.write_text(json.dumps(good))
    listed, _ = finished(with_subset(tmp_path / "listed", file))
    damage("train/004", "val/007")
    skipped, folder = finished(skipping(tmp_path / "skipped"))
    assert skipped.cells == listed.cells
    assert skipped.ledger.skipped == {
        "train": {"train/004": "image 'train/004.jpg' cannot be decoded: truncated"},
        "val": {"val/007": "image 'val/007.jpg' cannot be decoded: truncated"},
    }
    assert skipped.ledger.labels == {"train": 11, "val": 11, "test": 12}
    assert "2 images that cannot be read left out: 1 of train, 1 of val" in skipped.notes
    config = skipping(tmp_path / "workers")
    config.train.workers = config.evaluate.workers = 2
    loaded, _ = finished(config)
    assert loaded.cells == skipped.cells
    assert loaded.hash == skipped.hash
    assert (folder / "record.json").is_file()


def test_a_draw_takes_the_next_image_of_the_class(tmp_path: Path, damage: Any) -> None:
    before = train_ids(fake_config(tmp_path, shots=2))
    damage(before[0])
    after = train_ids(skipping(tmp_path, shots=2))
    assert before[0] not in after
    assert len(after) == 2 * CLASSES
    assert len(set(after) - set(before)) == 1


def test_only_drawn_images_are_looked_at() -> None:
    split = Damaged("train", 100, set())
    assert BadImages(Silent()).find("train", split, "f", range(6)) == {}
    assert split.loads == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_by_default_a_bad_image_is_one_sentence(tmp_path: Path, damage: Any, workers: int) -> None:
    for bad in ("train/004", "test/002"):
        damage(bad)
        config = fake_config(tmp_path / bad.replace("/", "-"))
        config.train.workers = config.evaluate.workers = workers
        with pytest.raises(BadImage, match=f"^image '{bad}.jpg' cannot be decoded: truncated$"):
            run(config)


def test_too_many_bad_images_are_no_accident(tmp_path: Path, damage: Any) -> None:
    damage("train/000", "train/001")
    with pytest.raises(
        WsolbenchError, match=r"2 of 12 images of train cannot be used, .*\(10%\); the first: image 'tr"
    ):
        opened(skipping(tmp_path))


def test_a_class_without_a_readable_image_is_an_error(tmp_path: Path, damage: Any) -> None:
    damage("train/001")
    data = {"name": "fake-data", "per_class": 1}
    with pytest.raises(WsolbenchError, match="no image of class 1 in train can be read; the first that cannot"):
        opened(skipping(tmp_path, dataset=data))


def test_another_view_of_a_split_leaves_the_same_images_out(tmp_path: Path, damage: Any) -> None:
    damage("test/002")
    chosen = opened(skipping(tmp_path)).chosen
    again = chosen.without_bad("test", FakeSplit("test", 4))
    assert isinstance(again, Subset)
    assert again.ids == chosen.test_split.ids
    whole = FakeSplit("val", 4)
    assert chosen.without_bad("val", whole) is whole


def test_the_draw_of_a_function_and_of_a_protocol_are_one(tmp_path: Path) -> None:
    dataset = FakeData(FakeData.Config())
    content = draw_subset(dataset, shots=2, val_per_class=None, seed=0)
    assert content["train"] == {"per_class": 2, "ids": train_ids(fake_config(tmp_path, shots=2))}
    assert "val" not in content
