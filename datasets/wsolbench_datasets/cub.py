"""CUB: Caltech-UCSD Birds-200-2011 with the splits of the reference evaluator; val is CUBV2, collected by its authors."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import final

from wsolbench.registry import register_dataset
from wsolbench_datasets._reference import ReferenceDataset


@register_dataset("cub")
@final
class Cub(ReferenceDataset):
    """Birds of 200 species, one box each (5,994 / 1,000 / 5,794 images), from the reference metadata."""

    NAME = "CUB"
    title = "CUB-200-2011, CUBV2 as val"
    citation = (
        "Wah, Branson, Welinder, Perona, Belongie: The Caltech-UCSD Birds-200-2011 Dataset, CNS-TR-2011-001, 2011. "
        "CUBV2 and splits: Choe et al., Evaluating Weakly Supervised Object Localization Methods Right, CVPR 2020."
    )
    licence = "images from Flickr, for non-commercial research and education; nothing is redistributed here"

    @staticmethod
    def class_name(id: str) -> str | None:
        """The folder of the class, `001.Black_footed_Albatross`."""
        return PurePosixPath(id).parts[0]
