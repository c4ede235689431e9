"""Abstract `Dataset` and `Split`, and loaders whose randomness depends on nothing but (seed, epoch, sample id)."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from wsolbench.conventions import Geometry
from wsolbench.interrupt import leave_to_parent
from wsolbench.types import Annotation, Batch, Sample


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

    `ids` are unique; `labels` is int64 [n]. Samples and annotations are read lazily and separately.
    """

    ids: list[str]
    labels: npt.NDArray[np.int64]

    @abstractmethod
    def sample(self, index: int, augment: torch.Generator | None) -> Sample:
        """Sample in evaluation geometry (`augment` None) or augmented with randomness from the generator alone."""

    @abstractmethod
    def annotation(self, id: str) -> Annotation:
        """Localisation ground truth in original pixels."""

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
    from wsolbench.config import build_dataset_config
    from wsolbench.registry import DATASETS

    cls = cast(type[Dataset], DATASETS.get(name))
    return cls(build_dataset_config(cls, name, config), root=root)


def stable_seed(*parts: object) -> int:
    """A 63-bit seed from any printable parts, equal on every machine and in every process.

    >>> stable_seed(0, 1, "cat/7") == stable_seed(0, 1, "cat/7")
    True
    """
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


class _Augmented(TorchDataset[Sample]):
    """Images by (epoch, index): augmentation comes from (seed, epoch, id), whichever worker loads the image."""

    def __init__(self, split: Split, seed: int) -> None:
        self.split, self.seed = split, seed

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        seed = stable_seed("augment", self.seed, epoch, self.split.ids[index])
        return self.split.sample(index, torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class _Steps:
    """What each of the steps first .. last - 1 loads; an epoch's order is drawn from (seed, epoch)."""

    indices: Sequence[int]
    batch_size: int
    seed: int
    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        per_epoch = steps_per_epoch(len(self.indices), self.batch_size)
        step = self.first
        while step < self.last:
            epoch, done = divmod(step, per_epoch)
            random = np.random.RandomState(stable_seed("order", self.seed, epoch) % 2**32)
            order = [(epoch, self.indices[i]) for i in random.permutation(len(self.indices))]
            for at in range(done, min(per_epoch, done + self.last - step)):
                yield order[at * self.batch_size : (at + 1) * self.batch_size]
                step += 1


class _Plain(TorchDataset[Sample]):
    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Sample:
        return self.split[index]


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples into a batch."""
    return Batch(
        [sample.id for sample in samples],
        torch.stack([sample.image_CHW for sample in samples]),
        torch.tensor([sample.label for sample in samples], dtype=torch.int64),
    )


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Batches of an epoch: a last part batch is dropped unless it is the only one.

    >>> steps_per_epoch(10, 4), steps_per_epoch(3, 4)
    (2, 1)
    """
    return max(1, images // batch_size)


def train_steps(
    split: Split, indices: Sequence[int], *, batch_size: int, seed: int, first: int, last: int, workers: int = 0
) -> DataLoader[Any]:
    """The batches of optimizer steps first .. last - 1 over `indices`, through as many epochs as that takes.

    A step's batch is a function of (seed, step) alone, so training can go on from any step. One loader for all epochs:
    workers live through them, which few-shot training with its epochs of one step would not survive otherwise.
    """
    return DataLoader(
        _Augmented(split, seed),
        batch_sampler=_Steps(indices, batch_size, seed, first, last),
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=leave_to_parent,
        generator=torch.Generator().manual_seed(0),  # keeps the global generator untouched
    )


def train_batches(
    split: Split, indices: Sequence[int], *, batch_size: int, seed: int, epoch: int, workers: int = 0
) -> DataLoader[Any]:
    """One epoch of `train_steps`."""
    count = steps_per_epoch(len(indices), batch_size)
    return train_steps(
        split,
        indices,
        batch_size=batch_size,
        seed=seed,
        first=epoch * count,
        last=(epoch + 1) * count,
        workers=workers,
    )


class Subset(Split):
    """Some images of a split, by index, in that order; the others cannot be reached through it."""

    def __init__(self, split: Split, indices: Sequence[int]) -> None:
        self.parent, self.indices = split, list(indices)
        self.ids = [split.ids[i] for i in self.indices]
        self.labels = split.labels[self.indices]
        self._ids = set(self.ids)

    def sample(self, index: int, augment: torch.Generator | None) -> Sample:
        return self.parent.sample(self.indices[index], augment)

    def annotation(self, id: str) -> Annotation:
        if id not in self._ids:
            raise KeyError(f"'{id}' is not among the {len(self.ids)} images of this subset")
        return self.parent.annotation(id)


def eval_batches(split: Split, *, batch_size: int, workers: int = 0, skip: int = 0) -> Iterator[Batch]:
    """Batches of a split in order, starting after the first `skip` images (a multiple of the batch size)."""
    loader = DataLoader(
        _Plain(split),
        batch_size=batch_size,
        sampler=range(skip, len(split)),
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=leave_to_parent,
        generator=torch.Generator().manual_seed(0),
    )
    yield from loader
