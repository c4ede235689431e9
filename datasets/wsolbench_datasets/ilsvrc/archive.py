"""ImageNet as its archives unpack: train/<wnid>/, val/ flat or sorted into classes, ImageNetV2 in numbered folders.

A class is the place of its WordNet id in sorted order. Labels of val are looked for, first found first taken, in:
LOC_val_solution.csv (Kaggle), ILSVRC2012_validation_ground_truth.txt with meta.mat (devkit, whose numbers have another
order), the wnid folders val/ is sorted into, the annotation XML. Its boxes: the annotation XML, else LOC_val_solution.csv.
"""
# n images, M boxes of all images

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from wsolbench.data.lists import Index, boxes_per_image, read_lines
from wsolbench.data.metadata import AnnotationFiles, Located, Metadata
from wsolbench.errors import WsolbenchError
from wsolbench_datasets.formats.voc import read_voc
from wsolbench_datasets.ilsvrc.lists import (
    META,
    WNID,
    Solution,
    read_devkit,
    read_mapping,
    read_solution,
    read_truth,
    read_xml_labels,
)
from wsolbench_datasets.listed.layout import Layout, Which

VAL_NAME = re.compile(r"(ILSVRC2012_val_\d{8})\.jpe?g", re.IGNORECASE)
PICTURES = (".jpeg", ".jpg", ".png")
BASES = (
    "",
    "ILSVRC",
    "dataset/ILSVRC",
    "ILSVRC2012",
    "Data/CLS-LOC",
    "ILSVRC/Data/CLS-LOC",
)  # that hold train/ and val/
V2_FOLDERS = ("val2", "imagenetv2-threshold0.7-format-val", "imagenetv2-threshold0.7", "ImageNetV2-threshold0.7")
MAPPING, SOLUTION = "LOC_synset_mapping.txt", "LOC_val_solution.csv"
TRUTH, DEVKIT = "ILSVRC2012_validation_ground_truth.txt", "ILSVRC2012_devkit_t12"
XML_FOLDERS = ("Annotations/CLS-LOC/val", "ILSVRC2012_bbox_val_v3/val", "ILSVRC2012_bbox_val_v3", "bbox_val", "val_xml")
V2_BOXES = ("ImageNetV2_boxes.txt", "release/ImageNetV2_boxes.txt")


def read_located(wnids: Sequence[str], path: Path, id: str, label: int) -> Located:
    """The boxes of an image's class in its annotation file.

    Objects of another WordNet id are not of the class; a name that is none counts (some files hold "%s" or a word).
    """
    found = read_voc(path)
    if found.image not in ("", "%s", Path(id).stem):
        raise WsolbenchError(f"annotation '{path}' is of image '{found.image}', expected '{Path(id).stem}'")
    own = [name == wnids[label] or not WNID.fullmatch(name) for name in found.names]
    if not any(own):
        raise WsolbenchError(
            f"annotation '{path}' holds objects of '{found.names[0]}' only, but image '{id}' is labelled {label}, "
            f"'{wnids[label]}'"
        )
    return Located(found.boxes_N4[np.array(own)], found.size_HW)


class IlsvrcArchive(Layout):
    """What of ImageNet's archives lies below a root."""

    kind = Which.native

    def __init__(self, root: Path) -> None:
        self.root = root
        bases = [root / base for base in BASES]
        self.train = next((base / "train" for base in bases if _classes_in(base / "train")), None)
        self.val = next((base / "val" for base in bases if _holds_val(base / "val")), None)
        self.v2 = next((base / name for base in bases for name in V2_FOLDERS if _is_v2(base / name)), None)
        places = [*bases, root / DEVKIT / "data", root / "data", *(base / DEVKIT / "data" for base in bases)]
        self.mapping, self.solution, self.truth = (_first(places, name) for name in (MAPPING, SOLUTION, TRUTH))
        self.meta = _first(places, META)
        self.xml = next((base / name for base in bases for name in XML_FOLDERS if (base / name).is_dir()), None)
        self.v2_boxes = next((path for name in V2_BOXES if (path := _first(places, name)) is not None), None)

    @property
    def found(self) -> bool:
        return any((self.train, self.val, self.v2))

    def has(self, split: str) -> bool:
        return {"train": self.train, "val": self.v2 and self.v2_boxes, "test": self.val}[split] is not None

    def class_names(self) -> tuple[str, ...]:
        return self.wnids

    def files(self, split: str) -> Sequence[tuple[str, Path]]:
        lists = [self.mapping]
        lists += [self.solution, self.truth, self.meta] if split == "test" else []
        lists += [self.v2_boxes] if split == "val" else []
        files = [(path.name, path) for path in lists if path is not None]
        xml = sorted(self.xml.glob("*.xml")) if split == "test" and self.xml else []
        return files + [(f"xml/{path.name}", path) for path in xml]

    def listed_names(self, split: str, lists: Metadata) -> Iterable[str]:
        return [*self.wnids, *(lists.ids if split == "train" else map("{},{}".format, lists.ids, lists.labels))]

    def read(self, split: str) -> Metadata:
        """Train in sorted order of class and file, val in the reference's order, test in the order of its numbers."""
        if split == "train":
            return self._read_train()
        return self._read_v2() if split == "val" else self._read_val()

    @cached_property
    def wnids(self) -> tuple[str, ...]:
        """The classes in the order of labels."""
        if self.mapping is not None:
            found = read_mapping(self.mapping)
        elif self.train is not None:
            found = _classes_in(self.train)
        elif self.meta is not None:
            found = list(read_devkit(self.meta).values())
        else:
            found = _classes_in(self.val) if self.val is not None else []
        if not found:
            raise WsolbenchError(
                f"nothing below '{self.root}' names the classes of ilsvrc; expected {MAPPING}, train/<wnid>/, "
                f"{DEVKIT}/data/{META} or val/<wnid>/"
            )
        return tuple(sorted(found))

    def _label(self, wnid: str, where: str) -> int:
        if wnid not in self._labels:
            raise WsolbenchError(
                f"{where} has class '{wnid}', which is none of the {len(self.wnids)} known WordNet ids"
            )
        return self._labels[wnid]

    @cached_property
    def _labels(self) -> dict[str, int]:
        return {wnid: label for label, wnid in enumerate(self.wnids)}

    # --- train -------------------------------------------------------------------------------------------------------

    def _read_train(self) -> Metadata:
        if self.train is None:
            raise WsolbenchError(f"no images of ilsvrc/train below '{self.root}'; expected train/<wnid>/*.JPEG")
        ids: list[str] = []
        counts, labels = [], []
        for wnid in sorted(_classes_in(self.train)):
            names = sorted(name for name in os.listdir(self.train / wnid) if name.lower().endswith(PICTURES))
            ids += [f"train/{wnid}/{name}" for name in names]
            counts.append(len(names))
            labels.append(self._label(wnid, f"folder '{self.train}'"))
        if not ids:
            raise WsolbenchError(f"'{self.train}' holds no images; expected train/<wnid>/*.JPEG")
        return Metadata(self.train, ids, np.repeat(np.array(labels, np.int64), counts), images=self.train.parent)

    # --- val: ImageNetV2 ---------------------------------------------------------------------------------------------

    def _read_v2(self) -> Metadata:
        if self.v2 is None or self.v2_boxes is None:
            images = (
                f"its images lie in '{self.v2}', its boxes are missing"
                if self.v2
                else f"expected {V2_FOLDERS[0]}/<class>/"
            )
            raise WsolbenchError(
                f"val of ilsvrc is ImageNetV2 (threshold-0.7), {images} below '{self.root}': put the reference evaluator's "
                f"metadata/ILSVRC/val or {V2_BOXES[1]} there"
            )
        ids, labels, files = [], [], []
        for name in sorted(name for name in os.listdir(self.v2) if name.isdecimal()):  # the reference's order: as text
            if str(int(name)) != name or int(name) >= len(self.wnids):
                raise WsolbenchError(
                    f"folder '{self.v2 / name}': expected classes 0 .. {len(self.wnids) - 1}, not padded"
                )
            for file in sorted(file for file in os.listdir(self.v2 / name) if file.lower().endswith(PICTURES)):
                files.append(f"{name}/{file}")
                ids.append(f"val2/{name}/{file}")
                labels.append(int(name))  # the folder's name, not its rank
        lines = read_lines(self.v2_boxes, "image_id,x0,y0,x1,y1 per line")
        if lines.text[0].startswith("image_id"):
            lines.text[0] = ""  # the header; numbers of lines stay what they are
        numbers, where, boxes = Index(self.v2, files).place_integers(
            lines, 4, "<class>/<file>,<x0>,<y0>,<x1>,<y1>", once=False
        )
        boxes_M4, first_box, _ = boxes_per_image(lines, numbers, where, boxes, None, len(ids))
        return Metadata(
            self.v2,
            ids,
            np.array(labels, np.int64),
            boxes_M4=boxes_M4,
            first_box=first_box,
            images=self.v2,
            files=files,
            sources={"localization": self.v2_boxes},
        )

    # --- test: ILSVRC2012 val ----------------------------------------------------------------------------------------

    @cached_property
    def places(self) -> dict[str, str]:
        """The images of val that are there: name without extension to file, relative to the folder above val/."""
        assert self.val is not None
        folders = ["", *sorted(_classes_in(self.val))]
        return {
            found[1]: f"val/{folder}/{name}" if folder else f"val/{name}"
            for folder in folders
            for name in os.listdir(self.val / folder)
            if (found := VAL_NAME.fullmatch(name))
        }

    def _read_val(self) -> Metadata:
        if self.val is None:
            raise WsolbenchError(f"no images of ilsvrc/test below '{self.root}'; expected val/ILSVRC2012_val_*.JPEG")
        told = self._told()
        names = sorted(told)
        source = self.solution or self.truth or self.xml or self.val
        labels = np.array([self._label(told[name], f"'{source}': image '{name}'") for name in names], np.int64)
        for name in names:
            folder = Path(self.places.get(name, "")).parent.name
            if WNID.fullmatch(folder) and folder != told[name]:
                raise WsolbenchError(
                    f"image '{name}' is '{told[name]}' in '{source}', but lies in '{self.val / folder}'"
                )
        ids = [f"val/{name}.JPEG" for name in names]
        files = [self.places.get(name, id) for name, id in zip(names, ids, strict=True)]
        lists = Metadata(
            self.val,
            ids,
            labels,
            images=self.val.parent,
            files=None if files == ids else files,
            sources={"labels": source},
        )
        if self.xml is not None:
            paths = [self.xml / f"{name}.xml" for name in names]
            return replace(lists, located=AnnotationFiles(paths, partial(read_located, self.wnids)))
        if self._solution is None:
            raise WsolbenchError(
                f"no boxes of ILSVRC2012 val below '{self.root}'; expected {XML_FOLDERS[0]}/*.xml or {SOLUTION}"
            )
        return self._boxed(lists, names, self._solution)

    def _told(self) -> dict[str, str]:
        """The WordNet id of every validation image that the best list names, there or not."""
        if self._solution is not None:
            return self._solution.wnids
        if self.truth is not None and self.meta is not None:
            return read_truth(self.truth, read_devkit(self.meta))
        sorted_in = {name: Path(place).parent.name for name, place in self.places.items()}
        if sorted_in and all(map(WNID.fullmatch, sorted_in.values())):
            return sorted_in
        if self.xml is not None:
            return read_xml_labels(self.xml, sorted(self.places))
        if self.truth is not None:
            raise WsolbenchError(
                f"'{self.truth}' holds the devkit's numbers of classes, which have an order of their own; expected {META} of the "
                "devkit beside it"
            )
        raise WsolbenchError(
            f"no labels of ILSVRC2012 val below '{self.root}'; expected {SOLUTION}, {TRUTH} with {META}, val/<wnid>/ or "
            f"{XML_FOLDERS[0]}/*.xml"
        )

    @cached_property
    def _solution(self) -> Solution | None:
        return None if self.solution is None else read_solution(self.solution)

    @staticmethod
    def _boxed(lists: Metadata, names: Sequence[str], solution: Solution) -> Metadata:
        at = {name: index for index, name in enumerate(names)}
        where = np.array([at[name] for name in solution.names], np.int64)
        boxes_M4, first_box, _ = boxes_per_image(
            solution.lines, solution.numbers, where, solution.boxes_M4, None, len(names)
        )
        sources = {**lists.sources, "localization": solution.lines.path}
        return replace(lists, boxes_M4=boxes_M4, first_box=first_box, sources=sources)


def _classes_in(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:  # only folders count: the archive of a class may lie beside its folder
        return [entry.name for entry in entries if WNID.fullmatch(entry.name) and entry.is_dir()]


def _holds_val(folder: Path) -> bool:
    """Say whether ILSVRC2012 val lies there, flat or sorted; a class's folder may as well be of another data set."""
    if not folder.is_dir():
        return False
    inside = next((folder / name for name in sorted(_classes_in(folder))), folder)
    return any(
        VAL_NAME.fullmatch(name) for name in (*os.listdir(inside), *(os.listdir(folder) if inside != folder else ()))
    )


def _is_v2(folder: Path) -> bool:
    return folder.is_dir() and any(name.isdecimal() for name in os.listdir(folder))


def _first(folders: Sequence[Path], name: str) -> Path | None:
    return next((folder / name for folder in folders if (folder / name).is_file()), None)
