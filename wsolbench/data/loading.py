"""Batches of a split, loaded here or in other processes; randomness depends on nothing but (seed, epoch, sample id)."""
# B images of a batch, C channels, H W image

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from wsolbench.data.ids import images_named
from wsolbench.data.split import Images, Split
from wsolbench.data.workers import from_workers
from wsolbench.errors import WsolbenchError
from wsolbench.system.hashing import stable_seed
from wsolbench.system.interrupt import leave_to_parent
from wsolbench.types import Batch

Share = tuple[int, int]  # of process number i among n
ALL: Share = (0, 1)


# --- loaders ---------------------------------------------------------------------------------------------------------


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Batches of an epoch: a last part batch is dropped unless it is the only one.

    >>> steps_per_epoch(10, 4), steps_per_epoch(3, 4)
    (2, 1)
    """
    return max(1, images // batch_size)


def train_steps(
    split: Split,
    indices: Sequence[int],
    *,
    batch_size: int,
    seed: int,
    first: int,
    last: int,
    workers: int = 0,
    pin: bool = False,
    share: Share = ALL,
) -> Iterator[Batch]:
    """The batches of optimizer steps first .. last - 1 over `indices`, through as many epochs as that takes.

    A step's batch is a function of (seed, step) alone, so training can go on from any step. One loader for all epochs:
    workers live through them, which few-shot training with its epochs of one step would not survive otherwise. `pin`
    gives page-locked memory, from which a CUDA device copies while the processor goes on. Of each batch a process among
    several takes its share: a run of images, as many as the others have or one more or less.
    """
    images = split.for_loading()
    steps = _Steps(indices, batch_size, seed, first, last, share)

    def waiting(count: int) -> str:
        keys = next(islice(iter(steps), count, None))
        return (
            f"epoch {keys[0][0] + 1}, step {first + count + 1}, {images_named([images.id(index) for _, index in keys])}"
        )

    watched = partial(from_workers, option="train.workers", waiting=waiting)
    return _batches(_Augmented(images, seed), images, workers, pin, watched, batch_sampler=steps)


def train_batches(
    split: Split, indices: Sequence[int], *, batch_size: int, seed: int, epoch: int, workers: int = 0
) -> Iterator[Batch]:
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


def eval_batches(
    split: Split, *, batch_size: int, workers: int = 0, skip: int = 0, pin: bool = False, share: Share = ALL
) -> Iterator[Batch]:
    """Batches of a split in order, starting after the first `skip` images (a multiple of the batch size).

    Among several processes the first takes the first batch, the second the second, and so on, in turn: the batches are
    those of one process, and no image is seen twice.
    """
    images = split.for_loading()
    number, count = share
    starts = range(skip, len(split), batch_size)[number::count]
    order = [range(start, min(start + batch_size, len(split))) for start in starts]

    def waiting(count: int) -> str:
        return images_named([images.id(index) for index in order[count]])

    watched = partial(from_workers, option="evaluate.workers", waiting=waiting)
    yield from _batches(_Plain(images), images, workers, pin, watched, batch_sampler=order)


def _batches(
    dataset: TorchDataset[Any],
    images: Images,
    workers: int,
    pin: bool,
    watched: Callable[[Any], Iterator[Batch]],
    **order: Any,
) -> Iterator[Batch]:
    """What the workers have loaded."""
    if workers:
        images.warm_up()
    loader = DataLoader(
        dataset,
        collate_fn=_as_it_is,
        num_workers=workers,
        worker_init_fn=_begin_worker,
        pin_memory=pin,
        generator=torch.Generator().manual_seed(0),  # keeps the global generator untouched
        **order,
    )
    yield from watched(loader)


def _begin_worker(worker: int) -> None:
    import cv2

    leave_to_parent(worker)
    cv2.setNumThreads(0)  # its threads do not survive a fork, and workers are the threads


def _as_it_is(batch: Any) -> Any:
    return batch


class _Loaded(TorchDataset[Batch | WsolbenchError]):
    """Whole batches; or what is wrong: torch would raise a worker's error again with its traceback as the message."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def load(self, indices: Sequence[int], augment: Sequence[torch.Generator] | None) -> Batch | WsolbenchError:
        try:
            return self.images.batch(indices, augment)
        except WsolbenchError as error:
            return error


class _Plain(_Loaded):
    def __getitems__(self, indices: Sequence[int]) -> Batch | WsolbenchError:
        return self.load(indices, None)


class _Augmented(_Loaded):
    """Images by (epoch, index): augmentation comes from (seed, epoch, id), whichever worker loads the image."""

    def __init__(self, images: Images, seed: int) -> None:
        super().__init__(images)
        self.seed = seed

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch | WsolbenchError:
        seeds = [stable_seed("augment", self.seed, epoch, self.images.id(index)) for epoch, index in keys]
        return self.load([index for _, index in keys], [torch.Generator().manual_seed(seed) for seed in seeds])


@dataclass(frozen=True)
class _Steps:
    """What each of the steps first .. last - 1 loads; an epoch's order is drawn from (seed, epoch)."""

    indices: Sequence[int]
    batch_size: int
    seed: int
    first: int
    last: int
    share: Share = ALL

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        per_epoch = steps_per_epoch(len(self.indices), self.batch_size)
        step = self.first
        while step < self.last:
            epoch, done = divmod(step, per_epoch)
            random = np.random.RandomState(stable_seed("order", self.seed, epoch) % 2**32)
            order = random.permutation(len(self.indices))
            for at in range(done, min(per_epoch, done + self.last - step)):
                chosen = order[at * self.batch_size : (at + 1) * self.batch_size].tolist()
                yield [(epoch, self.indices[i]) for i in _shared(chosen, self.share)]
                step += 1


def _shared(batch: list[int], share: Share) -> list[int]:
    number, count = share
    return batch[number * len(batch) // count : (number + 1) * len(batch) // count]
