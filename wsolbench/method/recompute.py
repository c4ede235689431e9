"""Gradient checkpointing of a network: activations are computed again in the backward pass, and the result stays the same."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from wsolbench.distributed.batch_norm import statistics_again


def recompute_activations(network: nn.Module, enable: bool = True) -> bool:
    """Switch on (or off) timm's `set_grad_checkpointing`; False: the network has none.

    Batch norms see the second computation of a batch too, but count it once: their running statistics stay what they
    would be without. Among several processes it takes its statistics from where the first computation took them.
    """
    switch = getattr(network, "set_grad_checkpointing", None)
    try:
        if switch is None:
            return False
        switch(enable)
    except AssertionError:  # how timm's networks say that they cannot
        return False
    for part in network.modules() if enable else ():  # hooks that stay behind do nothing outside of backward passes
        if isinstance(part, _BatchNorm) and part.track_running_stats and not _is_hooked(part):
            counted = _CountedOnce(part.momentum)
            part.register_forward_pre_hook(counted.before)
            part.register_forward_hook(counted.after, always_call=True)
    return True


def _is_hooked(norm: nn.Module) -> bool:
    return any(isinstance(getattr(hook, "__self__", None), _CountedOnce) for hook in norm._forward_hooks.values())


class _CountedOnce:
    """Hooks of a batch norm that make it compute a batch twice alike, and forget the second time."""

    def __init__(self, momentum: float | None) -> None:
        self.momentum = momentum
        self.is_second = False
        self.statistics: AbstractContextManager[object] = nullcontext()

    def before(self, norm: Any, inputs: Any) -> None:
        if torch.compiler.is_compiling() or not norm.training:
            return  # a compiled graph updates buffers once by itself
        # A forward pass inside a backward pass is a second one. On a GPU it runs in another thread: contexts are gone.
        self.is_second = torch._C._current_graph_task_id() != -1
        if self.is_second:
            norm.momentum = 0.0
            self.statistics.__enter__()
        else:
            self.statistics = statistics_again()

    def after(self, norm: Any, inputs: Any, output: Any) -> None:
        if self.is_second:
            self.statistics.__exit__(None, None, None)
            norm.momentum = self.momentum
            norm.num_batches_tracked.sub_(1)
            self.is_second = False
