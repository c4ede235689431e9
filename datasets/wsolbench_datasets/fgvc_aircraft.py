"""FGVC-Aircraft 2013b: 100 variants of aircraft, one box an image, as SAT evaluates on them.

Below --root: fgvc-aircraft-2013b/data/ with images/<7 digits>.jpg, variants.txt, images_variant_{train,val,test}.txt and
images_box.txt. Train is the archive's train and val together (6,667 images), which SAT trains on; val is `dataset.holdout`
images of it, drawn by seed, as for the other sets without boxes to choose on. Classes are the lines of variants.txt; their
names hold blanks and slashes. Images keep the banner of about 20 pixels at their lower edge, as SAT's do.

Boxes are documented to count from 1, but a list in use has zeros: the file is read as counting from 0 if any coordinate in it
is 0, else from 1. Here they start at 0.
"""
# n images, M boxes of all images

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, final

import numpy as np

from wsolbench.data.ids import EXPECTED, is_safe
from wsolbench.data.lists import NUMBER, Index, Ints, boxes_per_image, read_lines
from wsolbench.data.metadata import Metadata
from wsolbench.registry import register_dataset
from wsolbench_datasets.listed.archive import ArchiveDataset

BOXES, VARIANTS = "images_box.txt", "variants.txt"
PARTS = {"train": ("train", "val"), "test": ("test",)}


@register_dataset("fgvc_aircraft")
@final
class FgvcAircraft(ArchiveDataset):
    """Aircraft of 100 variants, one box each (6,667 train, of which val is held out, and 3,333 test images)."""

    folders = ("fgvc-aircraft-2013b/data", "data", "fgvc_aircraft/data", "fgvc_aircraft/fgvc-aircraft-2013b/data")
    layouts = (("images", VARIANTS, BOXES),)
    title = "FGVC-Aircraft 2013b (variants)"
    citation = "Maji, Rahtu, Kannala, Blaschko, Vedaldi: Fine-Grained Visual Classification of Aircraft, arXiv:1306.5151, 2013."
    licence = "images by their photographers, for non-commercial research; nothing is redistributed here"
    url = "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/"
    complete: ClassVar[dict[str, int]] = {"train": 6_667, "test": 3_333}

    def class_names(self) -> tuple[str, ...]:
        return tuple(self._classes)

    def list_files(self) -> Sequence[tuple[str, Path]]:
        lists = [_variants(part) for parts in PARTS.values() for part in parts]
        return self.named([self.folder / name for name in (VARIANTS, BOXES, *lists)])

    def read_lists(self, name: str) -> Metadata:
        """In the order of the lists, the archive's train before its val."""
        lists = self._everything
        ranges = self._parts
        return lists.subset([index for part in PARTS[name] for index in ranges[part]])

    @cached_property
    def _classes(self) -> dict[str, int]:
        lines = read_lines(self.folder / VARIANTS, "one variant per line")
        classes: dict[str, int] = {}
        for number, line in enumerate(lines.text, 1):
            if line.strip() in classes:
                lines.refuse(number, "each variant once")
            if line.strip():
                classes[line.strip()] = len(classes)
        return classes

    @cached_property
    def _listed(self) -> tuple[dict[str, int], dict[str, range]]:
        """Labels by number of image, and where each part of the archive stands among them."""
        labels: dict[str, int] = {}
        parts = {}
        for part in ("train", "val", "test"):
            start = len(labels)
            lines = read_lines(self.folder / _variants(part), f"{VARIANTS}, {BOXES} and {_variants(part)}")
            for at, line in enumerate(lines.text, 1):
                if not line:
                    continue
                number, _, variant = line.partition(" ")  # once: names of variants hold blanks
                if not is_safe(number):
                    lines.refuse(at, f"<image> <variant>, the image {EXPECTED}")
                if variant.strip() not in self._classes:
                    lines.refuse(at, f"<image> <variant>, the variant one of {VARIANTS}")
                if number in labels:
                    lines.refuse(at, "each image once in all lists, but an earlier line names this one too")
                labels[number] = self._classes[variant.strip()]
            parts[part] = range(start, len(labels))
        return labels, parts

    @property
    def _parts(self) -> dict[str, range]:
        return self._listed[1]

    @cached_property
    def _everything(self) -> Metadata:
        labels, _ = self._listed
        lines = read_lines(self.folder / BOXES, "<image> <xmin> <ymin> <xmax> <ymax> per line")
        index = Index(self.folder / "images_variant_*.txt", list(labels), separator=" ")
        numbers, where, corners = index.place_integers(lines, 4, "<image> <xmin> <ymin> <xmax> <ymax>", number=NUMBER)
        boxes_M4, first_box, _ = boxes_per_image(lines, numbers, where, _from_zero(corners), None, len(labels))
        ids = [f"{number}.jpg" for number in labels]
        return Metadata(
            self.folder,
            ids,
            np.array(list(labels.values()), np.int64),
            boxes_M4=boxes_M4,
            first_box=first_box,
            images=self.folder / "images",
            sources={"labels": self.folder, "localization": lines.path},
        )


def _variants(part: str) -> str:
    return f"images_variant_{part}.txt"


def _from_zero(corners: Ints) -> Ints:
    """Boxes that count from 0, whichever the file counts from."""
    return corners - 1 if corners.min() >= 1 else corners
