"""Which split each image of a folder belongs to: its split folder, a list, or a seeded hold-out from the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.system.hashing import stable_seed
from wsolbench_datasets.folder.boxes_csv import read_table
from wsolbench_datasets.folder.names import ImageNames
from wsolbench_datasets.folder.tree import SPLITS, TreeImage

UNUSED = "none"  # in a list: the image belongs to no split


def listed_roles(path: Path, names: ImageNames) -> list[str]:
    """The split of each image by a CSV file with the header `id,split`; every image has one line.

    Raises:
        WsolbenchError: a line names no image or no split, an image twice, or an image has no line.
    """
    roles = [""] * len(names.ids)
    for place, (id, split) in read_table(path, ("id", "split")):
        if split not in (*SPLITS, UNUSED):
            place.refuse(f"a split, one of {', '.join((*SPLITS, UNUSED))}")
        image = names.find(id, place.refuse)
        if roles[image]:
            place.refuse("one line per image, but an earlier line names this one too")
        roles[image] = split
    without = [id for id, role in zip(names.ids, roles, strict=True) if not role]
    if without:
        raise WsolbenchError(
            f"'{path}' has no line for {len(without)} of the {len(roles)} images, first {without[0]!r}; expected "
            f"<id>,<{'|'.join((*SPLITS, UNUSED))}> for each"
        )
    return roles


def hold_out(images: Sequence[TreeImage], roles: Sequence[str], shares: Mapping[str, float], seed: int) -> list[str]:
    """Roles after a share of every class's training images was given to "test" and to "val".

    Each class has one order of its images, given by (seed, id) alone: test takes the first of them, val the next. So the
    order of files on a disk cannot matter, and another share of val leaves test as it is.

    Raises:
        UsageError: a share is impossible, its split has images already, or a class would have none left.
    """
    given = {split: share for split, share in shares.items() if share}
    for split, share in given.items():
        if not 0 < share < 1 or sum(given.values()) >= 1:
            raise UsageError(f"dataset.{split}_share={share}: expected shares from 0, together less than 1")
        if split in roles:
            raise UsageError(f"dataset.{split}_share={share} would hold out {split}, but the folder has {split} images")
    decided = list(roles)
    if not given:
        return decided
    by_class: dict[str, list[int]] = {}
    for index, image in enumerate(images):
        if roles[index] == "train":
            by_class.setdefault(image.class_name, []).append(index)
    for name, members in by_class.items():
        order = sorted(members, key=lambda index: (stable_seed("hold-out", seed, images[index].id), images[index].id))
        taken = 0
        for split in ("test", "val"):
            if split not in given:
                continue
            count = max(1, int(given[split] * len(order) + 0.5))
            for index in order[taken : taken + count]:
                decided[index] = split
            taken += count
        if taken >= len(order):
            raise UsageError(
                f"class '{name}' has {len(order)} images, too few to hold out {' and '.join(given)} from them"
            )
    return decided
