"""Abstract `Dataset` and `Split`, and loaders whose randomness depends on nothing but (seed, epoch, sample id)."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from wsolbench.interrupt import leave_to_parent
from wsolbench.types import Annotation, Batch, Sample


@dataclass(frozen=True)
class DatasetInfo:
    """What a table must say of a data set."""

    title: str
    citation: str
    licence: str
    revision: str  # moves when samples or annotations move
    class_names: tuple[str, ...]
    resolution_HW: tuple[int, int]  # the frame in which maps and boxes are compared
    counts: dict[str, int]  # images per split
    has_boxes: bool = True
    has_masks: bool = False

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
    """One epoch of a split: each image's augmentation comes from (seed, epoch, id), whichever worker loads it."""

    def __init__(self, split: Split, seed: int, epoch: int) -> None:
        self.split, self.seed, self.epoch = split, seed, epoch

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Sample:
        key = stable_seed("augment", self.seed, self.epoch, self.split.ids[index])
        return self.split.sample(index, torch.Generator().manual_seed(key))


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


def train_batches(
    split: Split, indices: Sequence[int], *, batch_size: int, seed: int, epoch: int, workers: int = 0, skip: int = 0
) -> DataLoader[Any]:
    """One epoch over `indices` in an order drawn from (seed, epoch), without its first `skip` batches.

    A last part batch is dropped unless it is the only one.
    """
    order = np.random.RandomState(stable_seed("order", seed, epoch) % 2**32).permutation(len(indices))
    chosen = [indices[i] for i in order]
    batch_size = min(batch_size, len(chosen))
    return DataLoader(
        _Augmented(split, seed, epoch),
        batch_size=batch_size,
        sampler=chosen[skip * batch_size :],
        drop_last=True,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=leave_to_parent,
        generator=torch.Generator().manual_seed(0),  # keeps the global generator untouched
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
