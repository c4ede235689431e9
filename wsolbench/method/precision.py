"""Single precision inside autocast, where half of it overflows or rounds too much: sums over places, masks, softmax, losses.

Outside of autocast nothing here changes a number: a float32 tensor stays the same tensor, and so does a float64 one.
"""

from __future__ import annotations

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """The tensor in float32 if it is narrower.

    >>> wide(torch.zeros(1, dtype=torch.bfloat16)).dtype, wide(torch.zeros(1, dtype=torch.float64)).dtype
    (torch.float32, torch.float64)
    """
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def no_autocast(x: Tensor) -> torch.autocast:
    """A block in which products of `wide` tensors are not narrowed again; `x` says on which device."""
    return torch.autocast(x.device.type, enabled=False)
