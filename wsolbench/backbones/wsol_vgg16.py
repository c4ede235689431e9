"""`wsol_vgg16`, `wsol_vgg16_28`: VGG16-GAP as clovaai/wsolevaluation runs it, with 14x14 or 28x28 final maps.

VGG (Simonyan and Zisserman, ICLR 2015), https://arxiv.org/abs/1409.1556, without batch norm, without its last pooling (the
28x28 version without the last two), and with a 3x3 convolution to 1024 channels, global average and a linear layer for its
three linear layers (Zhou et al., CVPR 2016), in the version of Choe et al., CVPR 2020, https://arxiv.org/abs/2001.07437.
The pooling left out moves the numbers of the layers behind it, in the keys too.
"""

from __future__ import annotations

from typing import Any, ClassVar, final

import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn
from torchvision.models import VGG16_Weights
from torchvision.models.vgg import make_layers

from wsolbench.backbones._reference import AUTHORS, NORMALISATION, initialise, starting_state, two_rates
from wsolbench.config.schema import TrainConfig

__all__: list[str] = []


@final
class ReferenceVGG16(nn.Module):
    """torchvision's convolutions with the reference's head, and timm's interface."""

    authors: ClassVar[str] = AUTHORS

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, large_map: bool = False) -> None:
        super().__init__()
        if in_chans != 3:
            raise ValueError("VGG16 of the reference takes images of three channels")
        pool: list[str | int] = [] if large_map else ["M"]
        stages = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, *pool, 512, 512, 512]
        self.features = make_layers(stages)
        self.conv6 = nn.Conv2d(512, 1024, 3, padding=1)
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = 1024
        self.fc: nn.Module = nn.Linear(1024, num_classes) if num_classes else nn.Identity()
        self.feature_info = [{"num_chs": 1024, "reduction": 8 if large_map else 16, "module": "conv6"}]
        initialise(self, he=True)

    def get_classifier(self) -> nn.Module:
        """The linear layer."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the linear layer."""
        self.num_classes = num_classes
        self.fc = nn.Linear(1024, num_classes) if num_classes else nn.Identity()
        initialise(self.fc, he=True)

    def forward_features(self, x_BCHW: Tensor) -> Tensor:
        """Feature map [B, 1024, h, w], not negative."""
        return F.relu(self.conv6(self.features(x_BCHW)))

    def forward_head(self, x_BChw: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits [B, K], or pooled features [B, 1024]."""
        pooled_BC = x_BChw.mean((2, 3))
        logits: Tensor = pooled_BC if pre_logits else self.fc(pooled_BC)
        return logits

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x_BCHW))

    def optimizer_groups(self, train_config: TrainConfig) -> list[dict[str, Any]]:
        """The new head, `conv6` and `fc`, learns at lr * head_lr_scale (the reference: 10); everything decays."""
        return two_rates(self, train_config, fast=("conv6", "fc"))


def _from_torchvision(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """VGG16's convolutions under our numbers: counted, since the numbers differ behind a pooling that was left out."""
    theirs, ours = (
        sorted({int(name.split(".")[1]) for name in names if name.startswith("features.")})
        for names in (state, model.state_dict())
    )
    moved = dict(zip(theirs, ours, strict=True))
    renamed = {
        f"features.{moved[int(name.split('.')[1])]}.{name.split('.')[2]}"
        if name.startswith("features.")
        else name: value
        for name, value in state.items()
    }
    return starting_state(renamed, model, dropped=("classifier.",), new=("conv6.", "fc."))


default_cfgs = generate_default_cfgs(
    {
        name: {
            "url": VGG16_Weights.IMAGENET1K_V1.url,
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": (side, side),
            "crop_pct": 1.0,
            "first_conv": "features.0",
            "classifier": "fc",
            **NORMALISATION,
        }
        for name, side in (("wsol_vgg16", 14), ("wsol_vgg16_28", 28))
    }
)


def _build(name: str, pretrained: bool, **kwargs: Any) -> ReferenceVGG16:
    model: ReferenceVGG16 = build_model_with_cfg(
        ReferenceVGG16, name, pretrained, pretrained_filter_fn=_from_torchvision, **kwargs
    )
    return model


@register_model
def wsol_vgg16(pretrained: bool = False, **kwargs: Any) -> ReferenceVGG16:
    """VGG16-GAP of wsolevaluation: 14x14 maps of a 224 image, 19.4 M parameters and the classifier."""
    return _build("wsol_vgg16", pretrained, **kwargs)


@register_model
def wsol_vgg16_28(pretrained: bool = False, **kwargs: Any) -> ReferenceVGG16:
    """VGG16-GAP of wsolevaluation: 28x28 maps of a 224 image."""
    return _build("wsol_vgg16_28", pretrained, **{"large_map": True, **kwargs})
