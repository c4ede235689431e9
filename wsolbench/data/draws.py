"""Some images of every class, drawn by seed: nested, and the same on every machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from wsolbench.data.split import Split
from wsolbench.errors import UsageError
from wsolbench.system.hashing import stable_seed

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


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
