"""OpenImages30k: images of one class each, with instance masks, from Open Images V5, as the reference evaluator draws them."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import final

from wsolbench.registry import register_dataset
from wsolbench_datasets._reference import ReferenceDataset


@register_dataset("openimages")
@final
class OpenImages(ReferenceDataset):
    """Objects of 100 classes with masks and no boxes (29,819 / 2,500 / 5,000 images), from the reference metadata."""

    NAME = "OpenImages"
    title = "OpenImages30k"
    citation = (
        "Benenson, Popov, Ferrari: Large-scale interactive object segmentation with human annotators, CVPR 2019. "
        "Subset and splits: Choe et al., Evaluating Weakly Supervised Object Localization Methods Right, CVPR 2020."
    )
    licence = "images listed as CC BY 2.0, annotations CC BY 4.0 (Google); nothing is redistributed here"

    @staticmethod
    def class_name(id: str) -> str | None:
        """The machine id of the class, the last folder of `test/01226z/7af766bd43da900b.jpg`."""
        return PurePosixPath(id).parent.name or None
