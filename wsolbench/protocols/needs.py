"""Protocols: what a run trains on, who selects for it, and the ledger of every annotation that was looked at."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from omegaconf import OmegaConf

from wsolbench.config.schema import Budget, ProtocolConfig, TrainConfig
from wsolbench.data.loading import steps_per_epoch
from wsolbench.data.split import Split
from wsolbench.errors import UsageError
from wsolbench.protocols.select import parse_checkpoint, parse_threshold
from wsolbench.system.hashing import stable_seed
from wsolbench.types import Annotation

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class HasIds(Protocol):
    """Outcomes of some images."""

    @property
    def ids(self) -> npt.NDArray[np.str_]: ...


def check_protocol(protocol: ProtocolConfig) -> None:
    """Raise `UsageError` for a selector that does not exist or a number of images that makes no sense."""
    parse_checkpoint(protocol.checkpoint)
    parse_threshold(protocol.threshold)
    for name in ("shots", "val_per_class", "select_every"):
        value = getattr(protocol, name)
        if value is not None and value < 1:
            raise UsageError(f"protocol.{name}={value}: the least is 1")


def check_annotated(
    protocol: ProtocolConfig, dataset: str, annotated: Mapping[str, bool], has_boxes: bool, *, is_trained: bool = True
) -> None:
    """Refuse a protocol that chooses by ground truth which is not there, and say which presets remain.

    Args:
        protocol: of the run.
        dataset: its name, for the sentence.
        annotated: per split ("val", "test") whether it has boxes or masks.
        has_boxes: of the data set; where there are only masks no threshold is chosen.
        is_trained: where nothing is trained there is one checkpoint, and no choice.

    Raises:
        UsageError: nothing could be scored or chosen.
    """
    from wsolbench.config.compose import protocol_presets

    if not annotated["test"]:
        raise UsageError(f"the test images of data set '{dataset}' have no boxes and no masks: no map could be scored")
    there: dict[str | None, bool] = {None: True, "val-pseudo": has_boxes and protocol.pseudo_boxes is not None}
    there |= {split: has_boxes and has for split, has in annotated.items()}
    needs = _needs(protocol.checkpoint, protocol.threshold, has_boxes, is_trained)
    lacking = next((what for what in needs if not there[what]), None)
    if lacking is None:
        return
    presets = {name: OmegaConf.load(path) for name, path in protocol_presets().items()}
    remaining = [
        name
        for name, preset in presets.items()
        if all(there[what] for what in _needs(preset.checkpoint, preset.threshold, has_boxes, is_trained))
    ]
    if lacking == "val-pseudo":
        raise UsageError(
            f"protocol '{protocol.name}' chooses by pseudo-boxes of val: give protocol.pseudo_boxes=FOLDER (made by "
            f"'wsolbench data pseudo-boxes', or released ones), or take --protocol {' or '.join(remaining)}"
        )
    raise UsageError(
        f"protocol '{protocol.name}' chooses by the boxes of {lacking}, but data set '{dataset}' has none there; give it "
        f"some, or take --protocol {' or '.join(remaining)} (reference chooses on test boxes, an oracle)"
    )


def _needs(checkpoint: str, threshold: str, has_boxes: bool, is_trained: bool) -> list[str | None]:
    """The annotation that two selectors look at; without boxes no threshold is chosen."""
    chosen = [parse_threshold(threshold)] if has_boxes else []
    return [each.looks_at for each in ([parse_checkpoint(checkpoint)] if is_trained else []) + chosen]


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
    by_class = images_by_class(split.labels)
    smallest = min(by_class, key=lambda label: len(by_class[label]))
    if len(by_class[smallest]) < count:
        raise UsageError(
            f"{count} {what} images per class were asked for, but class {smallest} has only {len(by_class[smallest])}; "
            f"ask for at most {len(by_class[smallest])}"
        )
    return first_of_each_class(split.ids, by_class, lambda images: count, revision=revision, seed=seed, what=what)


def draw_fraction(split: Split, fraction: float, *, revision: str, seed: int, what: str) -> list[int]:
    """Draw a share of every class's images, rounded up; returns indices into the split, in order of id.

    The order of a class is that of `draw_per_class`: smaller shares lie in larger ones, and few shots in both.
    """
    by_class = images_by_class(split.labels)

    def share(images: int) -> int:
        return math.ceil(round(fraction * images, 9))

    return first_of_each_class(split.ids, by_class, share, revision=revision, seed=seed, what=what)


def images_by_class(labels: npt.NDArray[np.int64]) -> dict[int, list[int]]:
    """The indices of each class's images, in order of appearance."""
    by_class: dict[int, list[int]] = {}
    for index, label in enumerate(labels.tolist()):
        by_class.setdefault(label, []).append(index)
    return by_class


def first_of_each_class(
    ids: Sequence[str],
    by_class: Mapping[int, Sequence[int]],
    count: Callable[[int], int],
    *,
    revision: str,
    seed: int,
    what: str,
) -> list[int]:
    """The first images of every class in the class's own order (see `draw_per_class`), in order of id.

    `count` says how many of a class of so many images.
    """
    drawn = [
        index
        for label, members in by_class.items()
        for index in sorted(members, key=lambda i: (stable_seed(what, revision, seed, label, ids[i]), i))[
            : count(len(members))
        ]
    ]
    return sorted(drawn, key=lambda index: ids[index])


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
