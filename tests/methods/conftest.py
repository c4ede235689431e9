"""Small inputs for oracle tests."""

from __future__ import annotations

import pytest
import torch

from wsolbench.types import Batch


@pytest.fixture
def batch() -> Batch:
    """Four images of the size of timm's `test_vit` (six blocks, two heads, 10 x 10 patches of 16 pixels)."""
    generator = torch.Generator().manual_seed(3)
    return Batch(list("abcd"), torch.randn(4, 3, 160, 160, generator=generator), torch.tensor([0, 6, 3, 3]))


@pytest.fixture
def exact(batch: Batch) -> Batch:
    """The same in float64, for methods in float64: two ways to the same number then differ by nothing that is seen."""
    batch.images_BCHW = batch.images_BCHW.double()
    return batch
