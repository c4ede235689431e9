"""Stanford Dogs: 120 breeds out of ImageNet, one or more boxes an image, as SAT evaluates on them.

Below --root: Images/<wnid>-<breed>/*.jpg, Annotation/<wnid>-<breed>/<stem> (VOC XML without an extension), train_list.mat and
test_list.mat (beside them or in lists/). Classes are the folders in sorted order, as the lists number them from 1. Boxes are
taken as they stand; several boxes of an image all count. There is no val split: `dataset.holdout` images leave train.
"""
# n images

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import ClassVar, final

import numpy as np

from wsolbench.data.ids import EXPECTED, is_safe
from wsolbench.data.metadata import AnnotationFiles, Located, Metadata
from wsolbench.errors import WsolbenchError
from wsolbench.registry import register_dataset
from wsolbench_datasets.formats.mat import MatFile
from wsolbench_datasets.formats.voc import read_voc
from wsolbench_datasets.listed.archive import ArchiveDataset

LISTS = {"train": "train_list.mat", "test": "test_list.mat"}


def read_located(path: Path, id: str, label: int) -> Located:
    """All boxes of an annotation file; the breed it names is a word, not compared."""
    found = read_voc(path)
    if found.image not in ("", "%s", PurePosixPath(id).stem):
        raise WsolbenchError(f"annotation '{path}' is of image '{found.image}', expected '{PurePosixPath(id).stem}'")
    return Located(found.boxes_N4, found.size_HW)


@register_dataset("stanford_dogs")
@final
class StanfordDogs(ArchiveDataset):
    """Dogs of 120 breeds, one or more boxes each (12,000 train, of which val is held out, and 8,580 test images)."""

    folders = ("stanford_dogs", "StanfordDogs", "Stanford_Dogs")
    layouts = (("Images", "Annotation"),)
    title = "Stanford Dogs"
    citation = (
        "Khosla, Jayadevaprakash, Yao, Fei-Fei: Novel Dataset for Fine-Grained Image Categorization, First Workshop on "
        "Fine-Grained Visual Categorization, CVPR 2011."
    )
    licence = (
        "images out of ImageNet, whose terms of access hold (non-commercial research); nothing is redistributed here"
    )
    url = "http://vision.stanford.edu/aditya86/ImageNetDogs/"
    imagenet_overlap = (
        "all 120 classes are ImageNet's, and images were taken out of it: pretrained backbones have seen them"
    )
    complete: ClassVar[dict[str, int]] = {"train": 12_000, "test": 8_580}

    def class_names(self) -> tuple[str, ...]:
        return self._classes

    @cached_property
    def _classes(self) -> tuple[str, ...]:
        names = sorted(path.name for path in (self.folder / "Images").iterdir() if path.is_dir())
        if not names:
            raise WsolbenchError(
                f"'{self.folder / 'Images'}' has no folder; expected one per breed, <wnid>-<breed>/*.jpg"
            )
        return tuple(names)

    def list_files(self) -> Sequence[tuple[str, Path]]:
        """The lists, and the annotations of what is evaluated on."""
        annotated = [self.read_split(split).located for split in ("val", "test")]
        return self.named(
            [self._list(split) for split in LISTS] + [p for each in annotated if each for p in each.paths]
        )

    def read_lists(self, name: str) -> Metadata:
        """In the order of the list."""
        mat = MatFile(self._list(name))
        ids, labels = mat.texts("file_list"), mat.integers("labels")
        if len(ids) != len(labels):
            raise WsolbenchError(f"'{mat.path}' has {len(ids)} entries of 'file_list', but {len(labels)} of 'labels'")
        seen: dict[str, int] = {}
        for number, (id, label) in enumerate(zip(ids, labels, strict=True), 1):
            if not is_safe(id) or len(PurePosixPath(id).parts) != 2:
                raise mat.refuse(number, "file_list", repr(id), f"<class>/<file>.jpg, {EXPECTED}")
            if seen.setdefault(id, number) != number:
                raise mat.refuse(number, "file_list", repr(id), f"each image once, but record {seen[id]} holds it too")
            if not 1 <= label <= len(self._classes):
                raise mat.refuse(number, "labels", label, f"1 .. {len(self._classes)}, as many as folders in Images/")
            if (folder := PurePosixPath(id).parts[0]) != self._classes[label - 1]:
                raise mat.refuse(
                    number, "labels", f"{label} for '{id}'", f"the place of '{folder}' among the folders of Images/"
                )
        located = AnnotationFiles(
            [self.folder / "Annotation" / PurePosixPath(id).with_suffix("") for id in ids],
            read_located,
            sizes_bind=False,
        )
        return Metadata(
            mat.path.parent,
            ids,
            np.array(labels, np.int64) - 1,
            located=located,
            images=self.folder / "Images",
            sources={"labels": mat.path, "localization": self.folder / "Annotation"},
        )

    def _list(self, split: str) -> Path:
        beside = self.folder / "lists" / LISTS[split]
        return beside if beside.is_file() else self.folder / LISTS[split]
