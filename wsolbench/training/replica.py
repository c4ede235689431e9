"""Training in several processes that gives the gradients of one: each takes its share of every batch.

DistributedDataParallel averages gradients over processes. So what a loss says of a process's own images is weighted by its
share of the batch, which makes the average exact for unequal shares too; losses that a method takes over the images of all
processes (`Method.global_losses`) are that already. Batch norm's statistics are those of the whole batch.
"""

# B images of a process's share, C channels

from __future__ import annotations

import inspect
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from wsolbench import distributed
from wsolbench.errors import UsageError

if TYPE_CHECKING:
    from wsolbench.method.base import Method
    from wsolbench.types import Batch

Losses = dict[str, Tensor]


def check_shares(batch_size: int, parts: int = 1) -> None:
    """Refuse batches of which a process would get nothing, or fewer images than the parts it has to take them in."""
    if distributed.world() > 1 and batch_size < distributed.world() * parts:
        in_parts = f" in {parts} parts each (train.accumulate)" if parts > 1 else ""
        raise UsageError(
            f"a batch of {batch_size} images cannot be shared by {distributed.world()} processes{in_parts}: start at most "
            f"{batch_size // parts or 1}, or raise train.batch_size"
        )


class Replica:
    """The method as it is called for its losses: as it is, or such that `backward` averages gradients over processes.

    Among several it starts from the leader's weights. The names of the method's state stay as they are.
    """

    def __init__(self, method: Method, device: torch.device) -> None:
        self._call: nn.Module = method
        if distributed.world() > 1:
            from torch.nn.parallel import DistributedDataParallel

            distributed.share_weights(method)
            ids = [device] if device.type == "cuda" else None
            known = inspect.signature(DistributedDataParallel).parameters
            buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
            # what is equal already need not be sent; torch 2.6 cannot be told, and sends the weights once more
            unsent: Any = {name: False for name in (buffers, "init_sync") if name in known}
            self._call = DistributedDataParallel(method, device_ids=ids, **unsent)

    def __call__(self, batch: Batch, *, exchange: bool = True) -> Losses:
        """The losses; `exchange=False`: of a part of a batch whose gradients are only added up, since more will come."""
        with nullcontext() if exchange or distributed.world() == 1 else cast(Any, self._call).no_sync():
            return cast(Losses, self._call(batch))


def weigh(losses: Losses, method: Method, own: float, shared: float = 1.0) -> Losses:
    """The losses as they count: those of the process's own images times `own`, those of all processes' times `shared`."""
    weights = {name: shared if name in method.global_losses else own for name in losses}
    return {name: value if weights[name] == 1.0 else weights[name] * value for name, value in losses.items()}
