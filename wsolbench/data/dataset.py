"""Abstract `Dataset`: what a data set must be able to say; and how one is opened by its name."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from wsolbench.conventions import Geometry
from wsolbench.data.split import Split
from wsolbench.options import build_dataset_config, deciding_text


@dataclass(frozen=True)
class DatasetInfo:
    """What a table must say of a data set, and what can be checked of a copy on someone's disk."""

    title: str
    citation: str
    licence: str
    revision: str  # moves when samples or annotations move
    class_names: tuple[str, ...]
    resolution_HW: tuple[int, int]  # the frame in which maps and boxes are compared
    counts: dict[str, int]  # images per split
    has_boxes: bool = True
    has_masks: bool = False
    geometry: Geometry = "resize"  # what of an image is seen in val and test: all of it, or the middle of a larger one
    expected_counts: dict[str, int] = field(default_factory=dict)  # images per split of a complete copy; {}: not known
    preprocessing: str = ""  # how an image becomes `resolution_HW`, in words
    url: str = ""  # where the data are described and asked for
    val_source: str = ""  # where the images that choose come from
    imagenet_overlap: str = ""  # what an ImageNet-pretrained backbone has seen of it; "": nothing is known

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


class Dataset(ABC):
    """Required: `info`, `split`. `Config` is a small dataclass of options (dials, variants)."""

    Config: ClassVar[type]
    splits: ClassVar[tuple[str, ...]] = ("train", "val", "test")

    def __init__(self, config: Any, *, root: str | Path | None = None) -> None:
        self.config = config
        self.root = None if root is None else Path(root)

    @property
    @abstractmethod
    def info(self) -> DatasetInfo: ...

    @abstractmethod
    def split(self, name: str) -> Split:
        """The split of a role; its images are read when asked for."""

    def fingerprint(self) -> str:
        """Hash over revision, options, ids and labels: two runs with equal fingerprints saw the same data.

        An option that is added later is YOUNG (`wsolbench.options`): at its default the fingerprint is what it was.
        """
        digest = hashlib.sha256(f"{self.info.revision}|{deciding_text(self.config)}".encode())
        for name in self.splits:
            split = self.split(name)
            digest.update(name.encode())
            digest.update("\n".join(split.ids).encode())
            digest.update(np.ascontiguousarray(split.labels).tobytes())
        return digest.hexdigest()


def create_dataset(name: str, *, root: str | Path | None = None, **config: Any) -> Dataset:
    """Build a registered data set.

    >>> create_dataset("badges").split("val")[0].image_CHW.shape
    torch.Size([3, 64, 64])
    """
    from wsolbench.registry import DATASETS

    cls = cast(type[Dataset], DATASETS.get(name))
    return cls(build_dataset_config(cls, name, config), root=root)
