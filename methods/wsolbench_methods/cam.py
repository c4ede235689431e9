"""CAM: Class Activation Mapping (Zhou et al., CVPR 2016).  https://arxiv.org/abs/1512.04150

On a CNN that ends in global average pooling and a linear layer: the class's weights times the last feature map, no bias,
no ReLU. The networks of the field's reference, clovaai/wsolevaluation (Choe et al., CVPR 2020, commit 96f4b88), are
`wsol_resnet50`, `wsol_vgg16`, `wsol_inception_v3` (14x14 maps) and `..._28` (28x28), re-implemented from facts; its CAM,
HaS and CutMix checkpoints load. Compared with its code on random weights: the released files were not at hand.
On a ViT: the token analogue, a 3x3 convolution to classes over the patch tokens with a global average (TS-CAM's
"TransCAM" ablation, Gao et al., ICCV 2021, which is not in its authors' code: TS-CAM's S_c, of the same weights), so that
method and backbone are not confounded.

Differs from wsolevaluation: its ResNet and VGG maps are divided by the number of channels, a factor that normalisation
removes; its InceptionV3 is fully convolutional, and there both read the class map with its bias. Any timm CNN with such a
head works. The token classifier trains without stochastic depth. Thresholds and checkpoint selection belong to the protocol.
"""

# B batch, C channels, H W image, h w map, K classes, D width

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsolbench.backbones import create_backbone, family
from wsolbench.config import TrainConfig
from wsolbench.method import (
    Layout,
    Method,
    State,
    Training,
    classifier_groups,
    classifier_layout,
    evaluating,
    true_or_predicted,
    wide,
)
from wsolbench.registry import register_method
from wsolbench.types import Batch, Prediction
from wsolbench_methods.networks.pooled import PooledLinear, channels_first, check_pooled_linear, class_maps
from wsolbench_methods.networks.vit import (
    TSCAM_AUTHORS,
    ConvHead,
    Grid,
    build_vit,
    embed,
    final_norm,
    plain_vit,
    recomputing,
)


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
            check_pooled_linear(self.classifier, self.backbone, asked_by="cam")

    @classmethod
    def training_for(cls, backbone: str | None) -> Training:
        """A CNN's classifier is the shared one; a ViT needs the convolutional head, which it trains itself."""
        return "own" if backbone is not None and family(backbone) == "vit" else "classifier"

    def layouts(self) -> Sequence[Layout]:
        """Of a CNN the classifier itself; of a ViT TS-CAM's network, which is the same, or all but a plain ViT's head."""
        if isinstance(self.classifier, TokenClassifier):
            return (
                Layout(TSCAM_AUTHORS.name, TSCAM_AUTHORS.told_by, _from_tscam),
                plain_vit("classifier.vit.", absent=("classifier.head.",)),
            )
        return (classifier_layout(self.classifier),)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the classifier."""
        return {"cls": F.cross_entropy(wide(self.classifier(batch.images_BCHW)), batch.labels_B)}

    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Prediction:
        """Signed class maps on the last feature map or patch grid."""
        with evaluating(self), torch.no_grad():
            if isinstance(self.classifier, TokenClassifier):
                patches_BPD, grid = self.classifier.patches(images_BCHW)
                logits_BK = self.classifier.head.logits(patches_BPD, grid)
                classes_B = true_or_predicted(logits_BK, labels_B)
                maps_Bhw = self.classifier.head.class_map(patches_BPD, grid, classes_B)
            else:
                cnn = cast(PooledLinear, self.classifier)
                features = cnn.forward_features(images_BCHW)
                logits_BK = cnn.forward_head(features)
                classes_B = true_or_predicted(logits_BK, labels_B)
                maps_Bhw = class_maps(channels_first(cnn, features), cnn.get_classifier(), classes_B)
        return Prediction(logits_BK.float(), maps_Bhw.float())

    def param_groups(self, train_config: TrainConfig) -> list[dict[str, Any]]:
        """The classifier's own groups where it brings some (`wsol_*`); else 1-d tensors are free of weight decay."""
        return classifier_groups(self.classifier, train_config) or super().param_groups(train_config)


def _from_tscam(state: State) -> State:
    return {f"classifier.{name}": value for name, value in TSCAM_AUTHORS.convert(state).items()}


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
        for block in self.vit.blocks:
            x_BND = recomputing(self.vit, block, x_BND)
        return final_norm(self.vit, x_BND)[:, self.vit.num_prefix_tokens :], grid

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """That of the ViT."""
        self.vit.set_grad_checkpointing(enable)
