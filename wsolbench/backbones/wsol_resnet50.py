"""`wsol_resnet50`, `wsol_resnet50_28`: ResNet-50 as clovaai/wsolevaluation runs it, with 14x14 or 28x28 final maps.

Deep Residual Learning (He et al., CVPR 2016), https://arxiv.org/abs/1512.03385, in the version of Choe et al., CVPR 2020,
https://arxiv.org/abs/2001.07437. It is timm's ResNet (stride on the 3x3 convolution) but for the strides: the last stage
has none, and of the 28x28 version the third has none either; nothing is dilated. Keys are those of torchvision and of the
reference's checkpoints, which do not tell the two versions apart.
"""

from __future__ import annotations

from typing import Any, ClassVar, final

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import Bottleneck, ResNet
from torchvision.models import ResNet50_Weights

from wsolbench.backbones._reference import AUTHORS, NORMALISATION, initialise, two_rates
from wsolbench.config.schema import TrainConfig

__all__: list[str] = []


@final
class ReferenceResNet50(ResNet):
    """timm's ResNet-50 with fewer strides and the reference's initialisation."""

    authors: ClassVar[str] = AUTHORS

    def __init__(self, large_map: bool = False, **kwargs: Any) -> None:
        block: Any = Bottleneck
        super().__init__(block, (3, 4, 6, 3), **kwargs)
        stages: list[Any] = [self.layer3, self.layer4] if large_map else [self.layer4]
        for first in (stage[0] for stage in stages):
            first.conv2.stride = first.downsample[0].stride = (1, 1)
            first.stride = 1
        features: list[dict[str, Any]] = self.feature_info
        for info in features:
            info["reduction"] = min(info["reduction"], 8 if large_map else 16)
        initialise(self, he=False)

    def optimizer_groups(self, train_config: TrainConfig) -> list[dict[str, Any]]:
        """The last stage and the classifier learn at lr * head_lr_scale (the reference: 10); everything decays."""
        return two_rates(self, train_config, fast=("layer4", "fc"))


default_cfgs = generate_default_cfgs(
    {
        name: {
            "url": ResNet50_Weights.IMAGENET1K_V1.url,
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": (side, side),
            "crop_pct": 1.0,
            "first_conv": "conv1",
            "classifier": "fc",
            **NORMALISATION,
        }
        for name, side in (("wsol_resnet50", 14), ("wsol_resnet50_28", 28))
    }
)


@register_model
def wsol_resnet50(pretrained: bool = False, **kwargs: Any) -> ReferenceResNet50:
    """ResNet-50 of wsolevaluation: 14x14 maps of a 224 image, 23.5 M parameters and the classifier."""
    model: ReferenceResNet50 = build_model_with_cfg(ReferenceResNet50, "wsol_resnet50", pretrained, **kwargs)
    return model


@register_model
def wsol_resnet50_28(pretrained: bool = False, **kwargs: Any) -> ReferenceResNet50:
    """ResNet-50 of wsolevaluation: 28x28 maps of a 224 image."""
    model: ReferenceResNet50 = build_model_with_cfg(
        ReferenceResNet50, "wsol_resnet50_28", pretrained, **{"large_map": True, **kwargs}
    )
    return model
