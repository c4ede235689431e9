"""Under autocast a method answers what it answers in float32, to what 8 or 11 bits can hold; nothing overflows on the way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import wsolbench
from wsolbench.method.base import Method
from wsolbench.types import Batch
from wsolbench_methods.networks.pooled import class_maps
from wsolbench_methods.networks.vit import ConvHead, class_row
from wsolbench_methods.sat import spatial_mask

CASES = [
    ("sat", "badges_vit.s0"),
    ("tscam", "badges_vit.s0"),
    ("cam", "badges_vit.s0"),
    ("cam", "badges_cnn"),
    ("cam", "wsol_resnet50"),
    ("attention", "badges_vit.s0"),
    ("gradcam", "badges_vit.s0"),
    ("gradcam++", "badges_cnn"),
    ("layercam", "badges_cnn"),
    ("gradcam-pkg:EigenCAM", "badges_cnn"),
]
LOW = [
    (torch.bfloat16, 0.08),
    (torch.float16, 0.01),
]  # and the largest difference of maps allowed, relative to their range


def small(name: str, backbone: str) -> Method:
    """With the embedded weights where there are some: maps of random ones are noise."""
    torch.manual_seed(0)
    config: dict[str, Any] = {"drop_path": 0.0} if name in ("sat", "tscam") else {}
    return wsolbench.create_method(
        name, num_classes=5, backbone=backbone, pretrained=backbone.startswith("badges"), **config
    )


def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    smooth = F.interpolate(torch.randn(4, 3, 8, 8, generator=generator), size=(64, 64), mode="bilinear")
    return Batch(list("abcd"), smooth, torch.tensor([0, 4, 2, 2]))


@pytest.mark.parametrize(("dtype", "tolerance"), LOW)
@pytest.mark.parametrize(("name", "backbone"), CASES)
def test_maps_and_logits_are_close_and_float32(name: str, backbone: str, dtype: torch.dtype, tolerance: float) -> None:
    method, data = small(name, backbone), batch()
    expected = method.localize(data.images_BCHW, data.labels_B)
    with torch.autocast("cpu", dtype):
        found = method.localize(data.images_BCHW, data.labels_B)
    assert found.maps_Bhw.dtype == torch.float32
    for got_hw, want_hw in zip(found.maps_Bhw, expected.maps_Bhw, strict=True):
        span = want_hw.max() - want_hw.min()
        assert span > 0
        assert (got_hw - want_hw).abs().max() <= tolerance * span
        assert torch.corrcoef(torch.stack([got_hw.flatten(), want_hw.flatten()]))[0, 1] > 0.995
    if expected.logits_BK is not None:
        assert found.logits_BK is not None
        assert found.logits_BK.dtype == torch.float32
        assert (found.logits_BK - expected.logits_BK).abs().max() <= tolerance * expected.logits_BK.abs().max()


@pytest.mark.parametrize(("dtype", "tolerance"), LOW)
@pytest.mark.parametrize(("name", "backbone"), [*CASES[:4], ("gradcam", "badges_vit.s0")])
def test_losses_are_float32_and_gradients_point_the_same_way(
    name: str, backbone: str, dtype: torch.dtype, tolerance: float
) -> None:
    method, data = small(name, backbone).train(), batch()
    expected = method.loss(data)
    torch.stack(list(expected.values())).sum().backward()
    want = torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])
    method.zero_grad()
    with torch.autocast("cpu", dtype):
        losses = method.loss(data)
    (1024 * torch.stack(list(losses.values())).sum()).backward()  # scaled as fp16 training does it
    got = torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None]) / 1024
    for key, loss in losses.items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected[key].item(), rel=tolerance)
    assert F.cosine_similarity(got, want, dim=0) > 0.99


class Inputs(TorchFunctionMode):
    """Dtypes of the first argument of some functions."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, set[torch.dtype]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if args and isinstance(args[0], Tensor):
            self.seen.setdefault(name, set()).add(args[0].dtype)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["sat", "tscam"])
def test_sensitive_steps_get_float32(name: str, dtype: torch.dtype) -> None:
    """Masks and softmax rows, sums over places, and cross-entropy; the network itself is narrow."""
    method, data = small(name, "badges_vit.s0"), batch()
    with torch.autocast("cpu", dtype), Inputs() as inputs:
        method.localize(data.images_BCHW, data.labels_B)
        method.loss(data)
    assert inputs.seen["scaled_dot_product_attention"] == {dtype}
    for step in ("sigmoid",) if name == "sat" else ("softmax", "fold"):
        assert inputs.seen[step] == {torch.float32}, step
    for step in ("sum", "cross_entropy"):
        assert inputs.seen[step] == {torch.float32}, step


# What float16 cannot hold (more than 65504) though the answer is an ordinary number.


def half_autocast() -> torch.autocast:
    return torch.autocast("cpu", torch.float16)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_mask_is_as_exact_as_its_queries_and_keys(dtype: torch.dtype) -> None:
    """Its sum over heads and channels is neither held nor rounded in few bits."""
    attn: Any = SimpleNamespace(scale=64**-0.5, num_heads=6)
    q, k = (torch.randn(2, 6, 5, 64, generator=torch.Generator().manual_seed(i)).to(dtype) for i in range(2))
    with torch.autocast("cpu", dtype):
        found = spatial_mask(attn, q, k)
    assert found.dtype == torch.float32
    assert torch.equal(found, spatial_mask(attn, q.float(), k.float()))


def test_a_class_row_may_exceed_float16() -> None:
    attn: Any = SimpleNamespace(scale=1.0)
    q, k = torch.full((1, 1, 3, 64), 40.0), torch.full((1, 1, 3, 64), 40.0)
    k[..., 1, :] -= 0.03125
    with half_autocast():
        found = class_row(attn, q.half(), k.half())
    torch.testing.assert_close(found, class_row(attn, q, k))
    assert found.isfinite().all()


@pytest.mark.parametrize("read", ["logits", "class_map"])
def test_sums_over_tokens_may_exceed_float16(read: str) -> None:
    torch.manual_seed(0)
    head = ConvHead(8, 3)
    patches_BPD = torch.full((2, 1024, 8), 100.0) + torch.randn(2, 1024, 8)  # 102400 a channel
    with torch.no_grad():
        head.weight.mul_(300.0)

    def answer(tokens_BPD: Tensor) -> Tensor:
        if read == "logits":
            return head.logits(tokens_BPD, (32, 32))
        return head.class_map(tokens_BPD, (32, 32), torch.tensor([2, 0]))

    expected = answer(patches_BPD)
    with half_autocast():
        found = answer(patches_BPD.half())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2 * expected.abs().max().item())


@pytest.mark.parametrize("linear", [nn.Linear(2048, 3), nn.Conv2d(2048, 3, 1)])
def test_a_class_map_may_exceed_float16(linear: nn.Linear | nn.Conv2d) -> None:
    with torch.no_grad():
        linear.weight.fill_(0.5)
    features = torch.full((2, 2048, 7, 7), 100.0)  # 102400
    with half_autocast():
        found = class_maps(features.half(), linear, torch.tensor([0, 2]))
    torch.testing.assert_close(found, class_maps(features, linear, torch.tensor([0, 2])))


def test_gradients_of_a_large_pooled_map_do_not_vanish_in_float16() -> None:
    """Each place's gradient is weight / places: 1e-6 / 64 is below what float16 can hold."""
    method = wsolbench.create_method("gradcam", num_classes=3, backbone="wsol_resnet50_28")
    with torch.no_grad():
        head: Any = method.classifier
        head.fc.weight.normal_(std=1e-6)
    images = batch().images_BCHW
    expected = method.localize(images).maps_Bhw
    with half_autocast():
        found = method.localize(images).maps_Bhw
    assert expected.max() > 0
    assert torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1] > 0.99
