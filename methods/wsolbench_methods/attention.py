"""Class-token attention of an untouched pretrained ViT: the control every trained ViT method has to beat.

The map is the attention map A of TS-CAM (Gao et al., ICCV 2021, https://arxiv.org/abs/2103.14862) without training and
without class maps: post-softmax attention of the class token, mean over heads, summed over blocks. A benchmark's table
misleads without it, since a backbone's pretraining can carry more objectness than fine-tuning adds.
Ours: only the class token's row of each attention matrix is computed. Differs from the ablation of A alone in that paper:
no class map, no classifier, nothing trained; optionally the last block alone.
"""

# B batch, C channels, H W image, h w map, N tokens, D width, L blocks

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from wsolbench.method import Layout, Untrained, evaluating
from wsolbench.registry import register_method
from wsolbench.types import Prediction
from wsolbench_methods.networks.vit import build_vit, embed, plain_vit, run_blocks_with_class_rows


class Blocks(Enum):
    all = "all"
    last = "last"


@dataclass
class AttentionConfig:
    blocks: Blocks = Blocks.all  # all: summed over the blocks, as in TS-CAM; last: of the last block only


@register_method("attention")
@final
class ClassAttention(Untrained):
    """Control: class-token attention of the pretrained backbone, nothing trained, no classifier."""

    Config: ClassVar[type] = AttentionConfig
    needs: ClassVar[frozenset[str]] = frozenset({"pretrained"})
    default_backbone: ClassVar[str | None] = "deit_small_patch16_224"

    def __init__(self, config: AttentionConfig, **build: Any) -> None:
        super().__init__(config, **build)
        self.vit = build_vit(self.backbone, asked_by="attention", pretrained=self.pretrained)
        self.requires_grad_(False)

    def layouts(self) -> Sequence[Layout]:
        """A plain ViT: its classifier is not used."""
        return (plain_vit(),)

    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Prediction:
        """Attention of the class token on the patch grid, the same for every class; no logits."""
        with evaluating(self), torch.no_grad():
            x_BND, grid = embed(self.vit, images_BCHW)
            _, rows_LBN = run_blocks_with_class_rows(self.vit, x_BND)
        if self.config.blocks is Blocks.last:
            rows_LBN = rows_LBN[-1:]
        return Prediction(None, rows_LBN.sum(0)[:, self.vit.num_prefix_tokens :].reshape(-1, *grid))
