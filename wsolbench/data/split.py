"""Abstract `Split`, the images of one role; some of them alone; and what loading processes are given of either (`Images`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from wsolbench.data.batches import collate
from wsolbench.data.pictures import Pixels, pixels
from wsolbench.types import Annotation, Batch, Sample


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

    def picture(self, index: int) -> Pixels:
        """The image as it was stored, uint8 RGB [H, W, 3], for what looks at pixels without a network.

        Unless a split knows better, its sample's image with its own range of values stretched to 0 .. 255.
        """
        return pixels(self.sample(index, None).image_CHW)

    def __getitem__(self, index: int) -> Sample:
        return self.sample(index, None)

    def __len__(self) -> int:
        return len(self.ids)


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

    def picture(self, index: int) -> Pixels:
        return self.parent.picture(self.indices[index])

    def annotation(self, id: str) -> Annotation:
        if id not in self._ids:
            raise KeyError(f"'{id}' is not among the {len(self.ids)} images of this subset")
        return self.parent.annotation(id)


class Images(ABC):
    """What a loading process holds of a split. Keep it small: each process has one, and pickles it where it is not forked."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def id(self, index: int) -> str: ...

    @abstractmethod
    def batch(self, indices: Sequence[int], augment: Sequence[torch.Generator] | None = None) -> Batch:
        """The images at `indices`, as the split's samples are; augmented from one generator each, if there are any."""

    def warm_up(self) -> None:  # noqa: B027  # most have nothing to do
        """Import and compile what loading takes: asked for before processes are forked, which then need not."""


class SampledImages(Images):
    """The images of any split, one sample at a time."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def id(self, index: int) -> str:
        return self.split.ids[index]

    def batch(self, indices: Sequence[int], augment: Sequence[torch.Generator] | None = None) -> Batch:
        generators = [None] * len(indices) if augment is None else augment
        return collate([self.split.sample(index, each) for index, each in zip(indices, generators, strict=True)])


class ChosenImages(Images):
    """Some images of others, by index, in that order."""

    def __init__(self, images: Images, indices: Sequence[int]) -> None:
        self.images, self.indices = images, torch.tensor(indices, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def id(self, index: int) -> str:
        return self.images.id(int(self.indices[index]))

    def batch(self, indices: Sequence[int], augment: Sequence[torch.Generator] | None = None) -> Batch:
        return self.images.batch(self.indices[list(indices)].tolist(), augment)

    def warm_up(self) -> None:
        self.images.warm_up()
