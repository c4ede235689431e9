"""Tensors that all processes share: weights, sums, means.

`sharing` and `add_up` also serve a method in someone else's training loop, where torch has a group and we have none.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from wsolbench.distributed.group import current, speaking

if TYPE_CHECKING:  # imported where a group is there
    import torch
    from torch import nn


def share_weights(module: nn.Module) -> None:
    """Give every process the leader's parameters and buffers."""
    if current() is None:
        return
    import torch
    import torch.distributed as dist

    with speaking(), torch.no_grad():
        for value in module.state_dict().values():
            dist.broadcast(value, src=0)


def mean(values: torch.Tensor) -> torch.Tensor:
    """The mean of the processes' values, without gradients."""
    if current() is None:
        return values
    import torch.distributed as dist

    with speaking() as group:
        total = values.detach().clone()
        dist.all_reduce(total)
        return total / group.world


def sharing() -> int:
    """How many processes share a batch: ours, or those of whoever set up torch's default group."""
    import torch.distributed as dist

    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def add_up(values: torch.Tensor) -> None:
    """Replace the values by their sum over all processes that share a batch; a process that is lost is told as such.

    Raises:
        LostProcess: another of our processes cannot be reached.
    """
    import torch.distributed as dist

    with nullcontext() if current() is None else speaking():
        dist.all_reduce(values)
