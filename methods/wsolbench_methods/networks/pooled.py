"""CNNs that end in global average pooling and one linear map to classes: told by what they compute, and read out."""

# B batch, C channels, h w map, K classes

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsolbench.errors import UsageError
from wsolbench.method import evaluating, no_autocast, wide

FITTING = "resnet50, densenet121, wsol_vgg16 or badges_cnn"


class PooledLinear(Protocol):
    """What is used of such a network: timm's interface."""

    def forward_features(self, x: Tensor) -> Tensor: ...
    def forward_head(self, x: Tensor) -> Tensor: ...
    def get_classifier(self) -> nn.Linear | nn.Conv2d: ...


def class_maps(features_BChw: Tensor, classifier: nn.Linear | nn.Conv2d, classes_B: Tensor) -> Tensor:
    """Each image's class weights applied to its features, [B, h, w].

    Without bias for a linear layer, as CAM is defined. A 1x1 convolution makes class maps itself, bias included: those
    are read, one channel per image instead of K.
    """
    weight_BC = wide(classifier.weight[classes_B]).flatten(1)
    with no_autocast(weight_BC):
        maps_Bhw = torch.einsum("bchw,bc->bhw", wide(features_BChw), weight_BC)
    if isinstance(classifier, nn.Linear) or classifier.bias is None:
        return maps_Bhw
    return maps_Bhw + wide(classifier.bias[classes_B])[:, None, None]


def channels_first(model: Any, features: Tensor) -> Tensor:
    """Features as [B, C, h, w], whatever timm's `output_fmt` says they are."""
    return features.permute(0, 3, 1, 2) if getattr(model, "output_fmt", "NCHW") == "NHWC" else features


def check_pooled_linear(model: nn.Module, name: str, *, asked_by: str) -> None:
    """Refuse a network whose class weights times features would not add up to its logits.

    Raises:
        UsageError: one sentence with what stands in the way.
    """
    reason = _unfit(model)
    if reason:
        raise UsageError(
            f"'{asked_by}' cannot run on backbone '{name}': it does not end in global average pooling and a linear "
            f"layer ({reason}); take a network that does, e.g. {FITTING}, or use gradcam"
        )


@torch.no_grad()
def _unfit(model: Any) -> str:
    """What keeps logits from being the linear layer of averaged features; empty if nothing does.

    Decided by behaviour, on a made-up feature map, since timm's heads have many shapes.
    """
    if not hasattr(model, "forward_head") or not hasattr(model, "get_classifier"):
        return f"{type(model).__name__} has no head of its own"
    linear = model.get_classifier()
    if isinstance(linear, nn.Linear):
        channels = linear.in_features
    elif isinstance(linear, nn.Conv2d) and linear.kernel_size == (1, 1) and linear.groups == 1:
        channels = linear.in_channels
    else:
        return f"its classifier is a {type(linear).__name__}"
    made_up = torch.linspace(-1, 1, channels * 9, device=linear.weight.device, dtype=linear.weight.dtype).sin()
    features_1Chw = made_up.view(1, channels, 3, 3)
    given = features_1Chw.permute(0, 2, 3, 1) if getattr(model, "output_fmt", "NCHW") == "NHWC" else features_1Chw
    if getattr(model, "num_features", channels) != channels:  # more layers behind the features: find out which
        given = given.new_zeros(1, model.num_features, 3, 3)
    logits_1K, read, reached = _run_head(model, linear, given)
    # Not the logits alone: a classifier that starts at zero would agree with anything.
    pooled_1C = features_1Chw.mean((2, 3))
    expected_1K = F.linear(pooled_1C, linear.weight.flatten(1), linear.bias)
    if len(read) == 1 and _same(read[0], pooled_1C) and _same(logits_1K, expected_1K):
        return ""
    if reached:
        return f"its head also runs {' and '.join(reached)}"
    return "its features are no map" if logits_1K is None else "its head pools in another way, or goes on behind it"


def _run_head(model: Any, linear: nn.Module, features: Tensor) -> tuple[Any, list[Tensor], list[str]]:
    """Logits (None: the head takes another shape), what `linear` was given, and other layers with weights on the way."""
    read: list[Tensor] = []
    reached: list[str] = []
    hooks = [
        part.register_forward_pre_hook(lambda part, _, path=path: reached.append(f"{path} ({type(part).__name__})"))
        for path, part in model.named_modules()
        if part is not linear and any(True for _ in part.parameters(recurse=False))
    ]
    hooks.append(linear.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].flatten(1))))
    try:
        with evaluating(model):
            return model.forward_head(features), read, reached
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
        return None, read, reached  # what it reached before it found out may tell
    finally:
        for hook in hooks:
            hook.remove()


def _same(found: Any, expected: Tensor) -> bool:
    return isinstance(found, Tensor) and found.shape == expected.shape and torch.allclose(found, expected, atol=1e-4)
