"""The reference networks as backbones: timm's interface, their initialisation, starting from torchvision's weights.

That they compute what wsolevaluation computes is tests/methods/test_wsol_cnns.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from wsol_cnns import NETWORKS

from wsolbench.backbones import create_backbone, family
from wsolbench.cli.list import list_section
from wsolbench.errors import UsageError

every_network = pytest.mark.parametrize("name", NETWORKS)


def build(name: str, num_classes: int = 5, **kwargs: Any) -> Any:
    torch.manual_seed(0)
    return create_backbone(name, num_classes=num_classes, pretrained=False, **kwargs).eval()


@every_network
def test_has_timms_interface(name: str) -> None:
    model = build(name)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = model.forward_features(images)
        pooled = model.forward_head(features, pre_logits=True)
        logits = model(images)
        assert pooled.shape == (2, model.num_features)
        assert torch.allclose(pooled, features.mean((2, 3)), atol=1e-5)
        assert logits.shape == (2, 5)
        assert torch.equal(logits, model.forward_head(features))
        weight = model.get_classifier().weight
        assert torch.allclose(logits, nn.functional.linear(pooled, weight.flatten(1)), atol=1e-4)  # biases start at 0
        assert model.pretrained_cfg["classifier"] == ("SPG_A4" if "inception" in name else "fc")
        model.reset_classifier(4)
        assert model(images).shape == (2, 4)
        assert model.num_classes == 4
        model.reset_classifier(0)
        assert torch.equal(model(images), pooled)
    info = model.feature_info[-1]
    assert (info["num_chs"], info["reduction"]) == (model.num_features, 8 if name.endswith("_28") else 16)
    assert family(name) == "cnn"


@every_network
def test_starts_as_the_reference_does(name: str) -> None:
    """He (normal, fan out) for VGG's convolutions, Xavier (uniform) for the others', N(0, 0.01) for linear layers."""
    model = build(name)
    checked = 0
    for part in model.modules():
        if isinstance(part, nn.Conv2d) and part.weight.numel() > 20_000:
            fan_in, fan_out = part.weight[0].numel(), part.weight[:, 0].numel()
            expected = (2 / fan_out if "vgg" in name else 2 / (fan_in + fan_out)) ** 0.5
            largest = part.weight.abs().max().item() / expected
            assert part.weight.std().item() == pytest.approx(expected, rel=0.03)
            assert (largest > 3) if "vgg" in name else (largest == pytest.approx(3**0.5, rel=0.01))
            checked += 1
        elif isinstance(part, nn.Linear):
            assert part.weight.std().item() == pytest.approx(0.01, rel=0.05)
        elif isinstance(part, nn.BatchNorm2d):
            assert (part.weight == 1).all()  # timm would start the last of each block at 0
        if getattr(part, "bias", None) is not None:
            assert not part.bias.any()
    assert checked >= 10


def resnet50() -> dict[str, Tensor]:
    state: dict[str, Tensor] = torchvision.models.resnet50().state_dict()
    return state


def vgg16() -> dict[str, Tensor]:
    """Of its own classifier only names: 120 million values that must not be read."""
    state: dict[str, Tensor] = torchvision.models.vgg16(init_weights=False).features.state_dict()
    return {f"features.{name}": value for name, value in state.items()} | {"classifier.0.weight": torch.zeros(1)}


def inception_v3() -> dict[str, Tensor]:
    state: dict[str, Tensor] = torchvision.models.inception_v3(init_weights=False).state_dict()
    return state


@pytest.mark.parametrize(
    ("name", "source", "new"),
    [
        ("wsol_resnet50", resnet50, ("fc.",)),
        ("wsol_vgg16", vgg16, ("conv6.", "fc.")),
        ("wsol_vgg16_28", vgg16, ("conv6.", "fc.")),
        ("wsol_inception_v3", inception_v3, ("SPG_",)),
    ],
)
def test_starts_from_torchvisions_weights(
    name: str, source: Callable[[], dict[str, Tensor]], new: tuple[str, ...]
) -> None:
    torch.manual_seed(1)
    theirs = source()
    model = timm.create_model(
        name, pretrained=True, num_classes=5, pretrained_cfg_overlay={"state_dict": theirs, "url": ""}
    )
    state = model.state_dict()
    taken = [value for key, value in state.items() if not key.startswith(new)]
    given = [v for k, v in theirs.items() if not k.startswith(("classifier.", "Mixed_7", "AuxLogits", "fc."))]
    assert len(taken) == len(given)
    # In the order of the network, which is that of both dicts: VGG's keys differ.
    assert all(torch.equal(ours, other) for ours, other in zip(taken, given, strict=True))
    torch.manual_seed(2)
    fresh = create_backbone(name, num_classes=5, pretrained=False).state_dict()
    heads = [key for key in state if key.startswith(new)]
    assert len(heads) >= 2
    assert all(state[key].shape == fresh[key].shape for key in heads)


def test_resnet_keeps_torchvisions_classifier_for_its_thousand_classes() -> None:
    torch.manual_seed(1)
    theirs = resnet50()
    model = timm.create_model(
        "wsol_resnet50", pretrained=True, pretrained_cfg_overlay={"state_dict": theirs, "url": ""}
    )
    assert torch.equal(model.fc.weight, theirs["fc.weight"])


def test_weights_that_do_not_fit_are_refused() -> None:
    theirs = {**inception_v3(), "Mixed_6f.weight": torch.zeros(1)}
    with pytest.raises(RuntimeError, match="Mixed_6f"):
        timm.create_model(
            "wsol_inception_v3", pretrained=True, pretrained_cfg_overlay={"state_dict": theirs, "url": ""}
        )


def test_are_listed_and_suggested() -> None:
    rows = {name: summary for name, summary, _ in list_section("backbones")}
    assert {*NETWORKS} <= rows.keys()
    assert "28x28 maps" in rows["wsol_vgg16_28"]
    with pytest.raises(UsageError, match="did you mean 'wsol_vgg16'"):
        create_backbone("wsol_vgg", num_classes=2, pretrained=False)
