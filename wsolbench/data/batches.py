"""Samples to batches."""
# B images of a batch, C channels, H W image

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from wsolbench.types import Batch, Sample


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples into a batch."""
    return Batch(
        [sample.id for sample in samples],
        torch.stack([sample.image_CHW for sample in samples]),
        torch.tensor([sample.label for sample in samples], dtype=torch.int64),
    )


def empty_batch(*shape: int) -> Tensor:
    """Return a float32 tensor to be filled; in a loading process in shared memory, so that it is sent without a copy."""
    if get_worker_info() is None:
        return torch.empty(shape)
    storage: Any = torch.UntypedStorage
    return (
        torch.empty(0).set_(storage._new_shared(4 * math.prod(shape))).view(shape)
    )  # as torch's own collate function does
