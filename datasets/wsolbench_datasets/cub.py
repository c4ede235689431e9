"""CUB: Caltech-UCSD Birds-200-2011 with the splits of the reference evaluator; val is CUBV2, collected by its authors.

Lists are read from the reference metadata, or from the archive as it is: CUB_200_2011/ with images.txt, classes.txt,
image_class_labels.txt, train_test_split.txt, bounding_boxes.txt and images/. The archive gives train and test; CUBV2 comes
with metadata/CUB/val only, which may lie beside the archive. Without it `dataset.val=holdout` takes val out of train.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import ClassVar, final

import numpy as np

from wsolbench.data.ids import EXPECTED, is_safe
from wsolbench.data.lists import Index, Ints, Lines, boxes_per_image, read_lines
from wsolbench.data.metadata import MaskFiles, Metadata
from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.registry import register_dataset
from wsolbench_datasets.listed.dataset import HoldOutConfig
from wsolbench_datasets.listed.holdout import HoldOut
from wsolbench_datasets.listed.layout import Layout, Which, first_folder
from wsolbench_datasets.listed.reference import ArchiveConfig, ReferenceDataset

IMAGES, CLASSES, LABELS = "images.txt", "classes.txt", "image_class_labels.txt"
SPLIT, BOXES = "train_test_split.txt", "bounding_boxes.txt"
MAJORITY = 127  # segmentations are grey by how many of five annotators marked a pixel, 51 each


class Val(Enum):
    cubv2 = "cubv2"
    holdout = "holdout"


@dataclass
class CubConfig(ArchiveConfig, HoldOutConfig):
    val: Val = Val.cubv2  # holdout: images out of train, for those who lack CUBV2
    masks: bool = False  # read the segmentations too, of which a pixel that most annotators marked is object


class CubArchive(Layout):
    """CUB_200_2011/ as it comes: numbered images, numbered classes from 1."""

    kind = Which.native

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, split: str) -> bool:
        return split != "val"

    def files(self, split: str) -> Sequence[tuple[str, Path]]:
        return [(f"CUB_200_2011/{name}", self.folder / name) for name in (IMAGES, CLASSES, LABELS, SPLIT, BOXES)]

    def class_names(self) -> tuple[str, ...]:
        return self._classes

    def read(self, split: str) -> Metadata:
        """Train or test, in the order of images.txt."""
        if not self.has(split):
            raise WsolbenchError(
                f"val of cub is CUBV2, which '{self.folder}' does not hold: put the reference evaluator's metadata/CUB/val below "
                "--root, or take val out of train with dataset.val=holdout"
            )
        lists, roles = self._everything
        chosen = np.flatnonzero(roles == (split == "train"))
        if not len(chosen):
            raise WsolbenchError(
                f"'{self.folder / SPLIT}' has no image of {split}; expected <number> <1 train or 0 test>"
            )
        return lists.subset(chosen.tolist())

    @cached_property
    def _classes(self) -> tuple[str, ...]:
        lines = self._lines(CLASSES)
        names = [name for _, _, name in _numbered(lines, "<number> <class>, numbered from 1")]
        if len(set(names)) < len(names):
            raise WsolbenchError(f"'{lines.path}' names a class twice; expected each once")
        return tuple(names)

    @cached_property
    def _everything(self) -> tuple[Metadata, Ints]:
        """All images, and which of them are of train."""
        lines = self._lines(IMAGES)
        ids, numbers = [], []
        seen: dict[str, int] = {}
        for at, number, id in _numbered(lines, "<number> <image file>, numbered from 1"):
            if not is_safe(id):
                lines.refuse(at, f"a number and {EXPECTED}")
            if seen.setdefault(id, at) != at:
                lines.refuse(at, f"each image once, but line {seen[id]} holds it too")
            ids.append(id)
            numbers.append(str(number))
        index = Index(lines.path, numbers, separator=" ")
        labels = self._labels(index, ids)
        _, where, values = index.place_integers(self._lines(SPLIT), 1, "<number> <1 train or 0 test>", number="([01])")
        roles = np.empty(len(ids), np.int64)
        roles[where] = values[:, 0]
        boxes = self._lines(BOXES)
        numbers_M, where, xywh = index.place_decimals(boxes, 4, "<number> <x> <y> <width> <height>")
        # x1 = x + width as the reference has it; it is clipped when an image's size is known
        corners = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1).astype(np.int64)
        boxes_M4, first_box, _ = boxes_per_image(boxes, numbers_M, where, corners, None, len(ids))
        sources = {"labels": self.folder / LABELS, "localization": boxes.path}
        return Metadata(self.folder, ids, labels, boxes_M4=boxes_M4, first_box=first_box, sources=sources), roles

    def _labels(self, index: Index, ids: Sequence[str]) -> Ints:
        lines, names = self._lines(LABELS), self._classes
        expected = f"<number> <class>, 1 .. {len(names)} as in {CLASSES}"
        numbers, where, values = index.place_integers(lines, 1, expected)
        lines.refuse_any(numbers, (values[:, 0] < 1) | (values[:, 0] > len(names)), expected)
        for line, image, label in zip(numbers.tolist(), where.tolist(), (values[:, 0] - 1).tolist(), strict=True):
            if PurePosixPath(ids[image]).parts[0] != names[label]:
                lines.refuse(line, f"the class of '{ids[image]}', but {CLASSES} has {names[label]!r} there")
        labels = np.empty(len(ids), np.int64)
        labels[where] = values[:, 0] - 1
        return labels

    def _lines(self, name: str) -> Lines:
        return read_lines(self.folder / name, f"{IMAGES}, {CLASSES}, {LABELS}, {SPLIT} and {BOXES} in '{self.folder}'")


def _numbered(lines: Lines, expected: str) -> list[tuple[int, int, str]]:
    """Line number, number and text of all lines; the numbers count from 1."""
    rows: list[tuple[int, int, str]] = []
    for at, line in enumerate(lines.text, 1):
        number, _, text = line.partition(" ")
        if not line:
            continue
        if number != str(len(rows) + 1) or not text.strip():
            lines.refuse(at, f"{expected}: here {len(rows) + 1}")
        rows.append((at, len(rows) + 1, text.strip()))
    if not rows:
        raise WsolbenchError(f"'{lines.path}' is empty; expected {expected}")
    return rows


@register_dataset("cub")
@final
class Cub(ReferenceDataset):
    """Birds of 200 species, one box each (5,994 / 1,000 / 5,794 images), from the archive or the reference metadata."""

    Config: ClassVar[type] = CubConfig
    config: CubConfig
    NAME = "CUB"
    native_files = "CUB_200_2011/images.txt"
    title = "CUB-200-2011, CUBV2 as val"
    citation = (
        "Wah, Branson, Welinder, Perona, Belongie: The Caltech-UCSD Birds-200-2011 Dataset, CNS-TR-2011-001, 2011. "
        "CUBV2 and splits: Choe et al., Evaluating Weakly Supervised Object Localization Methods Right, CVPR 2020."
    )
    licence = "images from Flickr, for non-commercial research and education; nothing is redistributed here"
    url = "https://www.vision.caltech.edu/datasets/cub_200_2011/"
    val_source = "CUBV2, images and boxes collected by the authors of the reference evaluator"
    imagenet_overlap = (
        "59 of the 1,000 ImageNet classes are birds; the data set's page warns that its images overlap ImageNet's"
    )
    complete: ClassVar[dict[str, int]] = {"train": 5_994, "val": 1_000, "test": 5_794}

    @staticmethod
    def class_name(id: str) -> str | None:
        """The folder of the class, `001.Black_footed_Albatross`."""
        return PurePosixPath(id).parts[0]

    def find_native(self, root: Path) -> Layout | None:
        names = ("CUB_200_2011", "dataset/CUB_200_2011", "CUB/CUB_200_2011", "CUB")
        folder = first_folder([root, *(root / name for name in names)], (IMAGES, LABELS))
        return None if folder is None else CubArchive(folder)

    def image_folders(self) -> list[Path]:
        """As the reference has them; images/ of the archive; CUBV2/ in the archive of that name."""
        assert self.root is not None
        native = [layout.folder / "images" for layout in self.layouts if isinstance(layout, CubArchive)]
        archives = ("CUB_200_2011/images", "images", "dataset/CUB_200_2011/images", "CUBV2", "dataset/CUBV2")
        return [*super().image_folders(), *native, *(self.root / name for name in archives)]

    def images_expected(self) -> str:
        return "dataset/CUB or CUB_200_2011/images"

    def hold_out(self) -> HoldOut | None:
        return super().hold_out() if self.config.val is Val.holdout else None

    def with_images(self, name: str, lists: Metadata) -> Metadata:
        lists = super().with_images(name, lists)
        return self._with_masks(lists) if self.config.masks else lists

    def _with_masks(self, lists: Metadata) -> Metadata:
        """Segmentations are a tree of PNG files with the images' names."""
        if self.config.val is not Val.holdout:
            raise UsageError(
                "dataset.masks=true: CUBV2 has no segmentations; dataset.val=holdout chooses on images that have"
            )
        folder = lists.images or self.images or self.metadata or self.root
        assert folder is not None
        above = [folder, *folder.parents][:3]
        found = first_folder([self.root, *above] if self.root else above, ("segmentations",))
        if found is None:
            raise UsageError(f"dataset.masks=true: no folder segmentations/ (an archive of its own) beside '{folder}'")
        masks = [MaskFiles((PurePosixPath(id).with_suffix(".png").as_posix(),), "") for id in lists.ids]
        return replace(lists, masks=masks, mask_above=MAJORITY, masks_in=found / "segmentations")
