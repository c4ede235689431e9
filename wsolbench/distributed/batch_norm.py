"""Batch norm over the images of all processes, whatever kind of batch norm a network has."""
# B images of a process's share, C channels

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from wsolbench.distributed.group import world
from wsolbench.distributed.tensors import add_up


def statistics_of_all(method: nn.Module) -> AbstractContextManager[object]:
    """The context for forward passes in training: batch norms take mean and variance over the images of all processes."""
    if world() == 1 or not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in method.modules()):
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
        return cast(Tensor, fused(input_BC, weight, bias, running_mean, running_var, eps, momentum, group, world()))
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
        add_up(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        add_up(total)
        return total


def _sum_over_processes(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)
    return total
