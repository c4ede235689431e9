"""Training in several processes that gives the gradients of one: each takes its share of every batch.

DistributedDataParallel averages gradients over processes. So what a loss says of a process's own images is weighted by its
share of the batch, which makes the average exact for unequal shares too; losses that a method takes over the images of all
processes (`Method.global_losses`) are that already. Batch norm's statistics are those of the whole batch.
"""

# B images of a process's share, C channels

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from wsolbench.distributed import group as dist
from wsolbench.errors import UsageError

if TYPE_CHECKING:
    from wsolbench.method.base import Method
    from wsolbench.types import Batch

Losses = dict[str, Tensor]


def check_shares(batch_size: int, parts: int = 1) -> None:
    """Refuse batches of which a process would get nothing, or fewer images than the parts it has to take them in."""
    if dist.world() > 1 and batch_size < dist.world() * parts:
        in_parts = f" in {parts} parts each (train.accumulate)" if parts > 1 else ""
        raise UsageError(
            f"a batch of {batch_size} images cannot be shared by {dist.world()} processes{in_parts}: start at most "
            f"{batch_size // parts or 1}, or raise train.batch_size"
        )


class Replica:
    """The method as it is called for its losses: as it is, or such that `backward` averages gradients over processes.

    Among several it starts from the leader's weights. The names of the method's state stay as they are.
    """

    def __init__(self, method: Method, device: torch.device) -> None:
        self._call: nn.Module = method
        if dist.world() > 1:
            from torch.nn.parallel import DistributedDataParallel

            dist.share_weights(method)
            ids = [device] if device.type == "cuda" else None
            known = inspect.signature(DistributedDataParallel).parameters
            buffers: Any = {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False}
            self._call = DistributedDataParallel(method, device_ids=ids, init_sync=False, **buffers)

    def __call__(self, batch: Batch, *, exchange: bool = True) -> Losses:
        """The losses; `exchange=False`: of a part of a batch whose gradients are only added up, since more will come."""
        with nullcontext() if exchange or dist.world() == 1 else cast(Any, self._call).no_sync():
            return cast(Losses, self._call(batch))


def weigh(losses: Losses, method: Method, own: float, shared: float = 1.0) -> Losses:
    """The losses as they count: those of the process's own images times `own`, those of all processes' times `shared`."""
    weights = {name: shared if name in method.global_losses else own for name in losses}
    return {name: value if weights[name] == 1.0 else weights[name] * value for name, value in losses.items()}


def statistics_of_all(method: nn.Module) -> AbstractContextManager[object]:
    """The context for forward passes in training: batch norms take mean and variance over the images of all processes."""
    if dist.world() == 1 or not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in method.modules()):
        return nullcontext()
    return _StatisticsOfAll()


def statistics_again() -> AbstractContextManager[object]:
    """What the running forward pass has: `statistics_of_all`, or nothing. For computing a part of it once more later."""
    return _StatisticsOfAll() if _StatisticsOfAll.blocks else nullcontext()


class _StatisticsOfAll(TorchFunctionMode):
    """Replaces the function under every kind of batch norm, so no module has to be exchanged for another.

    torch's SyncBatchNorm takes tensors on a GPU only, and exchanging modules loses what subclasses (timm's) add.
    """

    blocks: ClassVar[int] = 0
    """How many are being run through."""

    def __enter__(self) -> Any:
        _StatisticsOfAll.blocks += 1
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: object) -> None:
        _StatisticsOfAll.blocks -= 1
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        return (_batch_norm if func is F.batch_norm else func)(*args, **(kwargs or {}))


def _batch_norm(
    input_BC: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.batch_norm` over the images of all processes; of any number of trailing dimensions."""
    if not training:
        return F.batch_norm(input_BC, running_mean, running_var, weight, bias, False, momentum, eps)
    if input_BC.is_cuda:  # torch's own, fused; what `nn.SyncBatchNorm` calls
        from torch.nn.modules._functions import SyncBatchNorm

        group = torch.distributed.group.WORLD
        fused: Any = SyncBatchNorm.apply
        return cast(
            Tensor, fused(input_BC, weight, bias, running_mean, running_var, eps, momentum, group, dist.world())
        )
    values = input_BC.float()
    dims = [0, *range(2, values.ndim)]
    shape = [1, -1] + [1] * (values.ndim - 2)
    count = _sum_over_processes(values.new_tensor(values.numel() / values.shape[1]))
    mean_C = _sum_over_processes(values.sum(dims)) / count
    centred = values - mean_C.view(shape)
    var_C = _sum_over_processes((centred * centred).sum(dims)) / count  # of the centred: no cancellation
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean_C.to(running_mean.dtype), momentum)
            running_var.lerp_((var_C * (count / (count - 1))).to(running_var.dtype), momentum)
    out = centred * (var_C + eps).rsqrt().view(shape)
    if weight is not None:
        out = out * weight.view(shape)
    if bias is not None:
        out = out + bias.view(shape)
    return out.to(input_BC.dtype)


class _Sum(torch.autograd.Function):
    """Sum over processes; so is its gradient, since every process's loss depends on every process's value."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        torch.distributed.all_reduce(total)
        return total


def _sum_over_processes(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)
    return total
