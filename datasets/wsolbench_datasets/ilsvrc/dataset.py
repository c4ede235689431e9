"""ILSVRC: ImageNet's 1,000 classes with the splits of the reference evaluator; val is ImageNetV2, test is ILSVRC2012 val.

Lists are read from the reference metadata, or from the archives as they unpack (`_ilsvrc_archive`): train/<wnid>/, val/ flat
or sorted into classes, annotation XML or Kaggle's lists, ImageNetV2 (threshold-0.7) in folders 0 .. 999. Ids are the
reference's either way. Images are found in both forms below --root, whichever lists are read. All 50,000 images of test
count: the devkit's list of images left out of detection is not applied, as nowhere in the field.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import ClassVar, final

from wsolbench.data.metadata import LABELS, Metadata
from wsolbench.registry import register_dataset
from wsolbench_datasets.ilsvrc.archive import BASES, IlsvrcArchive
from wsolbench_datasets.listed.layout import Layout, MetadataLayout
from wsolbench_datasets.listed.reference import ArchiveConfig, ReferenceDataset

_WNID = re.compile(r"(?:^|/)(n\d{8})/")


@register_dataset("ilsvrc")
@final
class Ilsvrc(ReferenceDataset):
    """ImageNet, one or more boxes an image (1,281,167 / 10,000 / 50,000 images), from archives or reference metadata."""

    Config: ClassVar[type] = ArchiveConfig
    NAME = "ILSVRC"
    native_files = "train/<wnid>/ and val/ of ImageNet"
    title = "ILSVRC2012, ImageNetV2 (threshold-0.7) as val"
    citation = (
        "Russakovsky et al.: ImageNet Large Scale Visual Recognition Challenge, IJCV 2015. Recht, Roelofs, Schmidt, "
        "Shankar: Do ImageNet Classifiers Generalize to ImageNet?, ICML 2019. Boxes of ImageNetV2 and splits: Choe et "
        "al., Evaluating Weakly Supervised Object Localization Methods Right, CVPR 2020."
    )
    licence = "ImageNet's terms of access (non-commercial research); nothing is redistributed here"
    url = "https://www.image-net.org/challenges/LSVRC/2012/"
    val_source = "ImageNetV2 threshold-0.7, boxes collected by the authors of the reference evaluator"
    imagenet_overlap = "train is what ImageNet-pretrained backbones were trained on; val and test are not"
    complete: ClassVar[dict[str, int]] = {"train": 1_281_167, "val": 10_000, "test": 50_000}

    @staticmethod
    def class_name(id: str) -> str | None:
        """The WordNet id of the class's folder; only the training images lie in such folders."""
        found = _WNID.search(id)
        return found and found[1]

    @cached_property
    def archive(self) -> IlsvrcArchive:
        assert self.root is not None
        return IlsvrcArchive(self.root)

    def find_native(self, root: Path) -> Layout | None:
        return self.archive if self.archive.found else None

    def image_folders(self) -> list[Path]:
        assert self.root is not None
        return [*super().image_folders(), *(self.root / base for base in BASES)]

    def images_expected(self) -> str:
        return "dataset/ILSVRC, or train/, val/ and val2/,"

    def with_images(self, name: str, lists: Metadata) -> Metadata:
        """As the shared one; else images sorted into classes (val) or in the archive's own folder (ImageNetV2)."""
        lists = super().with_images(name, lists)
        if lists.images is None and name == "val" and self.archive.v2 is not None:
            files = [id.removeprefix("val2/") for id in lists.ids]
            return replace(lists, images=self.archive.v2, files=files)
        if lists.images is None and name == "test" and self.archive.val is not None:
            files = [self.archive.places.get(PurePosixPath(id).stem, id) for id in lists.ids]
            return replace(lists, images=self.archive.val.parent, files=files)
        return lists

    def named_classes(self, split: str) -> Iterator[tuple[int, str | None]]:
        """As the shared one; the 1.28 million lines of the training split are skimmed, not kept, where they were not read."""
        layout = self.layout_of(split)
        if split != "train" or self.is_read(split) or not isinstance(layout, MetadataLayout):
            yield from super().named_classes(split)
            return
        with (layout.folder / split / LABELS).open(encoding="utf-8-sig") as lines:
            for line in lines:
                id, _, label = line.strip().rpartition(",")
                if (name := self.class_name(id)) and label.isdecimal():
                    yield int(label), name
