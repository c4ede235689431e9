"""The adapter gives what calling the package grad-cam gives, for every method that the installed version has."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

import wsolbench
from wsolbench.compose import expand
from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.method import Method
from wsolbench.registry import METHODS
from wsolbench_methods.gradcam_pkg import explainers

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(explainers())
CLASSES = [1, 3]
SIZE = 64
MERGED = {"FinerCAM", "FullGrad", "RefineCAM", "SESS"}  # maps come as the package returns them
# RandomCAM's numbers are drawn anew; SESS takes seconds; FinerCAM's targets are made for the asked class (below).
APART = {"RandomCAM", "SESS", "FinerCAM"}


def images() -> Tensor:
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(5))


def build(name: str, backbone: str = "badges_cnn", **config: Any) -> Method:
    torch.manual_seed(0)
    method = wsolbench.create_method(f"gradcam-pkg:{name}", num_classes=4, backbone=backbone, **config)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return method


def call_the_package(name: str, method: Method, targets: Any) -> np.ndarray[Any, Any]:
    model: Any = method.classifier
    if method.backbone == "badges_vit.s0":
        layer = model.blocks[-1].norm1
        extra: dict[str, Any] = {"reshape_transform": lambda x: x[:, 1:].transpose(1, 2).reshape(len(x), -1, 8, 8)}
        if name == "FullGrad":  # it reads the patch embedding, which is a map
            extra = {}
        if name == "AblationCAM":
            extra["ablation_layer"] = pytorch_grad_cam.AblationLayerVit()
    else:
        layer, extra = model.layer3, {}
        if name == "AblationCAM":
            extra["ablation_layer"] = pytorch_grad_cam.AblationLayer()
    explainer = getattr(pytorch_grad_cam, name)(model.eval(), [layer], **extra)
    dtype = next(model.parameters()).dtype
    maps: np.ndarray[Any, Any] = explainer(images().to(dtype), targets)
    return maps


def as_the_package_scales(maps_Bhw: Tensor) -> np.ndarray[Any, Any]:
    scaled = []
    for one in maps_Bhw.relu().numpy():
        one = one - one.min()
        one = cv2.resize(one / (1e-7 + one.max()), (SIZE, SIZE))
        one = one - one.min()
        scaled.append(one / (1e-7 + one.max()))
    return np.stack(scaled)


@pytest.mark.parametrize(("backbone", "layer"), [("test_resnet", "layer3"), ("badges_vit.s0", None)])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in APART])
def test_equals_calling_the_package(name: str, backbone: str, layer: str | None) -> None:
    """In float64: scaled to 1, maps with little evidence show how float32 rounds."""
    method, images_BCHW = build(name, backbone, target_layer=layer).double(), images().double()
    targets = [ClassifierOutputTarget(c) for c in CLASSES]
    if (
        name == "ShapleyCAM" and backbone == "badges_vit.s0"
    ):  # the package multiplies the tokens by the channels' weights
        with pytest.raises(WsolbenchError, match="ShapleyCAM of the grad-cam package fails at target_layer 'blocks"):
            method.localize(images_BCHW, torch.tensor(CLASSES))
        return
    maps_Bhw = method.localize(images_BCHW, torch.tensor(CLASSES)).maps_Bhw
    assert maps_Bhw.shape[1:] == ((SIZE, SIZE) if name in MERGED else (8, 8) if "vit" in backbone else (4, 4))
    expected = call_the_package(name, method, targets)
    ours = maps_Bhw.numpy() if name in MERGED else as_the_package_scales(maps_Bhw)
    assert expected.max() > 0.9
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


@pytest.mark.skipif("FinerCAM" not in NAMES, reason="the installed grad-cam is older than FinerCAM")
def test_finer_cam_compares_as_the_package_does() -> None:
    method = build("FinerCAM", "test_resnet", target_layer="layer3")
    prediction = method.localize(images())
    np.testing.assert_allclose(prediction.maps_Bhw, call_the_package("FinerCAM", method, None), rtol=0, atol=1e-5)
    other = method.localize(images(), prediction.logits_BK.argmin(1) if prediction.logits_BK is not None else None)
    assert not torch.allclose(other.maps_Bhw, prediction.maps_Bhw, atol=1e-2)


def test_random_weights_belong_to_the_image() -> None:
    method = build("RandomCAM")
    state = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    both = method.localize(images()).maps_Bhw
    assert np.array_equal(state, np.random.get_state()[1])  # type: ignore[arg-type, index]
    assert both.max() > 0
    np.testing.assert_allclose(method.localize(images()[1:]).maps_Bhw[0], both[1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(both[0] / both[0].max(), both[1] / both[1].max(), atol=1e-2)


@pytest.mark.parametrize("name", ["ScoreCAM", "AblationCAM", "FullGrad", "EigenGradCAM"])
def test_nothing_is_left_behind(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    method = build(name).train()
    method.classifier.get_parameter(next(iter(dict(method.classifier.named_parameters())))).requires_grad_(False)
    for parameter in method.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = [(p, p.requires_grad, p.grad) for p in method.parameters()]
    modules, state = [*method.modules()], {k: v.clone() for k, v in method.state_dict().items()}
    with torch.inference_mode():
        prediction = method.localize(images())
    assert prediction.maps_Bhw.dtype == torch.float32
    assert all(p.requires_grad is needed and p.grad is grad for p, needed, grad in before)
    assert all((grad == 1).all() for _, _, grad in before if grad is not None)
    assert [*method.modules()] == modules
    assert all(module.training and not module._forward_hooks for module in modules)
    assert all(torch.equal(value, state[key]) for key, value in method.state_dict().items())
    assert capfd.readouterr() == ("", "")  # neither progress bars nor warnings


def test_relu_and_the_size_of_inner_batches_are_options() -> None:
    signed = build("EigenCAM", relu=False).localize(images()).maps_Bhw
    assert signed.min() < 0
    assert torch.equal(build("EigenCAM").localize(images()).maps_Bhw, signed.relu())
    few, many = (build("ScoreCAM", batch_size=size).localize(images()).maps_Bhw for size in (50, 128))
    torch.testing.assert_close(few, many, rtol=1e-4, atol=1e-6)


def test_a_name_is_found_in_any_case_and_means_one_method() -> None:
    assert METHODS.get("gradcam-pkg:kpca-cam") is METHODS.get("gradcam-pkg:KPCA_CAM")
    spelled = [expand([f"gradcam-pkg:{name}"])[0] for name in ("scorecam", "ScoreCAM")]
    assert spelled[0] == spelled[1]
    assert spelled[0].method["name"] == "gradcam-pkg:ScoreCAM"
    assert spelled[0].backbone == "badges_cnn"
    shared = expand(["gradcam"])[0]
    assert spelled[0].train == shared.train  # else the two could not share their classifier


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "gradcam-pkg:ScorCAM",
            "unknown method 'gradcam-pkg:ScorCAM', did you mean 'gradcam-pkg:ScoreCAM'.*has: AblationCAM",
        ),
        ("gradcam-pkg:zzz", "unknown method 'gradcam-pkg:zzz'. The installed grad-cam package has: AblationCAM"),
        ("gradcam-pkg:", "'gradcam-pkg:' is a family of methods: say which one, as gradcam-pkg:NAME"),
    ],
)
def test_names_that_do_not_exist(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        wsolbench.create_method(name, num_classes=4)


def test_every_class_of_the_package_that_explains_an_image_is_offered() -> None:
    from pytorch_grad_cam.base_cam import BaseCAM

    classes = {
        name for name, cls in vars(pytorch_grad_cam).items() if inspect.isclass(cls) and issubclass(cls, BaseCAM)
    }
    assert classes <= {*NAMES}
    assert "ActivationsAndGradients" not in NAMES
    assert "GuidedBackpropReLUModel" not in NAMES


def test_listing_names_the_family_without_importing_the_package() -> None:
    code = (
        "import sys; from wsolbench.listing import list_section; rows = list_section('methods'); "
        "print([name for name, *_ in rows]); assert not {'torch', 'pytorch_grad_cam'} & {*sys.modules}"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60
    )
    assert "'gradcam-pkg:<name>'" in done.stdout
