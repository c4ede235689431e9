"""Draws, budgets, and who is noted to have looked at what."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from engine_fakes import CLASSES, FakeSplit

from wsolbench.config.check import check_protocol
from wsolbench.config.schema import Budget, ProtocolConfig, TrainConfig
from wsolbench.config.selectors import Selector, Settings
from wsolbench.data.annotations import AnnotationReader
from wsolbench.data.draws import draw_per_class
from wsolbench.data.loading import train_batches, train_steps
from wsolbench.data.split import Subset
from wsolbench.errors import UsageError
from wsolbench.evaluation.scoring import score_maps
from wsolbench.protocols.select import choose_threshold
from wsolbench.training.plan import training_plan
from wsolbench.types import Batch


def draw(split: FakeSplit, count: int, seed: int = 0, revision: str = "r1", what: str = "training") -> list[str]:
    indices = draw_per_class(split, count, revision=revision, seed=seed, what=what)
    return [split.ids[index] for index in indices]


def test_draws_are_nested_and_balanced() -> None:
    split = FakeSplit("train", per_class=20)
    sets = [set(draw(split, count)) for count in (1, 2, 5, 20)]
    for smaller, larger in itertools.pairwise(sets):
        assert smaller < larger
    labels = [split.labels[split.ids.index(id)] for id in sets[2]]
    assert np.bincount(labels).tolist() == [5] * CLASSES


def test_draws_do_not_depend_on_the_order_of_files() -> None:
    split, shuffled = FakeSplit("train", per_class=20), FakeSplit("train", per_class=20)
    order = np.random.RandomState(0).permutation(len(split))
    shuffled.ids = [split.ids[i] for i in order]
    shuffled.labels = split.labels[order]
    assert draw(split, 3) == draw(shuffled, 3)


@pytest.mark.parametrize("other", [{"seed": 1}, {"revision": "r2"}, {"what": "val"}])
def test_draws_depend_on_seed_revision_and_purpose(other: dict[str, object]) -> None:
    split = FakeSplit("train", per_class=20)
    assert draw(split, 3) != draw(split, 3, **other)  # type: ignore[arg-type]


def test_more_shots_than_images_is_an_error() -> None:
    split = FakeSplit("train", per_class=4)
    split.labels[0] = 1  # class 0 loses one image
    with pytest.raises(UsageError, match=r"4 training images per class .* class 0 has only 3; ask for at most 3"):
        draw(split, 4)


def test_one_shot_takes_as_many_steps_as_the_full_run() -> None:
    train = TrainConfig(epochs=3, batch_size=8)
    full = training_plan(train, Budget.steps, images=100, full_images=100)
    one = training_plan(train, Budget.steps, images=3, full_images=100)
    assert full.steps == one.steps == 36
    assert one.steps_per_pass == 1
    assert one.steps_per_epoch == full.steps_per_epoch == 12
    assert training_plan(train, Budget.epochs, images=3, full_images=100).steps == 3


def test_given_steps_win() -> None:
    train = TrainConfig(epochs=3, steps=7, batch_size=8)
    assert {training_plan(train, budget, 3, 100).steps for budget in Budget} == {7}


def test_the_only_batch_is_never_dropped() -> None:
    split = FakeSplit("train", per_class=2)
    assert [batch.ids for batch in train_batches(split, [1, 4], batch_size=4, seed=0, epoch=0)] in (
        [[split.ids[1], split.ids[4]]],
        [[split.ids[4], split.ids[1]]],
    )
    assert len(list(train_batches(split, range(6), batch_size=4, seed=0, epoch=0))) == 1


def test_a_steps_batch_is_a_function_of_seed_and_step() -> None:
    split = FakeSplit("train", per_class=4)

    def steps(first: int, last: int, workers: int = 0) -> list[Batch]:
        options = {"batch_size": 5, "seed": 3, "first": first, "last": last, "workers": workers}
        return list(train_steps(split, range(12), **options))  # type: ignore[arg-type]

    whole = steps(0, 7)  # two batches of five an epoch
    assert len(whole) == 7
    epochs = [
        batch for epoch in range(4) for batch in train_batches(split, range(12), batch_size=5, seed=3, epoch=epoch)
    ]
    for first in (0, 1, 2, 5):
        for one, other in zip(steps(first, 7), whole[first:], strict=True):
            assert one.ids == other.ids
            assert one.images_BCHW.equal(other.images_BCHW)
    assert [batch.ids for batch in steps(1, 7, workers=2)] == [batch.ids for batch in epochs[1:7]]
    assert len({*whole[0].ids, *whole[1].ids}) == 10
    assert whole[0].ids != whole[2].ids


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        (ProtocolConfig(checkpoint="lst"), "unknown protocol.checkpoint 'lst', did you mean 'last'"),
        (ProtocolConfig(threshold="val-box"), "unknown protocol.threshold 'val-box', did you mean 'val-boxes'"),
        (ProtocolConfig(shots=0), "protocol.shots=0"),
    ],
)
def test_unknown_selectors_are_errors(protocol: ProtocolConfig, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_protocol(protocol)


def test_a_subset_gives_no_access_to_the_other_annotations() -> None:
    split = FakeSplit("val", per_class=2)
    subset = Subset(split, [4, 1])
    assert subset.ids == ["val/004", "val/001"]
    assert subset[0].id == "val/004"
    assert subset.annotation("val/001").id == "val/001"
    with pytest.raises(KeyError):
        subset.annotation("val/000")


def test_marks_follow_from_what_was_read() -> None:
    split = FakeSplit("val", per_class=1)
    reader = AnnotationReader()
    for _ in range(2):  # the same image twice is one image
        boxes = [annotation.boxes_N4 for annotation in reader.read("val", split, split.ids)]
    maps = np.random.RandomState(0).rand(3, 16, 16)
    scores = score_maps(maps, [box for box in boxes if box is not None], [0, 1, 2], None, None, split.ids)
    levels = {"val": scores, "test": scores}
    assert not choose_threshold(reader, Selector("val-boxes"), levels, Settings()).oracle
    uses = {(use["split"], use["kind"], use["purpose"]): use["images"] for use in reader.uses()}
    assert uses == {
        ("val", "boxes", "scoring"): 3,
        ("val", "masks", "scoring"): 3,
        ("val", "boxes", "threshold selection"): 3,
    }
    assert choose_threshold(reader, Selector("test-oracle"), levels, Settings()).oracle
    assert {"split": "test", "kind": "boxes", "purpose": "threshold selection", "images": 3} in reader.uses()
