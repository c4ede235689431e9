"""No N x N attention matrix is ever stored: every tensor that any operation returns is looked at, backward included."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import wsolbench
from wsolbench.method.base import Method
from wsolbench.types import Batch

CASES = [
    ("sat", "test_vit", 102),
    ("tscam", "test_vit", 101),
    ("cam", "test_vit", 101),
    ("attention", "test_vit", 101),
    ("tscam", "conformer_small_patch16", 101),
]


class Shapes(TorchDispatchMode):
    """Shapes of all tensors made while active."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.seen |= {tuple(leaf.shape) for leaf in tree_leaves(out) if isinstance(leaf, Tensor)}
        return out

    def square(self, tokens: int) -> list[tuple[int, ...]]:
        """Those with two dimensions of N."""
        return sorted(shape for shape in self.seen if shape.count(tokens) > 1)


def run(method: Method, batch: Batch) -> Shapes:
    """All shapes of localising, and of a training step where there is one."""
    with Shapes() as shapes:
        method.localize(batch.images_BCHW, batch.labels_B)
        losses = method.train().loss(batch)
        if losses:
            torch.stack(list(losses.values())).sum().backward()
    return shapes


@pytest.mark.parametrize(("name", "backbone", "tokens"), CASES)
def test_no_attention_matrix_is_stored(name: str, backbone: str, tokens: int, batch: Batch) -> None:
    shapes = run(wsolbench.create_method(name, num_classes=7, backbone=backbone), batch)
    assert any(tokens in shape for shape in shapes.seen)  # the number of tokens is right
    assert shapes.square(tokens) == []


def test_an_attention_matrix_would_be_seen(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with attention written out."""

    def plain(q: Tensor, k: Tensor, v: Tensor, *, dropout_p: float, scale: float) -> Tensor:
        return (q @ k.transpose(-2, -1) * scale).softmax(-1) @ v

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", plain)
    shapes = run(wsolbench.create_method("sat", num_classes=7, backbone="test_vit"), batch)
    assert (4, 2, 102, 102) in shapes.square(102)
