"""torch.compile takes each method as one graph, does so once, and changes no answer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor

import wsolbench
from wsolbench.method.base import Method
from wsolbench.method.numerics import Numerics
from wsolbench.types import Batch

CASES = [
    ("sat", "badges_vit.s0"),
    ("sat", "test_vit"),
    ("tscam", "badges_vit.s0"),
    ("cam", "badges_vit.s0"),
    ("cam", "badges_cnn"),
    ("attention", "badges_vit.s0"),
]


@pytest.fixture(autouse=True)
def nothing_compiled() -> None:
    """Graphs of other tests do not count."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


def small(name: str, backbone: str) -> Method:
    """Two blocks are as good as six, and soon traced. No drop path: compiled code draws otherwise."""
    torch.manual_seed(0)
    config: dict[str, Any] = {"drop_path": 0.0} if name in ("sat", "tscam") else {}
    if name == "sat":
        config["masked_blocks"] = 1
    method = wsolbench.create_method(name, num_classes=5, backbone=backbone, **config)
    vit: Any = getattr(method, "vit", None) or getattr(getattr(method, "classifier", None), "vit", None)
    if vit is not None:
        vit.blocks = vit.blocks[:2]
    return method


def batch(step: int, images: int = 3, backbone: str = "badges_vit.s0") -> Batch:
    side = 160 if backbone == "test_vit" else 64
    generator = torch.Generator().manual_seed(step)
    ids = [f"{step}/{i}" for i in range(images)]
    return Batch(
        ids,
        torch.randn(images, 3, side, side, generator=generator),
        torch.randint(5, (images,), generator=generator),
    )


def graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


@pytest.mark.parametrize(("name", "backbone"), [case for case in CASES if case[0] != "attention"])
def test_training_is_one_graph_whatever_the_ids(name: str, backbone: str) -> None:
    """In float64: what is taken apart into other operations may round otherwise."""
    method = small(name, backbone).double().train()
    names = list(method.state_dict())
    loss = torch.compile(method.loss, fullgraph=True, backend="aot_eager")
    for step in range(3):
        data = batch(step, backbone=backbone)
        data.images_BCHW = data.images_BCHW.double()
        expected, losses = method.loss(data), loss(data)
        assert {key: value.item() for key, value in losses.items()} == pytest.approx(
            {key: value.item() for key, value in expected.items()}, rel=1e-6
        )
        torch.stack(list(losses.values())).sum().backward()
    assert graphs() == 1
    assert list(method.state_dict()) == names


@pytest.mark.parametrize(("name", "backbone"), CASES)
def test_localising_is_one_graph_with_labels_and_one_without(name: str, backbone: str) -> None:
    """Where there is one map per image, whatever the class, both are the same graph."""
    method = small(name, backbone).eval()
    localize = torch.compile(method.localize, fullgraph=True, backend="eager")
    with torch.inference_mode():
        for step in range(2):
            data = batch(step, backbone=backbone)
            images = data.images_BCHW
            for asked in (data.labels_B, None):
                assert torch.equal(localize(images, asked).maps_Bhw, method.localize(images, asked).maps_Bhw)
    assert graphs() == (1 if name in ("sat", "attention") else 2)
    assert not method.training


def test_a_smaller_last_batch_is_one_graph_more() -> None:
    method = small("cam", "badges_cnn").eval()
    localize = torch.compile(method.localize, fullgraph=True, backend="eager")
    for images in (4, 4, 3, 4, 2):
        assert localize(batch(images, images).images_BCHW).maps_Bhw.shape == (images, 16, 16)
    assert graphs() == 2


def test_localising_in_training_mode_is_compiled_too_and_the_mode_stays() -> None:
    method = small("cam", "resnet10t").train()
    method.classifier.get_submodule("bn1").eval()
    images = batch(0).images_BCHW
    found = torch.compile(method.localize, fullgraph=True, backend="eager")(images)
    torch.testing.assert_close(found.maps_Bhw, method.localize(images).maps_Bhw)
    assert method.training
    assert not method.classifier.get_submodule("bn1").training
    assert method.classifier.get_submodule("layer1").training


@pytest.mark.parametrize(("name", "backbone"), [("sat", "badges_vit.s0"), ("cam", "resnet10t")])
def test_gradient_checkpointing_is_compiled_along(name: str, backbone: str) -> None:
    plain, frugal = small(name, backbone).train(), small(name, backbone).train()
    frugal.checkpoint_gradients()
    loss = torch.compile(frugal.loss, backend="aot_eager")
    torch.stack(list(plain.loss(batch(0)).values())).sum().backward()
    torch.stack(list(loss(batch(0)).values())).sum().backward()
    for (key, p), other in zip(plain.named_parameters(), frugal.parameters(), strict=True):
        torch.testing.assert_close(other.grad, p.grad, msg=key)
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(frugal.state_dict()[key], value, msg=key)


def with_eager_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compile_(function, backend="eager"))


@pytest.mark.parametrize(
    ("name", "backbone", "compiled"),
    [
        ("gradcam", "badges_cnn", ["loss"]),
        ("layercam", "badges_vit.s0", ["loss"]),
        ("gradcam-pkg:EigenCAM", "badges_cnn", ["loss"]),
        ("full-image", None, ["localize"]),
        ("cam", "badges_cnn", ["loss", "localize"]),
    ],
)
def test_what_cannot_be_compiled_works_as_before(
    name: str, backbone: str | None, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_eager_backend(monkeypatch)
    method = wsolbench.create_method(name, num_classes=5, backbone=backbone)
    before = method.localize(batch(0).images_BCHW)
    losses = method.loss(batch(0))
    plain = {key: getattr(method, key) for key in ("loss", "localize")}
    with Numerics(compile=True).applied(method):
        assert [key for key in plain if getattr(method, key) != plain[key]] == compiled
        torch.testing.assert_close(method(batch(0)), losses)
        torch.testing.assert_close(method.localize(batch(0).images_BCHW).maps_Bhw, before.maps_Bhw)
    assert {key: getattr(method, key) for key in plain} == plain


def closeness(found: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backbone"), [("sat", "badges_vit.s0"), ("cam", "badges_cnn")])
def test_generated_code_gives_the_same_losses_gradients_and_maps(
    name: str, backbone: str, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import cpp_builder, exc

    # code that was generated under another ATEN_CPU_CAPABILITY and kept does not compile under this one
    kept = pytestconfig.cache.mkdir(f"inductor-{torch.backends.cpu.get_cpu_capability()}")  # type: ignore[union-attr]
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(kept))
    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        pytest.skip("torch.compile needs a C++ compiler on a CPU")
    plain, fast = small(name, backbone).train(), small(name, backbone).train()
    Numerics(compile=True).prepare(fast)
    assert list(fast.state_dict()) == list(plain.state_dict())
    expected, losses = plain(batch(0)), fast(batch(0))
    for key in expected:
        assert losses[key].item() == pytest.approx(expected[key].item(), rel=1e-5)
    for found in (expected, losses):
        torch.stack(list(found.values())).sum().backward()
    for (key, p), other in zip(plain.named_parameters(), fast.parameters(), strict=True):
        assert p.grad is not None
        assert other.grad is not None
        assert (other.grad - p.grad).norm() <= 1e-5 * p.grad.norm() + 1e-7, key
    with torch.inference_mode():
        want, got = plain.eval().localize(batch(1).images_BCHW), fast.eval().localize(batch(1).images_BCHW)
    assert closeness(got.maps_Bhw, want.maps_Bhw) < 1e-5
    assert got.logits_BK is not None
    assert want.logits_BK is not None
    assert closeness(got.logits_BK, want.logits_BK) < 1e-5
