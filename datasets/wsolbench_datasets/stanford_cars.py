"""Stanford Cars: 196 makes, models and years, one box an image, as SAT evaluates on them.

Two forms are given out, with other file names (and so other ids): car_ims/ with cars_annos.mat, and cars_train/, cars_test/
with cars_train_annos.mat, cars_test_annos_withlabels.mat and cars_meta.mat in devkit/. Both are read; where a root holds both,
the merged one, as SAT does. Classes are the devkit's numbers less one. Boxes are counted from 1 in the files; here they start
at 0, and end at the image's last pixel: one of train exceeds its image. There is no val split: `dataset.holdout` images leave
train.
"""
# n images, M boxes of all images

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np

from wsolbench.data.ids import EXPECTED, is_safe
from wsolbench.data.metadata import Metadata
from wsolbench.errors import WsolbenchError
from wsolbench.registry import register_dataset
from wsolbench_datasets.formats.mat import MatFile
from wsolbench_datasets.listed.archive import ArchiveDataset
from wsolbench_datasets.listed.layout import first_folder

CORNERS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
MERGED = "cars_annos.mat"
APART = {"train": "cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
META = "cars_meta.mat"


@register_dataset("stanford_cars")
@final
class StanfordCars(ArchiveDataset):
    """Cars of 196 models, one box each (8,144 train, of which val is held out, and 8,041 test images)."""

    folders = ("stanford_cars", "StanfordCars", "Stanford_Cars", "cars")
    layouts = (("car_ims", MERGED), ("cars_train", "cars_test"))
    title = "Stanford Cars"
    citation = (
        "Krause, Stark, Deng, Fei-Fei: 3D Object Representations for Fine-Grained Categorization, 4th IEEE Workshop on 3D "
        "Representation and Recognition, ICCV 2013."
    )
    licence = "for non-commercial research; nothing is redistributed here"
    url = "https://ai.stanford.edu/~jkrause/cars/car_dataset.html"
    complete: ClassVar[dict[str, int]] = {"train": 8_144, "test": 8_041}

    @property
    def is_merged(self) -> bool:
        return MERGED in self.layout

    def class_names(self) -> tuple[str, ...]:
        return self._classes

    @cached_property
    def _classes(self) -> tuple[str, ...]:
        mat = self._mat(MERGED if self.is_merged else META)
        names = mat.texts("class_names")
        if len(set(names)) < len(names):
            raise WsolbenchError(f"'{mat.path}' names a class twice in 'class_names'; expected each once")
        return tuple(names)

    def list_files(self) -> Sequence[tuple[str, Path]]:
        names = (MERGED,) if self.is_merged else (META, *APART.values())
        return [(name, self._find(name)) for name in names]

    def read_lists(self, name: str) -> Metadata:
        """In the order of the file."""
        mat = self._mat(MERGED if self.is_merged else APART[name])
        text = "relative_im_path" if self.is_merged else "fname"
        rows = mat.records("annotations", (text,), (*CORNERS, "class", *(["test"] if self.is_merged else [])))
        ids, labels, boxes = [], [], []
        seen: dict[str, int] = {}
        for number, row in enumerate(rows, 1):
            if self.is_merged and row["test"] not in (0, 1):
                raise mat.refuse(number, "annotations", f"test is {row['test']}", "0 (train) or 1")
            if self.is_merged and row["test"] != (name == "test"):
                continue
            id = row[text] if self.is_merged else f"cars_{name}/{row[text]}"
            if not is_safe(id):
                raise mat.refuse(number, "annotations", repr(id), EXPECTED)
            if seen.setdefault(id, number) != number:
                raise mat.refuse(
                    number, "annotations", repr(id), f"each image once, but record {seen[id]} holds it too"
                )
            if not 1 <= row["class"] <= len(self._classes):
                raise mat.refuse(number, "annotations", f"class {row['class']} of '{id}'", f"1 .. {len(self._classes)}")
            ids.append(id)
            labels.append(row["class"] - 1)
            boxes.append(_box(mat, number, row))
        if not ids:
            raise WsolbenchError(f"'{mat.path}' has no image of {name}")
        return Metadata(
            mat.path.parent,
            ids,
            np.array(labels, np.int64),
            boxes_M4=np.array(boxes, np.int64),
            first_box=np.arange(len(ids) + 1, dtype=np.int64),
            sources={"labels": mat.path, "localization": mat.path},
        )

    def _mat(self, name: str) -> MatFile:
        path = self._find(name)
        if name in APART.values() and not path.is_file():
            # the file without labels has the same name but for the ending, and is the one more often at hand
            raise WsolbenchError(
                f"file '{path}' does not exist; expected the annotations with labels in devkit/ or beside it"
            )
        return MatFile(path)

    def _find(self, name: str) -> Path:
        folders = [self.folder / "devkit", self.folder, self.folder / "car_devkit" / "devkit"]
        return (first_folder(folders, (name,)) or folders[0 if not self.is_merged else 1]) / name


def _box(mat: MatFile, number: int, row: dict[str, Any]) -> list[int]:
    """Corners from 0."""
    x0, y0, x1, y1 = (row[corner] - 1 for corner in CORNERS)
    if min(x0, y0) < 0 or x1 < x0 or y1 < y0:
        stands = ",".join(str(row[corner]) for corner in CORNERS)
        raise mat.refuse(number, "annotations", f"box {stands}", "x1,y1,x2,y2 from 1 with x1 <= x2 and y1 <= y2")
    return [x0, y0, x1, y1]
