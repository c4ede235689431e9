"""Means over a whole batch of which only a part is here: others are in other processes, or not in memory yet.

|mean - lambda| over a batch is no mean over its parts: parts above and below lambda cancel in the batch alone. Its gradient
needs the batch's mean before the first part is learned from. So the parts pass twice: without gradients, to add up what the
means are made of, and again with the means known. Over several processes the sums are those of all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from wsolbench.distributed.tensors import add_up, sharing


class Means:
    """The means that a loss takes over its batch, in the order in which it asks for them."""

    def __init__(self) -> None:
        self._totals: list[Tensor] = []  # sum and number of elements, float64, over the parts that have passed
        self._asked = 0  # by the part that passes now
        self._share: float | None = None  # of the batch's images in that part; None: sums are still added up

    def of(self, values: Tensor) -> Tensor:
        """The mean of all parts' values, differentiable in this part's, whose loss counts as its share of the images."""
        at, self._asked = self._asked, self._asked + 1
        if self._share is None:
            total = added_up(values)
            if at == len(self._totals):
                self._totals.append(total)
            else:
                self._totals[at] = self._totals[at] + total
            return values.mean()
        return mean_over(values, self._totals[at], self._share)

    @contextmanager
    def passing(self, share: float | None = None) -> Iterator[None]:
        """A part passes: without its share to be added up, with it to be learned from."""
        global _passing
        self._asked, self._share, _passing = 0, share, self
        try:
            yield
        finally:
            _passing = None

    def complete(self) -> None:
        """All parts have been added up here; now those of the other processes."""
        if sharing() > 1:
            for total in self._totals:
                add_up(total)


_passing: Means | None = None


def passing() -> Means | None:
    """The means of the batch of which a part passes just now; None: batches are whole."""
    return _passing


def added_up(values: Tensor) -> Tensor:
    """Sum and number of the elements here, float64 [2], without gradients."""
    return torch.stack([values.detach().double().sum(), values.new_tensor(values.numel(), dtype=torch.float64)])


def mean_over(values: Tensor, totals: Tensor, share: float = 1.0) -> Tensor:
    """The mean that `totals` (as `added_up`, of all processes and parts) make, differentiable in the elements here.

    DistributedDataParallel averages gradients over R processes, so each contributes R * (its sum) / (global count): exact
    also where they hold different numbers of elements. `share`: what the loss of this part is going to be multiplied by.
    """
    total, count = totals.unbind()
    own = values.sum() * (sharing() / (share * count)).to(values.dtype)
    return own + ((total / count).to(values.dtype) - own).detach()


def global_mean(values: Tensor) -> Tensor:
    """Mean over the elements of all processes, and of all parts of a batch, differentiable in what is here of them."""
    if (parts := passing()) is not None:  # train.accumulate
        return parts.of(values)
    if sharing() == 1:
        return values.mean()
    totals = added_up(values)
    add_up(totals)
    return mean_over(values, totals)
