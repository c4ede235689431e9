"""With gradient checkpointing a training step has the same losses, gradients and buffers, and keeps less for its backward pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import wsolbench
from wsolbench.errors import UsageError
from wsolbench.method.base import Method
from wsolbench.types import Batch

CASES = [
    ("sat", "badges_vit.s0"),
    ("tscam", "badges_vit.s0"),
    ("tscam", "conformer_small_patch16"),
    ("cam", "badges_vit.s0"),
    ("cam", "resnet18"),  # batch norms must not count a batch twice
    ("gradcam", "badges_vit.s0"),
]


def small(name: str, backbone: str) -> Method:
    """With whatever it draws (drop path), so that the second computation must draw the same."""
    torch.manual_seed(0)
    return wsolbench.create_method(name, num_classes=5, backbone=backbone).train()


def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch(list("abcd"), torch.randn(4, 3, 64, 64, generator=generator), torch.tensor([0, 4, 2, 2]))


def step(method: Method) -> tuple[dict[str, Tensor], int]:
    """Losses of a training step, whose gradients are left behind, and the bytes it kept for the backward pass."""
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    torch.manual_seed(2)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        losses = method(batch())
    torch.stack(list(losses.values())).sum().backward()
    parameters = {p.untyped_storage().data_ptr() for p in method.parameters()}
    return losses, sum(size for pointer, size in kept.items() if pointer not in parameters)


@pytest.mark.parametrize(("name", "backbone"), CASES)
def test_the_same_step_with_less_memory(name: str, backbone: str) -> None:
    plain, frugal = small(name, backbone), small(name, backbone)
    frugal.checkpoint_gradients()
    (expected, much), (losses, little) = step(plain), step(frugal)
    assert losses.keys() == expected.keys()
    assert all(torch.equal(losses[key], expected[key]) for key in expected)
    for (key, p), other in zip(plain.named_parameters(), frugal.parameters(), strict=True):
        assert p.grad is not None
        assert other.grad is not None
        assert torch.equal(other.grad, p.grad), key
    assert frugal.state_dict().keys() == plain.state_dict().keys()
    for key, value in plain.state_dict().items():  # running means, and how many batches they have seen
        assert torch.equal(frugal.state_dict()[key], value), key
    assert little < (0.6 if backbone == "resnet18" else 0.4) * much  # of a ResNet the stem is left


def test_what_reads_gradients_at_test_time_finds_the_same() -> None:
    plain, frugal = small("gradcam", "badges_vit.s0"), small("gradcam", "badges_vit.s0")
    frugal.checkpoint_gradients()
    images = batch().images_BCHW
    assert torch.equal(frugal.localize(images).maps_Bhw, plain.localize(images).maps_Bhw)


@pytest.mark.parametrize(
    ("name", "backbone", "asked"),
    [("cam", "badges_cnn", "'badges_cnn'"), ("gradcam", "vgg11", "'vgg11'"), ("center-box", None, "'None'")],
)
def test_a_network_that_cannot_is_one_sentence(name: str, backbone: str | None, asked: str) -> None:
    method = wsolbench.create_method(name, num_classes=5, backbone=backbone)
    with pytest.raises(UsageError, match=f"backbone {asked} cannot compute .*train.checkpoint_gradients") as caught:
        method.checkpoint_gradients()
    assert "\n" not in str(caught.value)
