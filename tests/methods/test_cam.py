"""CAM on timm's networks, accepted and refused, and on ViT tokens. On the reference networks: test_wsol_cnns.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import wsolbench
from wsolbench.errors import UsageError
from wsolbench.types import Batch
from wsolbench_methods._pooled import check_pooled_linear

POOLED_LINEAR = [
    "resnet18",
    "resnetv2_50d_gn",
    "densenet121",
    "regnetx_002",
    "regnety_002",
    "efficientnet_b0",
    "mobilenetv2_050",
    "inception_v4",
    "repvgg_a0",
    "hrnet_w18_small",
    "dla34",  # classifies by a 1x1 convolution, as does resnetv2
    "tinynet_e",
    "test_efficientnet",
    "test_nfnet",
    "swin_tiny_patch4_window7_224",  # channels last
]
REFUSED = {
    "mobilenetv3_small_050": "its head also runs conv_head (Conv2d)",
    "mobilenetv4_conv_small_035": "its head also runs conv_head (Conv2d) and norm_head (BatchNormAct2d)",
    "ghostnet_050": "its head also runs conv_head (Conv2d)",
    "convnext_atto": "its head also runs head.norm (LayerNorm2d)",
    "poolformer_s12": "its head also runs head.norm (LayerNorm2d)",
    "hgnetv2_b0": "its head also runs head.last_conv.0 (Conv2d)",
    "levit_128s": "its classifier is a tuple",
    "mixer_s32_224": "its features are no map",
}


@pytest.mark.parametrize("backbone", POOLED_LINEAR)
def test_class_maps_average_to_the_logit(backbone: str) -> None:
    """In float64: features of untrained networks can be large."""
    torch.manual_seed(0)
    cam: Any = wsolbench.create_method("cam", num_classes=3, backbone=backbone).double()
    nn.init.normal_(cam.classifier.get_classifier().bias)
    size = cam.classifier.pretrained_cfg["input_size"][-1] if "swin" in backbone else 128
    images_BCHW = torch.randn(2, 3, size, size, dtype=torch.float64)
    labels_B = torch.tensor([2, 0])
    prediction = cam.localize(images_BCHW, labels_B)
    scores_B = cam.classifier.eval()(images_BCHW)[[0, 1], labels_B].float()
    assert prediction.logits_BK is not None
    assert torch.equal(prediction.logits_BK[[0, 1], labels_B], scores_B)
    # A linear layer's bias is no part of a class map; that of a convolution to classes is.
    classifier = cam.classifier.get_classifier()
    bias_B = classifier.bias[labels_B].float() if isinstance(classifier, nn.Linear) else 0
    assert prediction.maps_Bhw.shape[1] > 1
    assert prediction.maps_Bhw.std() > 0
    torch.testing.assert_close(prediction.maps_Bhw.mean((1, 2)) + bias_B, scores_B, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", REFUSED)
def test_other_heads_are_refused_with_what_stands_in_the_way(backbone: str) -> None:
    with pytest.raises(UsageError) as caught:
        wsolbench.create_method("cam", num_classes=3, backbone=backbone)
    message = str(caught.value)
    assert message.startswith(f"'cam' cannot run on backbone '{backbone}': it does not end in global average pooling")
    assert REFUSED[backbone] in message
    assert message.endswith("e.g. resnet50, densenet121, wsol_vgg16 or badges_cnn, or use gradcam")
    assert "\n" not in message


class Made(nn.Module):
    """A head that is not what it seems."""

    def __init__(self, pool: str, zero: bool) -> None:
        super().__init__()
        self.pool = pool
        self.num_features = 4
        self.fc = nn.Linear(4, 3)
        if zero:
            nn.init.zeros_(self.fc.weight)

    def get_classifier(self) -> nn.Linear:
        return self.fc

    def forward_features(self, x: Tensor) -> Tensor:
        return x

    def forward_head(self, x: Tensor) -> Tensor:
        pooled = x.amax((2, 3)) if self.pool == "max" else x.mean((2, 3))
        logits: Tensor = self.fc(pooled)
        return logits.relu() if self.pool == "then relu" else logits


@pytest.mark.parametrize("zero", [False, True])
def test_a_classifier_that_starts_at_zero_hides_nothing(zero: bool) -> None:
    check_pooled_linear(Made("mean", zero), "made", asked_by="cam")
    with pytest.raises(UsageError, match="its head pools in another way"):
        check_pooled_linear(Made("max", zero), "made", asked_by="cam")


def test_what_follows_the_classifier_counts() -> None:
    torch.manual_seed(0)  # some logit is negative, or a ReLU would change nothing
    with pytest.raises(UsageError, match="'made'"):
        check_pooled_linear(Made("then relu", zero=False), "made", asked_by="cam")


def test_checking_leaves_the_network_as_it_was() -> None:
    model = Made("mean", zero=False).train()
    check_pooled_linear(model, "made", asked_by="cam")
    assert model.training
    assert not any(part._forward_pre_hooks for part in model.modules())


def test_token_cam_is_tscam_without_attention(exact: Batch, tmp_path: Path) -> None:
    """From the same checkpoint, in the layout of TS-CAM's authors: TS-CAM's map is CAM's times the attention.

    In float64, since maps are divided where they may be next to nothing.
    """
    torch.manual_seed(0)
    tscam: Any = wsolbench.create_method("tscam", num_classes=7, backbone="test_vit")
    with torch.no_grad():
        for parameter in tscam.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    state = {name.removeprefix("vit."): value for name, value in tscam.state_dict().items()}
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "model_best.pth")
    cam = wsolbench.create_method("cam", num_classes=7, backbone="test_vit")
    assert cam.load_checkpoint(tmp_path / "model_best.pth").name == "TS-CAM (authors)"
    cam, tscam = cam.double(), tscam.double()
    ours, theirs = (m.localize(exact.images_BCHW, exact.labels_B) for m in (cam, tscam))
    torch.testing.assert_close(ours.logits_BK, theirs.logits_BK, rtol=0, atol=1e-6)
    attention_Bhw = theirs.maps_Bhw / ours.maps_Bhw
    depth = len(tscam.vit.blocks)
    assert ours.maps_Bhw.min() < 0 < ours.maps_Bhw.max()
    assert attention_Bhw.min() > 0  # a softmax row without the class token's own share, summed over the blocks
    assert (attention_Bhw.sum((1, 2)) < depth).all()
    other = torch.tensor([1, 2, 0, 5])  # the attention knows no class
    again = tscam.localize(exact.images_BCHW, other).maps_Bhw / cam.localize(exact.images_BCHW, other).maps_Bhw
    torch.testing.assert_close(again, attention_Bhw, rtol=1e-5, atol=0)


def test_token_cams_map_averages_to_the_logit(batch: Batch) -> None:
    prediction = wsolbench.create_method("cam", num_classes=7, backbone="test_vit").localize(
        batch.images_BCHW, batch.labels_B
    )
    assert prediction.logits_BK is not None
    torch.testing.assert_close(
        prediction.maps_Bhw.mean((1, 2)), prediction.logits_BK[torch.arange(4), batch.labels_B], rtol=1e-5, atol=1e-6
    )
