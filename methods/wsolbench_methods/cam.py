"""CAM: Class Activation Mapping (Zhou et al., CVPR 2016).  https://arxiv.org/abs/1512.04150

On a CNN that ends in global average pooling and a linear layer: the class's weights times the last feature map, no bias,
no ReLU. On a ViT: the token analogue, a 3x3 convolution to classes over the patch tokens with a global average (TS-CAM's
"TransCAM" ablation, Gao et al., ICCV 2021), so that method and backbone are not confounded.
Differs from wsolevaluation, whose maps are divided by the number of channels: normalisation removes the factor.
"""

# B batch, C channels, H W image, h w map, K classes, D width

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsolbench.backbones import create_backbone, family
from wsolbench.checkpoint import Layout, prefixed
from wsolbench.errors import UsageError
from wsolbench.method import Method, Training, evaluating, true_or_predicted
from wsolbench.registry import register_method
from wsolbench.types import Batch, Prediction
from wsolbench_methods._vit import ConvHead, Grid, build_vit, embed, final_norm, plain_vit


@register_method("cam")
@final
class CAM(Method):
    """The true or predicted class's weights applied to the last feature map (CNN) or the patch tokens (ViT)."""

    default_backbone: ClassVar[str | None] = "resnet50"
    version: ClassVar[int] = 1

    def __init__(self, config: Any, **build: Any) -> None:
        super().__init__(config, **build)
        if self.training_for(self.backbone) == "own":
            self.classifier: nn.Module = TokenClassifier(self.backbone, self.num_classes, self.pretrained)
        else:
            assert self.backbone is not None
            self.classifier = create_backbone(self.backbone, num_classes=self.num_classes, pretrained=self.pretrained)
            check_pooled_linear(self.classifier, self.backbone)

    @classmethod
    def training_for(cls, backbone: str | None) -> Training:
        """A CNN's classifier is the shared one; a ViT needs the convolutional head, which it trains itself."""
        return "own" if backbone is not None and family(backbone) == "vit" else "classifier"

    def layouts(self) -> Sequence[Layout]:
        """Plain classifiers; of a ViT's, all but the head."""
        if isinstance(self.classifier, TokenClassifier):
            return (plain_vit("classifier.vit.", absent=("classifier.head.",)),)
        return (prefixed("plain classifier", "classifier."),)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the classifier."""
        return {"cls": F.cross_entropy(self.classifier(batch.images_BCHW), batch.labels_B)}

    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Prediction:
        """Signed class maps on the last feature map or patch grid."""
        with evaluating(self), torch.no_grad():
            if isinstance(self.classifier, TokenClassifier):
                patches_BPD, grid = self.classifier.patches(images_BCHW)
                logits_BK = self.classifier.head.logits(patches_BPD, grid)
                classes_B = true_or_predicted(logits_BK, labels_B)
                maps_Bhw = self.classifier.head.class_map(patches_BPD, grid, classes_B)
            else:
                cnn = cast(TimmCNN, self.classifier)
                features_BChw = cnn.forward_features(images_BCHW)
                logits_BK = cnn.forward_head(features_BChw)
                classes_B = true_or_predicted(logits_BK, labels_B)
                maps_Bhw = torch.einsum("bchw,bc->bhw", features_BChw, cnn.get_classifier().weight[classes_B])
        return Prediction(logits_BK.float(), maps_Bhw.float())


class TimmCNN(Protocol):
    """What CAM uses of a timm model."""

    num_features: int

    def forward_features(self, x: Tensor) -> Tensor: ...
    def forward_head(self, x: Tensor) -> Tensor: ...
    def get_classifier(self) -> nn.Linear: ...


@final
class TokenClassifier(nn.Module):
    """ViT whose classes are read from the patch tokens: 3x3 convolution, then global average."""

    def __init__(self, backbone: str | None, num_classes: int, pretrained: bool) -> None:
        super().__init__()
        self.vit = build_vit(backbone, asked_by="cam", pretrained=pretrained)
        self.head = ConvHead(self.vit.embed_dim, num_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Logits [B, K]."""
        return self.head.logits(*self.patches(images_BCHW))

    def patches(self, images_BCHW: Tensor) -> tuple[Tensor, Grid]:
        """Patch tokens after the last norm, [B, P, D], and their grid."""
        x_BND, grid = embed(self.vit, images_BCHW)
        return final_norm(self.vit, self.vit.blocks(x_BND))[:, self.vit.num_prefix_tokens :], grid


@torch.no_grad()
def check_pooled_linear(model: nn.Module, name: str) -> None:
    """Refuse a network whose head is not global average + linear: CAM's map would not add up to the logit.

    Decided by behaviour, on a made-up feature map, since timm's heads have many shapes.
    """
    cnn = cast(TimmCNN, model)
    linear = cnn.get_classifier() if hasattr(model, "forward_head") else None
    if isinstance(linear, nn.Linear):
        count = linear.in_features * 9
        features_1Chw = torch.linspace(-1, 1, count, device=linear.weight.device).sin().view(1, -1, 3, 3)
        with evaluating(model):
            try:
                same = torch.allclose(cnn.forward_head(features_1Chw), linear(features_1Chw.mean((2, 3))), atol=1e-4)
            except RuntimeError:  # the head takes other shapes than [B, C, h, w]
                same = False
        if same:
            return
    raise UsageError(
        f"'cam' cannot run on backbone '{name}': it does not end in global average pooling and a linear layer; "
        "take a network that does, e.g. resnet50 or badges_cnn, or use gradcam"
    )
