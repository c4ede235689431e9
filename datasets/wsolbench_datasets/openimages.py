"""OpenImages30k: images of one class each, with instance masks, from Open Images V5, as the reference evaluator draws them.

From the reference metadata only: which images of Open Images are taken, and which regions are ignored, is written nowhere
else. Of Open Images itself only the image and mask files are needed, in the folders that the metadata names.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import ClassVar, final

from wsolbench.registry import register_dataset
from wsolbench_datasets.listed.reference import ReferenceDataset

RAW = ("*annotations-object-segmentation.csv", "*annotations-bbox.csv", "class-descriptions*.csv", "oidv*.csv")


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
    url = "https://storage.googleapis.com/openimages/web/index.html"
    val_source = "OpenImages30k val, curated by the authors of the reference evaluator"
    complete: ClassVar[dict[str, int]] = {"train": 29_819, "val": 2_500, "test": 5_000}

    @staticmethod
    def class_name(id: str) -> str | None:
        """The machine id of the class, the last folder of `test/01226z/7af766bd43da900b.jpg`."""
        return PurePosixPath(id).parent.name or None

    def hint(self) -> str:
        assert self.root is not None
        found = next((path for pattern in RAW for path in sorted(self.root.glob(pattern))), None)
        if found is None:
            return ""
        return f"; '{found.name}' is of Open Images itself, which does not tell the images and ignored regions of OpenImages30k"
