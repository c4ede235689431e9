"""`wsol_inception_v3`, `wsol_inception_v3_28`: InceptionV3 as clovaai/wsolevaluation runs it, 14x14 or 28x28 final maps.

Inception-v3 (Szegedy et al., CVPR 2016), https://arxiv.org/abs/1512.00567, up to Mixed_6e, with the fully convolutional
head of SPG (Zhang et al., ECCV 2018), https://arxiv.org/abs/1807.08860, in the version of Choe et al., CVPR 2020,
https://arxiv.org/abs/2001.07437. Padding differs from torchvision's network, whose blocks it uses, and Mixed_6a keeps the
resolution: a pooling before it, left out of the 28x28 version, halves it instead. No auxiliary classifier.
Checkpoints do not tell the two versions apart.

The reference classifies at each place and averages the class maps; here pooled features are classified, which is the same
by linearity and makes no K maps.
"""

from __future__ import annotations

from typing import Any, ClassVar, final

import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torchvision.models import Inception_V3_Weights
from torchvision.models.inception import BasicConv2d, InceptionA, InceptionB, InceptionC

from wsolbench.backbones._reference import AUTHORS, NORMALISATION, initialise, starting_state, two_rates
from wsolbench.config.schema import TrainConfig

__all__: list[str] = []

HEAD = ("SPG_A3_1b", "SPG_A3_2b", "SPG_A4")


@final
class KeepingInceptionB(InceptionB):  # type: ignore[misc]
    """torchvision's reduction block without the reduction: its three strides are 1, with padding 1."""

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels)
        for part in (self.branch3x3, self.branch3x3dbl_3):
            part.conv.stride = part.conv.padding = (1, 1)

    def _forward(self, x: Tensor) -> list[Tensor]:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return [self.branch3x3(x), double, F.max_pool2d(x, 3, stride=1, padding=1)]


@final
class ReferenceInceptionV3(nn.Module):
    """torchvision's blocks with the reference's padding and head, and timm's interface."""

    authors: ClassVar[str] = AUTHORS

    def __init__(
        self, num_classes: int = 1000, in_chans: int = 3, large_map: bool = False, drop_rate: float = 0.5
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = 1024
        self.Conv2d_1a_3x3 = BasicConv2d(in_chans, 32, kernel_size=3, stride=2, padding=1)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, kernel_size=3)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, kernel_size=3, padding=1)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, kernel_size=1)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, kernel_size=3)
        self.Mixed_5b = InceptionA(192, pool_features=32)
        self.Mixed_5c = InceptionA(256, pool_features=64)
        self.Mixed_5d = InceptionA(288, pool_features=64)
        self.shrink = nn.Identity() if large_map else nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.Mixed_6a = KeepingInceptionB(288)
        self.Mixed_6b = InceptionC(768, channels_7x7=128)
        self.Mixed_6c = InceptionC(768, channels_7x7=160)
        self.Mixed_6d = InceptionC(768, channels_7x7=160)
        self.Mixed_6e = InceptionC(768, channels_7x7=192)
        self.dropout = nn.Dropout(drop_rate)
        self.SPG_A3_1b = nn.Sequential(nn.Conv2d(768, 1024, 3, padding=1), nn.ReLU())
        self.SPG_A3_2b = nn.Sequential(nn.Conv2d(1024, 1024, 3, padding=1), nn.ReLU())
        self.SPG_A4: nn.Module = nn.Conv2d(1024, num_classes, 1) if num_classes else nn.Identity()
        self.feature_info = [{"num_chs": 1024, "reduction": 8 if large_map else 16, "module": "SPG_A3_2b"}]
        initialise(self, he=False)

    def get_classifier(self) -> nn.Module:
        """The 1x1 convolution to classes."""
        return self.SPG_A4

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the 1x1 convolution."""
        self.num_classes = num_classes
        self.SPG_A4 = nn.Conv2d(1024, num_classes, 1) if num_classes else nn.Identity()
        initialise(self.SPG_A4, he=False)

    def forward_features(self, x_BCHW: Tensor) -> Tensor:
        """Feature map [B, 1024, h, w], not negative."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x_BCHW)))
        x = F.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        x = F.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6a(self.shrink(x))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))
        features: Tensor = self.SPG_A3_2b(self.dropout(self.SPG_A3_1b(self.dropout(x))))
        return features

    def forward_head(self, x_BChw: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits [B, K], or pooled features [B, 1024]."""
        pooled_BC11 = self.dropout(x_BChw).mean((2, 3), keepdim=True)
        logits_BK11: Tensor = pooled_BC11 if pre_logits else self.SPG_A4(pooled_BC11)
        return logits_BK11.flatten(1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x_BCHW))

    def optimizer_groups(self, train_config: TrainConfig) -> list[dict[str, Any]]:
        """The new head learns at lr * head_lr_scale (the reference: 10); everything decays."""
        return two_rates(self, train_config, fast=HEAD)


def _from_torchvision(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    return starting_state(
        state, model, dropped=("Mixed_7", "AuxLogits.", "fc."), new=tuple(f"{part}." for part in HEAD)
    )


default_cfgs = generate_default_cfgs(
    {
        name: {
            "url": Inception_V3_Weights.IMAGENET1K_V1.url,
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": (side, side),
            "crop_pct": 1.0,
            "first_conv": "Conv2d_1a_3x3.conv",
            "classifier": "SPG_A4",
            **NORMALISATION,
        }
        for name, side in (("wsol_inception_v3", 14), ("wsol_inception_v3_28", 28))
    }
)


def _build(name: str, pretrained: bool, **kwargs: Any) -> ReferenceInceptionV3:
    model: ReferenceInceptionV3 = build_model_with_cfg(
        ReferenceInceptionV3, name, pretrained, pretrained_filter_fn=_from_torchvision, **kwargs
    )
    return model


@register_model
def wsol_inception_v3(pretrained: bool = False, **kwargs: Any) -> ReferenceInceptionV3:
    """InceptionV3 of wsolevaluation: 14x14 maps of a 224 image, 25.5 M parameters and the classifier."""
    return _build("wsol_inception_v3", pretrained, **kwargs)


@register_model
def wsol_inception_v3_28(pretrained: bool = False, **kwargs: Any) -> ReferenceInceptionV3:
    """InceptionV3 of wsolevaluation: 28x28 maps of a 224 image."""
    return _build("wsol_inception_v3_28", pretrained, **{"large_map": True, **kwargs})
