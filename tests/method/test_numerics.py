"""Number format, compilation and memory layout: what `prepare` does to a method and `running` to torch, and that it is undone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import wsolbench
from wsolbench.config.schema import Dtype
from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.method.base import Method
from wsolbench.method.numerics import Numerics
from wsolbench.types import Batch, Prediction

CPU = torch.device("cpu")


def small(name: str, backbone: str | None) -> Method:
    torch.manual_seed(0)
    return wsolbench.create_method(name, num_classes=5, backbone=backbone)


def batch() -> Batch:
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return Batch(list("abcd"), images, torch.tensor([0, 4, 2, 2]))


def layouts(method: Method) -> set[bool]:
    """Whether spatial convolutions' weights lie channels-last, of each and of what they are given."""
    found: set[bool] = set()

    def look(conv: Any, inputs: Any) -> None:
        for x in (inputs[0], conv.weight):
            if x.shape[1] > 1 and x.shape[-1] > 1:
                found.add(x.is_contiguous(memory_format=torch.channels_last))

    hooks = [part.register_forward_pre_hook(look) for part in method.modules() if isinstance(part, nn.Conv2d)]
    method.localize(batch().images_BCHW)
    method.loss(batch())
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize(
    ("name", "backbone", "laid_out"),
    [
        ("cam", "badges_cnn", True),
        ("gradcam", "wsol_resnet50", True),
        ("cam", "badges_vit.s0", False),
        ("sat", "badges_vit.s0", False),
    ],
)
def test_networks_of_convolutions_run_channels_last_and_others_as_before(
    name: str, backbone: str, laid_out: bool
) -> None:
    method = small(name, backbone).eval()
    expected, losses = method.localize(batch().images_BCHW), method.loss(batch())
    with Numerics(channels_last=True).applied(method):
        assert layouts(method) == {laid_out}
        found = method.localize(batch().images_BCHW, None)
        torch.testing.assert_close(found.maps_Bhw, expected.maps_Bhw, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.logits_BK, expected.logits_BK, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(method(batch()), losses, rtol=1e-4, atol=1e-5)
    assert layouts(method) == {False}
    assert torch.equal(method.localize(batch().images_BCHW).maps_Bhw, expected.maps_Bhw)


def test_a_method_without_a_network_has_nothing_to_lay_out() -> None:
    method = small("center-box", None)
    with Numerics(channels_last=True, compile=False).applied(method):
        assert method.localize(batch().images_BCHW).maps_Bhw.shape == (4, 64, 64)


class Foreign(Method):
    """Of a third party, with what torch.compile cannot see through."""

    def __init__(self) -> None:
        super().__init__(None, num_classes=2, backbone="of-their-own")
        self.net = nn.Conv2d(3, 2, 1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        value = self.net(batch.images_BCHW).mean()
        return {"size": value.abs() if value.item() < 0 else value}

    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Prediction:
        with torch.enable_grad():
            images_BCHW = images_BCHW.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(self.net(images_BCHW).sum(), images_BCHW)
        return Prediction(None, gradient.sum(1))


def test_a_method_that_breaks_the_graph_runs_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compile_(function, backend="eager"))
    method = Foreign()
    expected, losses = method.localize(batch().images_BCHW), method.loss(batch())
    with Numerics(compile=True, channels_last=True).applied(method):
        torch.testing.assert_close(method.localize(batch().images_BCHW).maps_Bhw, expected.maps_Bhw)
        torch.testing.assert_close(method(batch()), losses)


def test_a_compiler_that_fails_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler found\nand much more")

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compile_(function, backend=broken))
    method = small("cam", "badges_cnn")
    Numerics(compile=True).prepare(method)
    with pytest.raises(WsolbenchError, match=r"torch.compile fails on 'CAM' \(.*\); run without compile") as caught:
        method(batch())
    assert "\n" not in str(caught.value)


def test_an_error_of_the_method_stays_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compile_(function, backend="eager"))
    method = small("sat", "badges_vit.s0")
    Numerics(compile=True).prepare(method)
    with pytest.raises(UsageError, match="the backbone takes 64x64 images, got 32x32"):
        method.localize(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("dtype", "matrices", "convolutions", "product"),
    [
        (Dtype.fp32, "highest", False, torch.float32),
        (Dtype.tf32, "high", True, torch.float32),
        (Dtype.bf16, "medium", True, torch.bfloat16),  # as they were
        (Dtype.fp16, "medium", True, torch.float16),
    ],
)
def test_torch_is_set_inside_and_as_it_was_behind(
    dtype: Dtype, matrices: str, convolutions: bool, product: torch.dtype
) -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("medium")
    try:
        with Numerics(dtype).running(CPU):
            assert torch.get_float32_matmul_precision() == matrices
            assert torch.backends.cudnn.allow_tf32 is convolutions
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == product
        with Numerics(dtype).products():
            assert torch.get_float32_matmul_precision() == matrices
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
        with pytest.raises(ZeroDivisionError), Numerics(dtype).running(CPU):
            _ = 1 / 0
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("medium", True)
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    finally:
        torch.set_float32_matmul_precision(before[0])
