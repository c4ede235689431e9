"""SAT: Spatial-Aware Token for WSOL (Wu et al., ICCV 2023).  https://arxiv.org/abs/2303.10438

Authors' code: https://github.com/wpy1999/SAT (commit 702290d), re-implemented from facts;
`tests/methods/test_official.py` holds it to that code.

Same numbers, less work: softmax(A) * m times V is softmax(A) times (m * V), so attention stays fused; the mask needs one
row of logits, and only in the masked blocks; logits come from window sums.
Differs from the authors' code: any ViT with a class token, grid and depth included; the area term takes the batch mean
over all processes (theirs does so in one script and not in the other); thresholds and checkpoint selection belong to the
protocol.
"""

# B batch, C channels, H W image, h w map, K classes, N tokens, D width, P patches

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsolbench.errors import UsageError
from wsolbench.method import Layout, Method, State, evaluating, global_mean, no_autocast, wide
from wsolbench.registry import register_method
from wsolbench.types import Batch, Prediction
from wsolbench_methods.networks.vit import (
    Attention,
    ConvHead,
    attend,
    attention,
    build_vit,
    embed,
    final_norm,
    plain_vit,
    project,
    recomputing,
    run_block,
)


@dataclass
class SATConfig:
    masked_blocks: int = 3  # how many of the last blocks the mask acts in
    area: float = 0.25  # lambda: share of the image expected to be object; the authors take 0.35 on ILSVRC
    area_weight: float = 1.0
    normalization_weight: float = 1.0
    drop_path: float = 0.1  # stochastic depth of the last block; block i has drop_path * i / (depth - 1)


OWN = ("head.", "loc_token", "loc_embed")  # what SAT adds to the ViT


def _from_authors(state: State) -> State:
    """The ViT's tensors stand at the top; the root key `weight` is the smoothing kernel, a constant."""
    return {name if name.startswith(OWN) else f"vit.{name}": v for name, v in state.items() if name != "weight"}


AUTHORS = Layout("SAT (authors)", lambda state: {"loc_token", "cls_token"} <= state.keys(), _from_authors)


@register_method("sat")
@final
class SAT(Method):
    """Localise with a learned spatial token whose attention masks the keys of the last blocks."""

    Config: ClassVar[type] = SATConfig
    global_losses: ClassVar[frozenset[str]] = frozenset({"area"})
    default_backbone: ClassVar[str | None] = "deit_small_patch16_224"

    def __init__(self, config: SATConfig, **build: Any) -> None:
        super().__init__(config, **build)
        self.vit = build_vit(self.backbone, asked_by="sat", pretrained=self.pretrained, drop_path=config.drop_path)
        if not 1 <= config.masked_blocks <= len(self.vit.blocks):
            raise UsageError(
                f"sat.masked_blocks={config.masked_blocks} is not between 1 and {len(self.vit.blocks)}, "
                f"the number of blocks of '{self.backbone}'"
            )
        self.loc_token = nn.Parameter(torch.empty(1, 1, self.vit.embed_dim))
        self.loc_embed = nn.Parameter(torch.empty(1, 1, self.vit.embed_dim))
        nn.init.trunc_normal_(self.loc_token, std=0.02)
        nn.init.trunc_normal_(self.loc_embed, std=0.02)
        self.head = ConvHead(self.vit.embed_dim, self.num_classes)
        self.register_buffer("kernel_33", smoothing_kernel(), persistent=False)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy, |batch area - lambda|, and how far the smoothed mask is from being binary."""
        logits_BK, map_Bhw = self._forward(batch.images_BCHW)
        kernel_33 = self.get_buffer("kernel_33").to(map_Bhw.dtype)
        with no_autocast(map_Bhw):
            smooth_Bhw = F.conv2d(map_Bhw[:, None], kernel_33[None, None], padding=1)[:, 0]
        return {
            "cls": F.cross_entropy(logits_BK, batch.labels_B),
            "area": self.config.area_weight * (global_mean(map_Bhw) - self.config.area).abs(),
            "normalization": self.config.normalization_weight * ((1 - smooth_Bhw) * smooth_Bhw).mean(),
        }

    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Prediction:
        """Maps are the mean mask of the masked blocks, in (0, 1); SAT has one map per image, whatever the class."""
        with evaluating(self), torch.no_grad():
            logits_BK, map_Bhw = self._forward(images_BCHW)
        return Prediction(logits_BK.float(), map_Bhw.float())

    def layouts(self) -> Sequence[Layout]:
        """The authors' checkpoints, and plain ViTs as they start from them (head and spatial token stay random)."""
        return AUTHORS, plain_vit(absent=OWN)

    def _forward(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, K] and map [B, h, w]. Token order: class (and other prefix) tokens, patches, spatial token."""
        x_BND, grid = embed(self.vit, images_BCHW, self.loc_token + self.loc_embed)
        masks_BN: list[Tensor] = []
        first_masked = len(self.vit.blocks) - self.config.masked_blocks
        for i, block in enumerate(self.vit.blocks):
            if i < first_masked:
                x_BND = recomputing(self.vit, run_block, block, x_BND, attention)
            else:
                x_BND, mask_BN = recomputing(self.vit, run_masked_block, block, x_BND)
                masks_BN.append(mask_BN)
        patches = slice(self.vit.num_prefix_tokens, -1)
        map_Bhw = torch.stack(masks_BN).mean(0)[:, patches].reshape(-1, *grid)
        return self.head.logits(final_norm(self.vit, x_BND)[:, patches], grid), map_Bhw


def run_masked_block(block: nn.Module, x_BND: Tensor) -> tuple[Tensor, Tensor]:
    """A block whose keys are attenuated by the mask: tokens [B, N, D], and the mask [B, N]."""
    masks_BN: list[Tensor] = []

    def masked_attention(attn: Attention, x_BND: Tensor) -> Tensor:
        q, k, v = project(attn, x_BND)
        masks_BN.append(spatial_mask(attn, q, k))
        # Rows of softmax(A) * m are not renormalised; every key is attenuated, class and spatial token too.
        return attend(attn, q, k, v * masks_BN[0][:, None, :, None].to(v.dtype))

    return run_block(block, x_BND, masked_attention), masks_BN[0]


def spatial_mask(attn: Attention, q: Tensor, k: Tensor) -> Tensor:
    """Sigmoid of the spatial token's attention logits, averaged over the heads before the sigmoid: [B, N].

    The mean over heads of q . k is one dot product of the concatenated heads: a sum that float16 need not hold.
    """
    query_BD1 = wide(q[:, :, -1]).flatten(1).unsqueeze(-1)
    keys_BND = wide(k).transpose(1, 2).flatten(2)
    with no_autocast(keys_BND):
        logits_BN: Tensor = (keys_BND @ query_BD1).squeeze(-1) * (attn.scale / attn.num_heads)
    return logits_BN.sigmoid()


def smoothing_kernel() -> Tensor:
    """The 3x3 kernel of the normalization term; sums to 1, centre 0.805, as in the authors' code.

    Square roots of the normal distribution's mass between the edges (-49/6, -49/18, 49/18, 49/6).

    >>> smoothing_kernel()[1, 1].item()
    0.8054397106170654
    """
    edges = [-49 / 6, -49 / 18, 49 / 18, 49 / 6]
    below = [0.5 * (1 + math.erf(x / math.sqrt(2))) for x in edges]
    mass_3 = torch.tensor([upper - lower for lower, upper in pairwise(below)], dtype=torch.float64)
    kernel_33 = torch.outer(mass_3, mass_3).sqrt()
    return (kernel_33 / kernel_33.sum()).float()
