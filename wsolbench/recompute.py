"""Gradient checkpointing of a network: activations are computed again in the backward pass, and the result stays the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def recompute_activations(network: nn.Module, enable: bool = True) -> bool:
    """Switch on (or off) timm's `set_grad_checkpointing`; False: the network has none.

    Batch norms see the second computation of a batch too, but count it once: their running statistics stay what they
    would be without.
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
    """Hooks of a batch norm that make it forget the second of two computations."""

    def __init__(self, momentum: float | None) -> None:
        self.momentum = momentum
        self.is_second = False

    def before(self, norm: Any, inputs: Any) -> None:
        # A forward pass inside a backward pass is a second one. A compiled graph updates buffers once by itself.
        if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
            self.is_second = norm.training
            norm.momentum = 0.0

    def after(self, norm: Any, inputs: Any, output: Any) -> None:
        norm.momentum = self.momentum
        if self.is_second:
            norm.num_batches_tracked.sub_(1)
            self.is_second = False
