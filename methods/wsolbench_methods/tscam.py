"""TS-CAM: Token Semantic Coupled Attention Map (Gao et al., ICCV 2021).  https://arxiv.org/abs/2103.14862

Authors' code: https://github.com/vasgaowei/TS-CAM (commit 25aece4), re-implemented from facts.

Same numbers, less work: fused attention, only the class token's attention row (none in training), logits from window
sums, and one class map per image instead of K. `tests/methods/test_official.py` holds it to the authors' code.
Backbones: any ViT with a class token, and Conformer-S ("conformer_small_patch16"), whose CNN branch adds to the logits.
Differs from the authors' code: Conformer's rollout matrices, which nothing reads, are left out; thresholds and checkpoint
selection belong to the protocol.
"""

# B batch, C channels, H W image, h w map, K classes, N tokens, D width, P patches, L blocks

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import timm
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from wsolbench.backbones import create_backbone, family
from wsolbench.config import TrainConfig
from wsolbench.errors import WsolbenchError
from wsolbench.method import Layout, Method, State, decay_groups, evaluating, true_or_predicted
from wsolbench.registry import register_method
from wsolbench.types import Batch, Prediction
from wsolbench_methods.networks.conformer import AttentionFn, Conformer, initialise
from wsolbench_methods.networks.vit import (
    TSCAM_AUTHORS,
    ClassRows,
    ConvHead,
    Grid,
    attention,
    build_vit,
    embed,
    final_norm,
    plain_vit,
    recomputing,
    run_block,
)


@dataclass
class TSCAMConfig:
    drop_path: float = 0.1  # stochastic depth of the last block; block i has drop_path * i / (depth - 1)


def _from_conformer(state: State) -> State:
    """Both branches stand at the top; the convolutional head has a name of its own."""
    ours = {name.replace("trans_cls_head.", "head."): value for name, value in state.items()}
    return {name if name.startswith("head.") else f"vit.{name}": value for name, value in ours.items()}


CONFORMER_AUTHORS = Layout(
    "TS-CAM on Conformer (authors)",
    lambda state: state["trans_cls_head.weight"].ndim == 4 if "trans_cls_head.weight" in state else False,
    _from_conformer,
)


def _plain_conformer(num_classes: int) -> Layout:
    """Conformer as its own authors release it. TS-CAM's keep of its classifiers whatever has the right shape."""
    heads = ("trans_cls_head.weight", "trans_cls_head.bias", "conv_cls_head.weight", "conv_cls_head.bias")

    def convert(state: State) -> State:
        same = state["conv_cls_head.bias"].shape == (num_classes,) if "conv_cls_head.bias" in state else False
        dropped = heads[:1] if same else heads
        return _from_conformer({name: value for name, value in state.items() if name not in dropped})

    def told_by(state: Mapping[str, Tensor]) -> bool:
        return "trans_cls_head.weight" in state and state["trans_cls_head.weight"].ndim == 2

    return Layout("plain Conformer", told_by, convert, absent=("head.", "vit.conv_cls_head."))


@register_method("tscam")
@final
class TSCAM(Method):
    """Multiply the class map over patch tokens by the class token's attention, summed over the blocks."""

    Config: ClassVar[type] = TSCAMConfig
    default_backbone: ClassVar[str | None] = "deit_small_patch16_224"

    def __init__(self, config: TSCAMConfig, **build: Any) -> None:
        super().__init__(config, **build)
        self.vit: VisionTransformer | Conformer
        if self.backbone is not None and family(self.backbone) == "conformer":
            if self.pretrained:
                raise WsolbenchError(
                    f"no weights of '{self.backbone}' can be fetched; give its authors' file as checkpoint=PATH, "
                    "with pretrained=false"
                )
            self.vit = Conformer(self.num_classes, config.drop_path)
        else:
            self.vit = build_vit(
                self.backbone,
                asked_by="tscam",
                pretrained=self.pretrained,
                drop_path=config.drop_path,
                others="conformer_small_patch16",
            )
        self.head = ConvHead(self.vit.embed_dim, self.num_classes)
        if isinstance(self.vit, Conformer):
            self.head.apply(initialise)
        elif self.pretrained and self.backbone is not None:
            self._start_from_class_bias(self.backbone)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the averaged class maps."""
        logits_BK, _, _ = self._forward(batch.images_BCHW, attention)
        return {"cls": F.cross_entropy(logits_BK, batch.labels_B)}

    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Prediction:
        """Maps A * S_c on the patch grid: A the class token's attention, S_c the signed class map with its bias."""
        with evaluating(self), torch.no_grad():
            attention_and_row = ClassRows()
            logits_BK, patches_BPD, grid = self._forward(images_BCHW, attention_and_row)
            scores_Bhw = self.head.class_map(patches_BPD, grid, true_or_predicted(logits_BK, labels_B))
            rows_BN = torch.stack(attention_and_row.rows_BN).sum(0)
            attention_Bhw = rows_BN[:, self.vit.num_prefix_tokens :].reshape(-1, *grid)
        return Prediction(logits_BK.float(), (attention_Bhw * scores_Bhw).float())

    def _forward(self, images_BCHW: Tensor, attention: AttentionFn) -> tuple[Tensor, Tensor, Grid]:
        """Logits [B, K], patch tokens after the last norm [B, P, D] and their grid."""
        if isinstance(self.vit, Conformer):
            patches_BPD, grid, cnn_logits_BK = self.vit(images_BCHW, attention)
            return self.head.logits(patches_BPD, grid) + cnn_logits_BK, patches_BPD, grid
        x_BND, grid = embed(self.vit, images_BCHW)
        for block in self.vit.blocks:
            x_BND = recomputing(self.vit, run_block, block, x_BND, attention)
        patches_BPD = final_norm(self.vit, x_BND)[:, self.vit.num_prefix_tokens :]
        return self.head.logits(patches_BPD, grid), patches_BPD, grid

    @torch.no_grad()
    def _start_from_class_bias(self, backbone: str) -> None:
        """Where the pretrained classifier has as many classes, its bias is kept though its weight is not.

        So does the authors' code, which drops what differs in shape: for 1000 classes only `head.weight` does.
        """
        cfg = timm.get_pretrained_cfg(backbone)
        if cfg is not None and cfg.num_classes == self.num_classes:
            model: Any = create_backbone(backbone, num_classes=self.num_classes, pretrained=True)
            if isinstance(model.head, nn.Linear):
                self.head.get_parameter("bias").copy_(model.head.bias)

    def param_groups(self, train_config: TrainConfig) -> list[dict[str, Any]]:
        """1-d tensors, position embedding and class token are free of weight decay, as in the authors' code."""
        return decay_groups(
            self.named_parameters(),
            train_config,
            head=("head", "vit.conv_cls_head"),
            no_decay=("vit.pos_embed", "vit.cls_token"),
        )

    def layouts(self) -> Sequence[Layout]:
        """The authors' checkpoints, and plain classifiers as they start from them."""
        if isinstance(self.vit, Conformer):
            return CONFORMER_AUTHORS, _plain_conformer(self.num_classes)
        return TSCAM_AUTHORS, plain_vit(absent=("head.",), bias_for=self.num_classes)
