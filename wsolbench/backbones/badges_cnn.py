"""`badges_cnn`: a small CNN for 64x64 images whose units see 23 pixels, so that its 16x16 maps do not bleed.

GroupNorm, because few-shot training has batches of ten images.
"""

from __future__ import annotations

from typing import Any

from timm.layers.classifier import ClassifierHead
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from wsolbench.backbones.embedded import weights_file

__all__ = ["BadgesCNN", "Trunk"]

MEAN_STD = {"mean": (0.5,) * 3, "std": (0.25,) * 3}  # the data set's normalisation


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.GroupNorm(8, outputs), nn.ReLU()
    )


class Trunk(nn.Module):
    """Images [B, C, H, W] to features [B, 64, H/4, W/4] with a receptive field of 23 pixels."""

    num_features = 64

    def __init__(self, in_chans: int = 3) -> None:
        super().__init__()
        self.stem = _conv(in_chans, 16, 7, 2)  # sees 7 pixels
        self.fine = _conv(16, 32, 3)  # 11
        self.down = _conv(32, 64, 3, 2)  # 15
        self.coarse = _conv(64, 64, 3)  # 23

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x: Tensor = self.down(self.fine(self.stem(x_BCHW)))
        features: Tensor = x + self.coarse(x)
        return features


class BadgesCNN(nn.Module):
    """Trunk, two pointwise layers, global average pooling and a linear classifier, with timm's interface."""

    def __init__(
        self, num_classes: int = 16, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.num_features = self.head_hidden_size = 160
        self.drop_rate = drop_rate
        self.trunk = Trunk(in_chans)
        self.widen = _conv(64, self.num_features, 1)
        self.mix = _conv(self.num_features, self.num_features, 1)
        self.feature_info = [{"num_chs": self.num_features, "reduction": 4, "module": "mix"}]
        self.head = ClassifierHead(self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate)

    @property
    def global_pool(self) -> str:
        """How features are pooled before the classifier; "" leaves them a map."""
        return str(self.head.global_pool.pool_type)

    def get_classifier(self) -> nn.Module:
        """The linear layer."""
        classifier: nn.Module = self.head.fc
        return classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the linear layer."""
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)

    def forward_features(self, x_BCHW: Tensor) -> Tensor:
        """Feature map [B, 160, H/4, W/4], not negative."""
        x = self.widen(self.trunk(x_BCHW))
        features: Tensor = x + self.mix(x)
        return features

    def forward_head(self, x_BChw: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits [B, K], or pooled features [B, 160]."""
        output: Tensor = self.head(x_BChw, pre_logits=pre_logits)
        return output

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x_BCHW))


default_cfgs = generate_default_cfgs(
    {
        "badges_cnn": {
            "file": str(weights_file("badges_cnn")),
            "num_classes": 16,
            "input_size": (3, 64, 64),
            "pool_size": (16, 16),
            "crop_pct": 1.0,
            "first_conv": "trunk.stem.0",
            "classifier": "head.fc",
            "license": "mit",
            **MEAN_STD,
        }
    }
)


@register_model
def badges_cnn(pretrained: bool = False, **kwargs: Any) -> BadgesCNN:
    """The embedded CNN: 0.1 M parameters, pretrained on letters by `wsolbench pretrain`."""
    model: BadgesCNN = build_model_with_cfg(BadgesCNN, "badges_cnn", pretrained, **kwargs)
    return model
