"""Protocols: what a run trains on, who selects for it, and the ledger of every annotation that was looked at."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from wsolbench.config import CHECKPOINT_SELECTORS, SPLIT_OF, THRESHOLD_SELECTORS, Budget, ProtocolConfig, TrainConfig
from wsolbench.data import Split, stable_seed, steps_per_epoch
from wsolbench.errors import UsageError, unknown
from wsolbench.types import Annotation

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from wsolbench.levels import Levels


class HasIds(Protocol):
    """Outcomes of some images."""

    @property
    def ids(self) -> npt.NDArray[np.str_]: ...


def check_protocol(protocol: ProtocolConfig) -> None:
    """Raise `UsageError` for a selector that does not exist or a number of images that makes no sense."""
    if protocol.checkpoint not in CHECKPOINT_SELECTORS:
        raise unknown("checkpoint selector", protocol.checkpoint, CHECKPOINT_SELECTORS)
    if protocol.threshold not in THRESHOLD_SELECTORS:
        raise unknown("threshold selector", protocol.threshold, THRESHOLD_SELECTORS)
    for name in ("shots", "val_per_class"):
        value = getattr(protocol, name)
        if value is not None and value < 1:
            raise UsageError(f"protocol.{name}={value}: expected at least 1 image per class, or null for all")


# --- training data ---------------------------------------------------------------------------------------------------


def draw_per_class(split: Split, count: int, *, revision: str, seed: int, what: str) -> list[int]:
    """Draw `count` images of every class; returns indices into the split, in order of id.

    Each class has one order of its images, given by (revision of the data, seed, class, id) alone, and the first
    `count` are taken: so the 1-shot image is in the 5-shot set, and the order of files on a disk cannot matter.

    Args:
        split: where to draw from.
        count: images per class; `UsageError` if a class has fewer.
        revision: of the data set: another revision, another draw.
        seed: of the run.
        what: what the images are for, e.g. "training"; draws for different purposes are independent.
    """
    by_class: dict[int, list[int]] = {}
    for index, label in enumerate(split.labels.tolist()):
        by_class.setdefault(label, []).append(index)
    smallest = min(by_class, key=lambda label: len(by_class[label]))
    if len(by_class[smallest]) < count:
        raise UsageError(
            f"{count} {what} images per class were asked for, but class {smallest} has only {len(by_class[smallest])}; "
            f"ask for at most {len(by_class[smallest])}"
        )
    drawn = [
        index
        for label, members in by_class.items()
        for index in sorted(members, key=lambda i: (stable_seed(what, revision, seed, label, split.ids[i]), i))[:count]
    ]
    return sorted(drawn, key=lambda index: split.ids[index])


@dataclass(frozen=True)
class TrainingPlan:
    """How many optimizer steps a run takes.

    `steps` in all; `steps_per_pass` over the run's own images; `steps_per_epoch` is the unit of `train.epochs` and
    `train.milestones`: an epoch of the full data where steps are shared with the full run.
    """

    steps: int
    steps_per_pass: int
    steps_per_epoch: int


def training_plan(train: TrainConfig, budget: Budget, images: int, full_images: int) -> TrainingPlan:
    """Count the optimizer steps of a run on `images` of `full_images` training images.

    Budget.steps (default) gives a few-shot run as many steps as the full run, Budget.epochs as many passes over its
    images. A part batch is dropped unless it is the only one. `train.steps` wins over both.

    >>> training_plan(TrainConfig(epochs=3, batch_size=8), Budget.steps, images=5, full_images=40)
    TrainingPlan(steps=15, steps_per_pass=1, steps_per_epoch=5)
    >>> training_plan(TrainConfig(epochs=3, batch_size=8), Budget.epochs, images=5, full_images=40).steps
    3
    """
    per_pass = steps_per_epoch(images, train.batch_size)
    per_epoch = steps_per_epoch(full_images, train.batch_size) if budget is Budget.steps else per_pass
    return TrainingPlan(train.epochs * per_epoch if train.steps is None else train.steps, per_pass, per_epoch)


# --- annotations -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Threshold:
    """The threshold of GT-known and Top-k Loc, and who chose it; `oracle`: test boxes were looked at to choose it."""

    value: float
    by: str
    oracle: bool


class AnnotationReader:
    """The one road to localisation ground truth: whatever passes is noted with split, kind and purpose.

    Marks follow from what was noted: a choice made on the test split is an oracle, whatever its name.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # maps are scored in several threads
        self._places: dict[str, dict[str, int]] = {}  # split -> id -> place in the marks
        self._marks: dict[
            tuple[str, str, str], bytearray
        ] = {}  # split, kind, purpose -> 1 where an image was looked at

    def read(self, name: str, split: Split, ids: Sequence[str], purpose: str = "scoring") -> list[Annotation]:
        """Annotations of some images of the split called `name`."""
        annotations = [split.annotation(id) for id in ids]
        self._note(name, "boxes", purpose, [each.id for each in annotations if each.boxes_N4 is not None])
        self._note(name, "masks", purpose, [each.id for each in annotations if each.mask_HW is not None])
        return annotations

    def choose_on(self, name: str, levels: HasIds, purpose: str, kind: str = "boxes") -> bool:
        """Note that a choice is made by outcomes on the split called `name`; says whether that makes it an oracle."""
        self._note(name, kind, purpose, levels.ids.tolist())
        return name == "test"

    def choose_threshold(self, selector: str, levels: Mapping[str, Levels], interval: float) -> Threshold:
        """The threshold with the best box accuracy (IoU .5, largest contour; the first wins a tie) for a selector."""
        name = SPLIT_OF[selector]
        oracle = self.choose_on(name, levels[name], "threshold selection")
        return Threshold(levels[name].select_threshold(0.5, "single", interval), selector, oracle)

    def uses(self) -> list[dict[str, Any]]:
        """What was looked at, for the ledger: split, kind, purpose, number of images."""
        return [
            {"split": split, "kind": kind, "purpose": purpose, "images": sum(marks)}
            for (split, kind, purpose), marks in sorted(self._marks.items())
        ]

    def _note(self, split: str, kind: str, purpose: str, ids: Sequence[str]) -> None:
        if not ids:
            return
        with self._lock:
            places = self._places.setdefault(split, {})
            marks = self._marks.setdefault((split, kind, purpose), bytearray())
            for id in ids:
                place = places.setdefault(id, len(places))
                marks.extend(bytes(max(0, place + 1 - len(marks))))
                marks[place] = 1
