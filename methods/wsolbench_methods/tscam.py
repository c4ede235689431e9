"""TS-CAM: Token Semantic Coupled Attention Map (Gao et al., ICCV 2021).  https://arxiv.org/abs/2103.14862

Authors' code: https://github.com/vasgaowei/TS-CAM (commit 25aece4), re-implemented from facts.

Same numbers, less work: fused attention, only the class token's attention row (none in training), logits from window
sums, and one class map per image instead of K.
Differs from the authors' code: for K = 1000 the class bias of DeiT is not copied into the (otherwise random)
convolutional head. Thresholds and checkpoint selection belong to the protocol.
"""

# B batch, C channels, H W image, h w map, K classes, N tokens, D width, P patches, L blocks

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor

from wsolbench.checkpoint import Layout, State
from wsolbench.config import TrainConfig
from wsolbench.method import Method, decay_groups, evaluating, true_or_predicted
from wsolbench.registry import register_method
from wsolbench.types import Batch, Prediction
from wsolbench_methods._vit import ConvHead, build_vit, embed, final_norm, plain_vit, run_blocks_with_class_rows


@dataclass
class TSCAMConfig:
    drop_path: float = 0.1  # stochastic depth of the last block; block i has drop_path * i / (depth - 1)


def _told_by(state: Mapping[str, Tensor]) -> bool:
    """A plain ViT but for the convolutional head, and without SAT's spatial token."""
    head = state.get("head.weight")
    return "cls_token" in state and "loc_token" not in state and head is not None and head.ndim == 4


def _from_authors(state: State) -> State:
    """The ViT's tensors stand at the top."""
    return {name if name.startswith("head.") else f"vit.{name}": value for name, value in state.items()}


AUTHORS = Layout("TS-CAM (authors)", _told_by, _from_authors)


@register_method("tscam")
@final
class TSCAM(Method):
    """Multiply the class map over patch tokens by the class token's attention, summed over the blocks."""

    Config: ClassVar[type] = TSCAMConfig
    default_backbone: ClassVar[str | None] = "deit_small_patch16_224"

    def __init__(self, config: TSCAMConfig, **build: Any) -> None:
        super().__init__(config, **build)
        self.vit = build_vit(self.backbone, asked_by="tscam", pretrained=self.pretrained, drop_path=config.drop_path)
        self.head = ConvHead(self.vit.embed_dim, self.num_classes)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of the averaged class maps."""
        x_BND, grid = embed(self.vit, batch.images_BCHW)
        patches_BPD = final_norm(self.vit, self.vit.blocks(x_BND))[:, self.vit.num_prefix_tokens :]
        return {"cls": F.cross_entropy(self.head.logits(patches_BPD, grid), batch.labels_B)}

    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Prediction:
        """Maps A * S_c on the patch grid: A the class token's attention, S_c the signed class map with its bias."""
        with evaluating(self), torch.no_grad():
            x_BND, grid = embed(self.vit, images_BCHW)
            x_BND, rows_LBN = run_blocks_with_class_rows(self.vit, x_BND)
            prefix = self.vit.num_prefix_tokens
            patches_BPD = final_norm(self.vit, x_BND)[:, prefix:]
            logits_BK = self.head.logits(patches_BPD, grid)
            scores_Bhw = self.head.class_map(patches_BPD, grid, true_or_predicted(logits_BK, labels_B))
            attention_Bhw = rows_LBN.sum(0)[:, prefix:].reshape(-1, *grid)
        return Prediction(logits_BK.float(), (attention_Bhw * scores_Bhw).float())

    def param_groups(self, train_config: TrainConfig) -> list[dict[str, Any]]:
        """1-d tensors, position embedding and class token are free of weight decay, as in the authors' code."""
        return decay_groups(self.named_parameters(), train_config, no_decay=("vit.pos_embed", "vit.cls_token"))

    def layouts(self) -> Sequence[Layout]:
        """The authors' checkpoints, and plain ViTs as they start from them (the head stays random)."""
        return AUTHORS, plain_vit(absent=("head.",))
