"""The Grad-CAM family against the package grad-cam, and CAM against Grad-CAM."""

from __future__ import annotations

from typing import Any, cast

import cv2
import numpy as np
import pytest
import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from pytorch_grad_cam.utils.reshape_transforms import vit_reshape_transform
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import wsolbench
from wsolbench.errors import UsageError
from wsolbench.method import Method
from wsolbench.types import Batch
from wsolbench_methods._target_layer import token_grid

PACKAGE = {
    "gradcam": pytorch_grad_cam.GradCAM,
    "gradcam++": pytorch_grad_cam.GradCAMPlusPlus,
    "xgradcam": pytorch_grad_cam.XGradCAM,
    "layercam": pytorch_grad_cam.LayerCAM,
    "hirescam": pytorch_grad_cam.HiResCAM,
}
CLASSES = [1, 4, 0]


def images() -> Tensor:
    return torch.randn(3, 3, 160, 160, generator=torch.Generator().manual_seed(5))


def scrambled(name: str, backbone: str, **config: Any) -> Method:
    """Weights away from their initial values; always the same ones for a backbone."""
    torch.manual_seed(0)
    method = wsolbench.create_method(name, num_classes=5, backbone=backbone, **config)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return method


def as_the_package_scales(maps_Bhw: Tensor, size: int = 160) -> np.ndarray[Any, Any]:
    """ReLU, min-max, bilinear to the input's size, min-max: the package's post-processing."""
    scaled = []
    for one in maps_Bhw.relu().numpy():
        one = one - one.min()
        one = cv2.resize(one / (1e-7 + one.max()), (size, size))
        one = one - one.min()
        scaled.append(one / (1e-7 + one.max()))
    return np.stack(scaled)


@pytest.mark.parametrize("name", PACKAGE)
@pytest.mark.parametrize(
    ("backbone", "config"),
    [("test_resnet", {}), ("test_resnet", {"target_layer": "layer2"}), ("test_vit", {})],
    ids=["cnn", "cnn, inner layer", "vit"],
)
def test_equals_the_grad_cam_package(name: str, backbone: str, config: dict[str, str]) -> None:
    """In float64: scaled to 1, maps with little evidence show how float32 rounds."""
    method, images_BCHW = scrambled(name, backbone, **config).double(), images().double()
    model: Any = method.classifier
    if backbone == "test_vit":
        layer, reshape = model.blocks[-1].norm1, lambda x: x[:, 1:].transpose(1, 2).reshape(len(x), -1, 10, 10)
    else:
        layer, reshape = model.get_submodule(config.get("target_layer", "layer4")), None
    maps_Bhw = method.localize(images_BCHW, torch.tensor(CLASSES)).maps_Bhw
    with PACKAGE[name](model.eval(), [layer], reshape_transform=reshape) as package:
        expected = package(images_BCHW, [ClassifierOutputTarget(c) for c in CLASSES])
    assert (expected.max(axis=(1, 2)) > 0.9).sum() >= 2  # most maps have positive evidence, else there is no test
    np.testing.assert_allclose(as_the_package_scales(maps_Bhw), expected, rtol=0, atol=1e-5)


@pytest.fixture(scope="module", params=["resnet50", "deit_small_patch16_224"])
def full_size(request: pytest.FixtureRequest) -> tuple[str, torch.nn.Module]:
    """A backbone of the papers with seeded weights, in float64."""
    classifier = scrambled("gradcam", request.param).double().get_submodule("classifier")
    return request.param, classifier


@pytest.mark.parametrize("name", PACKAGE)
def test_equals_the_grad_cam_package_on_the_backbones_of_the_papers(
    name: str, full_size: tuple[str, torch.nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the package's own normalisation, which is applied to our raw maps: it gives no others."""
    backbone, model = full_size[0], cast(Any, full_size[1])
    images_BCHW = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(5)).double()
    monkeypatch.setattr("wsolbench_methods._target_layer.create_backbone", lambda *_, **__: model)  # built once
    method = wsolbench.create_method(name, num_classes=5, backbone=backbone)
    if backbone == "resnet50":
        layer, reshape = model.layer4, None
    else:
        layer, reshape = model.blocks[-1].norm1, vit_reshape_transform
    ours = method.localize(images_BCHW, torch.tensor(CLASSES[:2])).maps_Bhw
    assert ours.shape == ((2, 7, 7) if backbone == "resnet50" else (2, 14, 14))
    with PACKAGE[name](model.eval(), [layer], reshape_transform=reshape) as package:
        expected = package(images_BCHW, [ClassifierOutputTarget(c) for c in CLASSES[:2]])
    assert expected.max() > 0.9
    np.testing.assert_allclose(as_the_package_scales(ours, 224), expected, rtol=0, atol=1e-5)


class ConvolutionGradients(TorchDispatchMode):
    """Counts the convolutions that gradients run back through."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function is torch.ops.aten.convolution_backward.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("layer", "behind"), [(None, 0), ("layer4", 0), ("layer3", "layer4"), ("layer1", "layer2 layer3 layer4")]
)
def test_gradients_run_from_the_target_layer_on_only(layer: str | None, behind: Any) -> None:
    method = scrambled("gradcam", "test_resnet", target_layer=layer)
    parts = [method.classifier.get_submodule(part) for part in (behind or "").split()]
    convolutions = sum(isinstance(m, torch.nn.Conv2d) for part in parts for m in part.modules())
    with ConvolutionGradients() as counted:
        method.localize(images())
    assert counted.count == convolutions
    assert all(parameter.grad is None for parameter in method.parameters())
    with ConvolutionGradients() as counted:  # the counter does count
        method.loss(Batch(list("abc"), images(), torch.tensor(CLASSES)))["cls"].backward()
    assert counted.count == sum(isinstance(m, torch.nn.Conv2d) for m in method.modules())


GRIDS = {
    "test_resnet": (160, 5, 5),
    "test_convnext": (160, 5, 5),
    "swin_tiny_patch4_window7_224": (224, 7, 7),  # channels last
    "deit_tiny_distilled_patch16_224": (224, 14, 14),  # class and distillation token
    "vit_little_patch16_reg4_gap_256": (256, 16, 16),  # register tokens, no class token
    "twins_svt_small": (224, 7, 7),  # tokens without a prefix
    "cait_xxs24_224": (224, 14, 14),  # the class token joins after the last block
}


@pytest.mark.parametrize("backbone", GRIDS)
def test_the_layer_and_its_grid_are_found_on_any_backbone(backbone: str) -> None:
    size, *grid = GRIDS[backbone]
    torch.manual_seed(0)
    method = wsolbench.create_method("layercam", num_classes=5, backbone=backbone, relu=False)
    maps_Bhw = method.localize(torch.randn(2, 3, size, size), torch.tensor([1, 2])).maps_Bhw
    assert maps_Bhw.shape == (2, *grid)
    assert (maps_Bhw.amax((1, 2)) > maps_Bhw.amin((1, 2))).all()


def test_tokens_of_images_that_are_not_square_lie_on_their_own_grid() -> None:
    method = scrambled("hirescam", "test_vit", relu=False)
    model: Any = method.classifier
    assert token_grid(model, 1 + 100, (160, 160)) == (10, 10)
    assert token_grid(model, 1 + 72, (96, 192)) == (6, 12)  # a model of fixed size is asked about another one
    assert token_grid(model, 1 + 6, (160, 160)) is None  # 2 x 3 is no grid of a square image
    model.set_input_size((96, 192))
    assert method.localize(torch.randn(2, 3, 96, 192)).maps_Bhw.shape == (2, 6, 12)


@pytest.mark.parametrize(
    ("backbone", "layer", "message"),
    [
        ("crossvit_tiny_240", None, "the output of 'crossvit_tiny_240' is not one tensor"),
        ("test_vit", "norm", "do not depend on the patch tokens of target_layer 'norm' of 'test_vit'"),
        (
            "test_vit",
            "block.5.norm1",
            "unknown target_layer 'block.5.norm1' of 'test_vit'; did you mean blocks.5.norm1",
        ),
    ],
)
def test_layers_without_an_answer_are_refused(backbone: str, layer: str | None, message: str) -> None:
    size = 240 if backbone.startswith("crossvit") else 160
    with pytest.raises(UsageError, match=message):
        wsolbench.create_method("gradcam", num_classes=5, backbone=backbone, target_layer=layer).localize(
            torch.randn(1, 3, size, size)
        )


def test_gradcam_at_the_last_layer_of_a_pooled_linear_cnn_is_the_rectified_cam() -> None:
    cam, gradcam = scrambled("cam", "test_resnet"), scrambled("gradcam", "test_resnet")
    assert torch.equal(cam.localize(images()).logits_BK, gradcam.localize(images()).logits_BK)
    maps_cam = cam.localize(images(), torch.tensor(CLASSES)).maps_Bhw
    maps_gradcam = gradcam.localize(images(), torch.tensor(CLASSES)).maps_Bhw
    cells = maps_cam[0].numel()  # the mean's gradient is weight / cells
    assert maps_cam.min() < 0 < maps_cam.max()
    torch.testing.assert_close(maps_gradcam * cells, maps_cam.relu(), rtol=1e-5, atol=1e-5)


def test_cam_adds_up_to_the_logit() -> None:
    """CAM without bias: its mean plus the class's bias is the class's score."""
    cam = scrambled("cam", "test_resnet")
    labels_B = torch.tensor(CLASSES)
    prediction = cam.localize(images(), labels_B)
    bias_B = cam.classifier.get_classifier().bias[labels_B].detach()
    assert prediction.logits_BK is not None
    scores_B = prediction.logits_BK[torch.arange(3), labels_B]
    torch.testing.assert_close(prediction.maps_Bhw.mean((1, 2)) + bias_B, scores_B, rtol=1e-5, atol=1e-5)


def test_cam_and_gradcam_share_the_classifiers_state_dict() -> None:
    states = [wsolbench.create_method(n, num_classes=5, backbone="test_resnet").classifier for n in ("cam", "gradcam")]
    shapes = [{name: value.shape for name, value in state.state_dict().items()} for state in states]
    assert shapes[0] == shapes[1]


def test_relu_is_an_option() -> None:
    signed = scrambled("gradcam", "test_resnet", relu=False).localize(images(), torch.tensor(CLASSES)).maps_Bhw
    cut = scrambled("gradcam", "test_resnet").localize(images(), torch.tensor(CLASSES)).maps_Bhw
    assert signed.min() < 0
    assert torch.equal(signed.relu(), cut)


@pytest.mark.parametrize("backbone", ["test_convnext", "mobilenetv3_small_050"])
def test_cam_refuses_heads_that_are_not_pooling_and_linear(backbone: str) -> None:
    with pytest.raises(
        UsageError, match=f"'cam' cannot run on backbone '{backbone}': it does not end in global average"
    ):
        wsolbench.create_method("cam", num_classes=5, backbone=backbone)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("layer44", "unknown target_layer 'layer44' of 'test_resnet'; did you mean layer4"),
        ("fc", "gives shape .* which is no map"),
    ],
)
def test_unusable_target_layer_is_said(layer: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        wsolbench.create_method("gradcam", num_classes=5, backbone="test_resnet", target_layer=layer).localize(images())


def test_no_hook_and_no_grad_mode_is_left_behind() -> None:
    method = scrambled("gradcam", "test_vit")
    method.localize(images())
    assert torch.is_grad_enabled()
    assert not method.classifier.get_submodule("blocks.5.norm1")._forward_hooks


@pytest.mark.parametrize("inference", [False, True])
def test_a_layer_that_hands_on_the_images_leaves_them_alone(inference: bool) -> None:
    method = scrambled("gradcam", "test_resnet")
    method.classifier = torch.nn.Sequential(torch.nn.Identity(), method.classifier)
    method.layer = "0"
    with torch.inference_mode(inference):
        images_BCHW = images().clone()
        maps_Bhw = method.localize(images_BCHW).maps_Bhw
    assert not images_BCHW.requires_grad
    assert maps_Bhw.shape == (3, 160, 160)
    assert maps_Bhw.max() > 0
