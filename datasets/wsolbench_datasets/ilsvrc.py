"""ILSVRC: ImageNet's 1,000 classes with the splits of the reference evaluator; val is ImageNetV2, test is ILSVRC2012 val."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import final

from wsolbench.metadata import LABELS
from wsolbench.registry import register_dataset
from wsolbench_datasets._reference import ReferenceDataset

_WNID = re.compile(r"(?:^|/)(n\d{8})/")


@register_dataset("ilsvrc")
@final
class Ilsvrc(ReferenceDataset):
    """ImageNet, one or more boxes an image (1,281,167 / 10,000 / 50,000 images), from the reference metadata."""

    NAME = "ILSVRC"
    title = "ILSVRC2012, ImageNetV2 (threshold-0.7) as val"
    citation = (
        "Russakovsky et al.: ImageNet Large Scale Visual Recognition Challenge, IJCV 2015. Recht, Roelofs, Schmidt, "
        "Shankar: Do ImageNet Classifiers Generalize to ImageNet?, ICML 2019. Boxes of ImageNetV2 and splits: Choe et "
        "al., Evaluating Weakly Supervised Object Localization Methods Right, CVPR 2020."
    )
    licence = "ImageNet's terms of access (non-commercial research); nothing is redistributed here"

    @staticmethod
    def class_name(id: str) -> str | None:
        """The WordNet id of the class's folder; only the training images lie in such folders."""
        found = _WNID.search(id)
        return found and found[1]

    def named_classes(self, split: str) -> Iterator[tuple[int, str | None]]:
        """As the shared one; the 1.28 million lines of the training split are skimmed, not kept."""
        if split != "train":
            yield from super().named_classes(split)
            return
        with (self.metadata / split / LABELS).open(encoding="utf-8-sig") as lines:
            for line in lines:
                id, _, label = line.strip().rpartition(",")
                if (name := self.class_name(id)) and label.isdecimal():
                    yield int(label), name
