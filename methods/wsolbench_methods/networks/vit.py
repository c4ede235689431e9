"""What the methods on Vision Transformers share: timm's blocks run step by step, and a convolutional token head.

timm's own block forward hides q, k and v. These functions repeat it (timm `Attention.forward`, `Block.forward`) with a
place to look in between: attention stays fused, no N x N matrix is stored. `tests/methods/test_vit.py` holds them to
timm's output.
"""

# B batch, C channels, H W image, h w map, K classes, N tokens, D width, P patches; q k v are [B, heads, N, d]

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Attention as Attention  # type: ignore[attr-defined]  # noqa: PLC0414
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wsolbench.backbones import create_backbone, family
from wsolbench.errors import UsageError
from wsolbench.method import Layout, State, no_autocast, wide

Grid = tuple[int, int]
"""Patches per column and row."""

FITTING = "deit_small_patch16_224, vit_base_patch16_224, badges_vit.s0"


def build_vit(
    name: str | None, *, asked_by: str, pretrained: bool, drop_path: float = 0.0, others: str = ""
) -> VisionTransformer:
    """The timm ViT `name` without its classifier.

    Without pretrained weights the class token starts like the other tokens (truncated normal, std 0.02), as in DeiT;
    timm would start it near zero. `others` are backbones the method can use beside ViTs, for the error.

    Raises:
        UsageError: `name` is no ViT with a class token, or has blocks that cannot be run faithfully.
    """
    vit: Any = None
    if name is not None and family(name) != "cnn":  # a name that only another method can read is refused there
        vit = create_backbone(name, num_classes=0, pretrained=pretrained, drop_path_rate=drop_path)
    reason = "it is no Vision Transformer with a class token" if vit is None else _unfit(vit)
    if reason:
        raise UsageError(
            f"'{asked_by}' cannot run on backbone '{name}': {reason}; "
            f"it needs a plain ViT with a class token, e.g. {FITTING}" + (f", or {others}" if others else "")
        )
    vit.attn_pool = None  # pooling with parameters of its own is part of the classifier that was left out
    if not pretrained:
        nn.init.trunc_normal_(vit.cls_token, std=0.02)
    plain: VisionTransformer = vit
    return plain


def _unfit(vit: nn.Module) -> str:
    """Why the functions of this file would not compute what the model computes; empty if they do."""
    if not isinstance(vit, VisionTransformer):
        return f"{type(vit).__name__} is not timm's VisionTransformer"
    if type(vit).forward_features is not VisionTransformer.forward_features:
        return f"{type(vit).__name__} has a forward pass of its own"
    if vit.cls_token is None:
        return "it has no class token"
    for block in vit.blocks:
        if type(block) is not Block:
            return f"its blocks are {type(block).__name__}, not plain pre-norm blocks"
        if type(block.attn) is not Attention or getattr(block.attn, "gate", None) is not None:
            return f"its attention ({type(block.attn).__name__}) is not plain softmax attention"
    return ""


def plain_vit(prefix: str = "vit.", absent: tuple[str, ...] = (), bias_for: int | None = None) -> Layout:
    """A ViT classifier as timm and DeiT release it, read as the starting weights: everything but its classifier.

    With `bias_for` classes, its class bias stays too if it has that many: it becomes our "head.bias".
    """
    classifier = ("head.", "head_dist.", "attn_pool.", "pre_logits.")

    def convert(state: State) -> State:
        ours = {prefix + name: value for name, value in state.items() if not name.startswith(classifier)}
        bias = state.get("head.bias")
        return ours if bias is None or bias.shape != (bias_for,) else ours | {"head.bias": bias}

    def told_by(state: Mapping[str, Tensor]) -> bool:
        head = state.get("head.weight")
        return {"cls_token", "blocks.0.attn.qkv.weight"} <= state.keys() and (head is None or head.ndim == 2)

    return Layout("plain ViT", told_by, convert, absent)


def embed(vit: VisionTransformer, images_BCHW: Tensor, extra_1ND: Tensor | None = None) -> tuple[Tensor, Grid]:
    """Tokens entering the first block, [B, prefix + P + extra, D], and the patch grid [h, w].

    `extra_1ND` are further tokens, position embedding included, that follow the patches.
    """
    stem = vit.patch_embed
    size = getattr(stem, "img_size", None)
    if getattr(stem, "strict_img_size", False) and size is not None and tuple(images_BCHW.shape[-2:]) != tuple(size):
        asked = "x".join(map(str, images_BCHW.shape[-2:]))
        raise UsageError(
            f"the backbone takes {size[0]}x{size[1]} images, got {asked}; take images of that size, or a backbone made for {asked}"
        )
    patches = stem(images_BCHW)
    h, w = patches.shape[1:3] if patches.ndim == 4 else stem.grid_size
    tokens_BND: Tensor = vit._pos_embed(patches)  # knows class, register and distillation tokens
    if extra_1ND is not None:
        tokens_BND = torch.cat([tokens_BND, extra_1ND.expand(len(tokens_BND), -1, -1)], 1)
    return vit.norm_pre(tokens_BND), (h, w)


def final_norm(vit: VisionTransformer, x_BND: Tensor) -> Tensor:
    """The last LayerNorm, on every token. Pooling ViTs call it `fc_norm` and normalise after pooling instead."""
    normed: Tensor = vit.fc_norm(vit.norm(x_BND))
    return normed


def run_block(block: Any, x_BND: Tensor, attention: Callable[[Attention, Tensor], Tensor]) -> Tensor:
    """A block whose attention is computed by `attention(block.attn, normalised tokens)`."""
    x_BND = x_BND + block.drop_path1(block.ls1(attention(block.attn, block.norm1(x_BND))))
    out: Tensor = x_BND + block.drop_path2(block.ls2(block.mlp(block.norm2(x_BND))))
    return out


def recomputing(network: Any, function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)`; of a network with gradient checkpointing on, computed again in the backward pass.

    The function must leave nothing behind, since it runs twice; what it draws is drawn alike both times.
    """
    if network.grad_checkpointing and torch.is_grad_enabled():
        return checkpoint(function, *args, use_reentrant=False)
    return function(*args)


def project(attn: Attention, x_BND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v of an attention layer, each [B, heads, N, d], q and k normalised where the model does so."""
    b, n, _ = x_BND.shape
    q, k, v = attn.qkv(x_BND).reshape(b, n, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    return attn.q_norm(q), attn.k_norm(k), v


def attend(attn: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Output of an attention layer, [B, N, D], through fused attention."""
    dropout = attn.attn_drop.p if attn.training else 0.0
    out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=attn.scale).transpose(1, 2).flatten(2)
    if hasattr(attn, "norm"):  # newer timm only
        out = attn.norm(out)
    projected: Tensor = attn.proj_drop(attn.proj(out))
    return projected


def class_row(attn: Attention, q: Tensor, k: Tensor) -> Tensor:
    """Attention of the class token to every token, averaged over the heads: [B, N].

    Only this row of the attention matrix is computed.
    """
    with no_autocast(q):
        row_BH1N: Tensor = (wide(q[:, :, :1]) * attn.scale) @ wide(k).transpose(-2, -1)
        return row_BH1N.softmax(-1).mean(1).squeeze(1)


def attention(attn: Attention, x_BND: Tensor) -> Tensor:
    """timm's attention, unchanged."""
    return attend(attn, *project(attn, x_BND))


@final
class ClassRows:
    """timm's attention, unchanged, that keeps the class token's row of every layer it computes."""

    def __init__(self) -> None:
        self.rows_BN: list[Tensor] = []

    def __call__(self, attn: Attention, x_BND: Tensor) -> Tensor:
        q, k, v = project(attn, x_BND)
        self.rows_BN.append(class_row(attn, q, k))
        return attend(attn, q, k, v)


def run_blocks_with_class_rows(vit: VisionTransformer, x_BND: Tensor) -> tuple[Tensor, Tensor]:
    """All blocks as timm runs them: tokens [B, N, D], and the class token's attention in every block, [L, B, N]."""
    attention_and_row = ClassRows()
    for block in vit.blocks:
        x_BND = run_block(block, x_BND, attention_and_row)
    return x_BND, torch.stack(attention_and_row.rows_BN)


@final
class ConvHead(nn.Conv2d):
    """3x3 convolution to classes with a global average on top, without ever making K maps.

    Averaging a convolution's output is linear in nine shifted-window sums of its input, so logits cost P times fewer
    multiplications; one class's map costs one filter. Both in single precision under autocast, at little cost. PyTorch's
    default initialisation is the authors' too.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__(width, num_classes, kernel_size=3, padding=1)

    def logits(self, patches_BPD: Tensor, grid: Grid) -> Tensor:
        """Global average of the class maps, [B, K]."""
        x_BhwD = wide(patches_BPD).reshape(len(patches_BPD), *grid, -1)
        full = x_BhwD.sum(1)  # tap 0 sees all rows but the last, tap 2 all but the first
        rows_B3wD = torch.stack([full - x_BhwD[:, -1], full, full - x_BhwD[:, 0]], 1)
        full = rows_B3wD.sum(2)
        sums_B33D = torch.stack([full - rows_B3wD[:, :, -1], full, full - rows_B3wD[:, :, 0]], 2)
        mean_BF = sums_B33D.permute(0, 3, 1, 2).flatten(1) / patches_BPD.shape[1]
        with no_autocast(mean_BF):
            return F.linear(mean_BF, wide(self.weight).flatten(1), self._wide_bias)

    def class_map(self, patches_BPD: Tensor, grid: Grid, classes_B: Tensor) -> Tensor:
        """Score map of one class per image, with bias: [B, h, w]."""
        # Every patch times the 9 taps of its image's filter; fold then adds up what lands on the same cell. Fold
        # scatters where a convolution gathers, hence the mirrored taps.
        taps_BD9 = wide(self.weight[classes_B]).flatten(2).flip(2)
        with no_autocast(patches_BPD):
            scores_B9P = (wide(patches_BPD) @ taps_BD9).transpose(1, 2)
            map_Bhw = F.fold(scores_B9P, grid, kernel_size=3, padding=1).squeeze(1)
        return map_Bhw + self._wide_bias[classes_B, None, None]

    @property
    def _wide_bias(self) -> Tensor:
        assert self.bias is not None
        return wide(self.bias)


def _is_of_tscam(state: Mapping[str, Tensor]) -> bool:
    """A plain ViT but for the convolutional head, and without SAT's spatial token."""
    head = state.get("head.weight")
    return "cls_token" in state and "loc_token" not in state and head is not None and head.ndim == 4


def _from_tscam(state: State) -> State:
    """The ViT's tensors stand at the top."""
    return {name if name.startswith("head.") else f"vit.{name}": value for name, value in state.items()}


TSCAM_AUTHORS = Layout("TS-CAM (authors)", _is_of_tscam, _from_tscam)
