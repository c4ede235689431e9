"""Losses of a batch mean that is not linear need the mean over all processes and parts of a batch, not each one's own."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor

from wsolbench.method.means import added_up, mean_over, passing, processes


def global_mean(values: Tensor) -> Tensor:
    """Mean over the elements of all processes, and of all parts of a batch, differentiable in what is here of them."""
    if (parts := passing()) is not None:  # train.accumulate
        return parts.of(values)
    if processes() == 1:
        return values.mean()
    totals = added_up(values)
    dist.all_reduce(totals)
    return mean_over(values, totals)
