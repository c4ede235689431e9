"""On a GPU every method answers what it answers on a CPU, in every number format, and never makes the host wait."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import wsolbench
from wsolbench.config.schema import Dtype
from wsolbench.method.base import Method
from wsolbench.method.numerics import Numerics
from wsolbench.types import Batch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CASES = [
    ("sat", "badges_vit.s0"),
    ("tscam", "badges_vit.s0"),
    ("cam", "badges_vit.s0"),
    ("cam", "badges_cnn"),
    ("cam", "wsol_resnet50"),
    ("attention", "badges_vit.s0"),
    ("gradcam", "badges_vit.s0"),
    ("layercam", "badges_cnn"),
]
TOLERANCES = {Dtype.fp32: 1e-4, Dtype.tf32: 0.01, Dtype.fp16: 0.02, Dtype.bf16: 0.1}  # of maps, relative to their range


def small(name: str, backbone: str) -> Method:
    torch.manual_seed(0)
    return wsolbench.create_method(name, num_classes=5, backbone=backbone, pretrained=backbone.startswith("badges"))


def batch() -> Batch:
    smooth = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(smooth, size=(64, 64), mode="bilinear")
    return Batch(list("abcd"), images, torch.tensor([0, 4, 2, 2]))


@pytest.fixture
def waiting_is_an_error() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("layout", [False, True], ids=["", "channels-last"])
@pytest.mark.parametrize("dtype", list(Dtype))
@pytest.mark.parametrize(("name", "backbone"), CASES)
def test_maps_are_those_of_a_cpu(name: str, backbone: str, dtype: Dtype, layout: bool) -> None:
    method, data, numerics = small(name, backbone).eval(), batch(), Numerics(dtype, channels_last=layout)
    expected = method.localize(data.images_BCHW, data.labels_B).maps_Bhw
    method.cuda()
    numerics.prepare(method)
    with numerics.running(torch.device("cuda")):
        found = method.localize(data.images_BCHW.cuda(), data.labels_B.cuda()).maps_Bhw.cpu()
    for got_hw, want_hw in zip(found, expected, strict=True):
        assert (got_hw - want_hw).abs().max() <= TOLERANCES[dtype] * (want_hw.max() - want_hw.min())


@pytest.mark.usefixtures("waiting_is_an_error")
@pytest.mark.parametrize("dtype", [Dtype.fp32, Dtype.bf16])
@pytest.mark.parametrize(("name", "backbone"), CASES)
def test_the_host_never_waits(name: str, backbone: str, dtype: Dtype) -> None:
    method, data, numerics = small(name, backbone).cuda(), batch().to("cuda"), Numerics(dtype)
    method.localize(data.images_BCHW)  # Grad-CAM looks once whether its layer is of use
    torch.cuda.set_sync_debug_mode("error")
    for labels in (None, data.labels_B):
        with numerics.running(torch.device("cuda")):
            method.eval().localize(data.images_BCHW, labels)
    with numerics.running(torch.device("cuda")):
        losses = method.train().loss(data)
    if losses:
        torch.stack(list(losses.values())).sum().backward()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backbone"), [("sat", "badges_vit.s0"), ("cam", "wsol_resnet50")])
def test_compiled_and_recomputed_steps_are_those_of_plain_ones(name: str, backbone: str) -> None:
    """In float64: batch norms of a random ResNet blow float32's rounding up to percents of its gradients."""
    plain, fast = (small(name, backbone).cuda().double().train() for _ in range(2))
    for part in (*plain.modules(), *fast.modules()):
        if hasattr(part, "drop_prob"):
            part.drop_prob = 0.0  # compiled code draws otherwise
    fast.checkpoint_gradients()
    Numerics(compile=True, channels_last=True).prepare(fast)
    data = batch().to("cuda")
    data.images_BCHW = data.images_BCHW.double()
    for method in (plain, fast):
        torch.stack(list(method(data).values())).sum().backward()
    for (key, p), other in zip(plain.named_parameters(), fast.parameters(), strict=True):
        assert p.grad is not None
        assert other.grad is not None
        assert (other.grad - p.grad).norm() <= 1e-8 * p.grad.norm() + 1e-12, key
