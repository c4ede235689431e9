"""Losses of a batch mean that is not linear need the mean over all processes and parts of a batch, not each one's own."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from wsolbench.whole_batch import passing


def global_mean(values: Tensor) -> Tensor:
    """Mean over the elements of all processes, and of all parts of a batch, differentiable in what is here of them.

    DistributedDataParallel averages gradients over R processes, so each contributes R * (its sum) / (global count):
    exact also where the processes hold different numbers of elements.
    """
    if (parts := passing()) is not None:  # train.accumulate
        return parts.of(values)
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return values.mean()
    totals = torch.stack([values.detach().double().sum(), values.new_tensor(values.numel(), dtype=torch.float64)])
    dist.all_reduce(totals)
    mean = (totals[0] / totals[1]).to(values.dtype)
    share = values.sum() * (dist.get_world_size() / totals[1]).to(values.dtype)
    return share + (mean - share).detach()
