"""Abstract `Dataset` and `Split`: what a data set must be able to say."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import torch

from wsolbench.conventions import Geometry
from wsolbench.data.loading import (
    ChosenImages,
    Images,
    SampledImages,
    collate,
    eval_batches,
    steps_per_epoch,
    train_batches,
    train_steps,
)
from wsolbench.system.hashing import stable_seed
from wsolbench.types import Annotation, Sample

__all__ = [
    "Dataset",
    "DatasetInfo",
    "Split",
    "Subset",
    "collate",
    "create_dataset",
    "eval_batches",
    "stable_seed",
    "steps_per_epoch",
    "train_batches",
    "train_steps",
]


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


class Split(ABC):
    """The images of one role ("train", "val", "test"), in a fixed order.

    `ids` are unique; `labels` is int64 [n]. Samples and annotations are read lazily and separately. A split that is not
    `annotated` has no localisation ground truth, for none of its images.
    """

    ids: list[str]
    labels: npt.NDArray[np.int64]
    annotated: bool = True

    @abstractmethod
    def sample(self, index: int, augment: torch.Generator | None) -> Sample:
        """Sample in evaluation geometry (`augment` None) or augmented with randomness from the generator alone."""

    @abstractmethod
    def annotation(self, id: str) -> Annotation:
        """Localisation ground truth in original pixels."""

    def for_loading(self) -> Images:
        """What loading processes are given of the split; a split that holds more than its images says less here."""
        return SampledImages(self)

    def picture(self, index: int) -> npt.NDArray[np.uint8]:
        """The image as it was stored, uint8 RGB [H, W, 3], for what looks at pixels without a network.

        Unless a split knows better, its sample's image with its own range of values stretched to 0 .. 255.
        """
        image_CHW = self.sample(index, None).image_CHW.numpy()
        low, high = image_CHW.min(), image_CHW.max()
        stretched = np.rint((image_CHW - low) * (255 / max(high - low, 1e-12))).transpose(1, 2, 0)
        return np.asarray(stretched, np.uint8)

    def __getitem__(self, index: int) -> Sample:
        return self.sample(index, None)

    def __len__(self) -> int:
        return len(self.ids)


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
        """Hash over revision, options, ids and labels: two runs with equal fingerprints saw the same data."""
        digest = hashlib.sha256(f"{self.info.revision}|{self.config!r}".encode())
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
    from wsolbench.config.schema import build_dataset_config
    from wsolbench.registry import DATASETS

    cls = cast(type[Dataset], DATASETS.get(name))
    return cls(build_dataset_config(cls, name, config), root=root)


class Subset(Split):
    """Some images of a split, by index, in that order; the others cannot be reached through it."""

    def __init__(self, split: Split, indices: Sequence[int]) -> None:
        self.parent, self.indices = split, list(indices)
        self.ids = [split.ids[i] for i in self.indices]
        self.labels = split.labels[self.indices]
        self.annotated = split.annotated
        self._ids = set(self.ids)

    def sample(self, index: int, augment: torch.Generator | None) -> Sample:
        return self.parent.sample(self.indices[index], augment)

    def for_loading(self) -> Images:
        return ChosenImages(self.parent.for_loading(), self.indices)

    def picture(self, index: int) -> npt.NDArray[np.uint8]:
        return self.parent.picture(self.indices[index])

    def annotation(self, id: str) -> Annotation:
        if id not in self._ids:
            raise KeyError(f"'{id}' is not among the {len(self.ids)} images of this subset")
        return self.parent.annotation(id)
