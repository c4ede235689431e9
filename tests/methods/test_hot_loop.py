"""Losses and maps are computed without asking the device for a value: each such question would make a GPU wait."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import wsolbench
from wsolbench.types import Batch

ASKING = {"_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2", "equal", "is_nonzero"}
CASES = [
    ("sat", "badges_vit.s0"),
    ("tscam", "badges_vit.s0"),
    ("tscam", "conformer_small_patch16"),
    ("cam", "badges_vit.s0"),
    ("cam", "badges_cnn"),
    ("attention", "badges_vit.s0"),
    ("gradcam", "badges_cnn"),
    ("gradcam++", "badges_vit.s0"),
    ("xgradcam", "badges_cnn"),
    ("layercam", "badges_cnn"),
    ("hirescam", "badges_cnn"),
]


class Questions(TorchDispatchMode):
    """Operations whose outcome the host has to know, or that copy to it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.partition(".")[0]
        by_mask = name in ("index", "index_put_") and any(i is not None and i.dtype == torch.bool for i in args[1])
        copies = name == "_to_copy" and "device" in (kwargs or {})
        if name in ASKING or by_mask or copies:
            self.asked.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("name", "backbone"), CASES)
def test_nothing_is_asked_of_the_device(name: str, backbone: str) -> None:
    torch.manual_seed(0)
    method = wsolbench.create_method(name, num_classes=5, backbone=backbone)
    batch = Batch(list("ab"), torch.randn(2, 3, 64, 64), torch.tensor([1, 3]))
    method.localize(batch.images_BCHW)  # Grad-CAM looks once whether its layer is of use
    with Questions() as questions:
        for labels in (None, batch.labels_B):
            method.localize(batch.images_BCHW, labels)
        losses = method.train().loss(batch)
        if losses:
            torch.stack(list(losses.values())).sum().backward()
    assert questions.asked == []


def test_a_question_would_be_seen() -> None:
    with Questions() as questions:
        x = torch.ones(3)
        x.sum().item(), bool(x.any()), x[x > 0], x.to(torch.device("cpu"), torch.float64)
    assert questions.asked == ["_local_scalar_dense", "_local_scalar_dense", "index", "_to_copy"]
