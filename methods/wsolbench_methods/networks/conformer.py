"""Conformer-S (Peng et al., ICCV 2021, https://arxiv.org/abs/2105.03889) as TS-CAM's authors use it.

A residual CNN and a transformer without position embedding side by side; from the second of the 12 blocks on, each hands
its features to the other. Names follow the released checkpoints, which is why they mix the paper's and the code's terms.
"""

# B batch, C channels, H W image, h w map, K classes, N tokens, D width, P patches

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, final

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from wsolbench.errors import UsageError
from wsolbench_methods.networks.vit import Attention, Grid, attention, recomputing, run_block

AttentionFn = Callable[[Attention, Tensor], Tensor]

WIDTH, HEADS, DEPTH = 384, 6, 12
STAGES = ((256, 4), (512, 2), (1024, 1))  # channels of four blocks each, and how many of their cells a token spans
TOKEN = 16  # pixels per token; the last block halves the CNN's map once more

_batch_norm = partial(nn.BatchNorm2d, eps=1e-6)
_layer_norm = partial(nn.LayerNorm, eps=1e-6)


@final
class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions around a residual; tokens may join before the 3x3 one."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, project: bool = False) -> None:
        super().__init__()
        middle = outputs // 4
        self.conv1 = nn.Conv2d(inputs, middle, 1, bias=False)
        self.bn1 = _batch_norm(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, 1, bias=False)
        self.bn2 = _batch_norm(middle)
        self.conv3 = nn.Conv2d(middle, outputs, 1, bias=False)
        self.bn3 = _batch_norm(outputs)
        self.residual_conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if project else None
        self.residual_bn = _batch_norm(outputs) if project else None

    def forward(self, x_BChw: Tensor, tokens_BChw: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The block's output, and what comes out of the 3x3 convolution."""
        first = F.relu(self.bn1(self.conv1(x_BChw)))
        middle = F.relu(self.bn2(self.conv2(first if tokens_BChw is None else first + tokens_BChw)))
        if self.residual_conv is not None and self.residual_bn is not None:
            x_BChw = self.residual_bn(self.residual_conv(x_BChw))
        return F.relu(self.bn3(self.conv3(middle)) + x_BChw), middle


@final
class Squeeze(nn.Module):
    """CNN features to patch tokens: 1x1 convolution, average pooling to the token grid, LayerNorm, GELU."""

    def __init__(self, inputs: int, span: int) -> None:
        super().__init__()
        self.span = span
        self.conv_project = nn.Conv2d(inputs, WIDTH, 1)
        self.ln = _layer_norm(WIDTH)

    def forward(self, x_BChw: Tensor) -> Tensor:
        pooled_BDhw = F.avg_pool2d(self.conv_project(x_BChw), self.span)
        return F.gelu(self.ln(pooled_BDhw.flatten(2).transpose(1, 2)))


@final
class Expand(nn.Module):
    """Patch tokens to CNN features: 1x1 convolution, batch norm, ReLU, each cell repeated."""

    def __init__(self, outputs: int, span: int) -> None:
        super().__init__()
        self.span = span
        self.conv_project = nn.Conv2d(WIDTH, outputs, 1)
        self.bn = _batch_norm(outputs)

    def forward(self, patches_BPD: Tensor, grid: Grid) -> Tensor:
        map_BDhw = patches_BPD.transpose(1, 2).reshape(-1, WIDTH, *grid)
        return F.interpolate(F.relu(self.bn(self.conv_project(map_BDhw))), scale_factor=self.span)


@final
class ConvTrans(nn.Module):
    """One block of either branch, with the exchange between them."""

    def __init__(self, inputs: int, outputs: int, span: int, drop_path: float, last: bool) -> None:
        super().__init__()
        stride = 1 if inputs == outputs else 2
        self.cnn_block = Bottleneck(inputs, outputs, stride, project=inputs != outputs)
        self.fusion_block = Bottleneck(outputs, outputs, 2 if last else 1, project=last)
        self.squeeze_block = Squeeze(outputs // 4, span)
        self.expand_block = Expand(outputs // 4, span)
        self.trans_block = _token_block(drop_path)

    def forward(self, x_BChw: Tensor, x_BND: Tensor, grid: Grid, attend: AttentionFn) -> tuple[Tensor, Tensor]:
        x_BChw, middle_BChw = self.cnn_block(x_BChw)
        # The class token has no counterpart in the CNN and is added to itself.
        x_BND = torch.cat([2 * x_BND[:, :1], x_BND[:, 1:] + self.squeeze_block(middle_BChw)], 1)
        x_BND = run_block(self.trans_block, x_BND, attend)
        x_BChw, _ = self.fusion_block(x_BChw, self.expand_block(x_BND[:, 1:], grid))
        return x_BChw, x_BND


@final
class Conformer(nn.Module):
    """Both branches, and the CNN's own classifier; the classifier on the tokens is the method's."""

    num_prefix_tokens = 1

    def __init__(self, num_classes: int, drop_path: float = 0.0) -> None:
        super().__init__()
        rates = torch.linspace(0, drop_path, DEPTH).tolist()
        self.embed_dim = WIDTH
        self.grad_checkpointing = False
        self.cls_token = nn.Parameter(torch.empty(1, 1, WIDTH))
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv_1 = Bottleneck(64, STAGES[0][0], project=True)
        self.trans_patch_conv = nn.Conv2d(64, WIDTH, TOKEN // 4, TOKEN // 4)
        self.trans_1 = _token_block(rates[0])
        channels = STAGES[0][0]
        for i in range(2, DEPTH + 1):
            outputs, span = STAGES[(i - 1) // 4]
            self.add_module(f"conv_trans_{i}", ConvTrans(channels, outputs, span, rates[i - 1], last=i == DEPTH))
            channels = outputs
        self.trans_norm = nn.LayerNorm(WIDTH)
        self.conv_cls_head = nn.Linear(channels, num_classes)
        self.apply(initialise)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the blocks' activations again in the backward pass, or keep them; timm's name for it."""
        self.grad_checkpointing = enable

    def forward(self, images_BCHW: Tensor, attend: AttentionFn = attention) -> tuple[Tensor, Grid, Tensor]:
        """Patch tokens after the last norm [B, P, D], their grid, and the logits of the CNN branch [B, K]."""
        H, W = images_BCHW.shape[-2:]
        if H % (2 * TOKEN) or W % (2 * TOKEN):
            raise UsageError(f"Conformer takes images whose sides are multiples of {2 * TOKEN}, got {H}x{W}")
        grid = H // TOKEN, W // TOKEN
        stem_BChw = F.max_pool2d(F.relu(self.bn1(self.conv1(images_BCHW))), 3, 2, 1)
        x_BChw, _ = self.conv_1(stem_BChw)
        patches_BPD = self.trans_patch_conv(stem_BChw).flatten(2).transpose(1, 2)
        x_BND = torch.cat([self.cls_token.expand(len(patches_BPD), -1, -1), patches_BPD], 1)
        x_BND = run_block(self.trans_1, x_BND, attend)
        for i in range(2, DEPTH + 1):
            block = self.get_submodule(f"conv_trans_{i}")
            x_BChw, x_BND = recomputing(self, block, x_BChw, x_BND, grid, attend)
        return self.trans_norm(x_BND)[:, 1:], grid, self.conv_cls_head(x_BChw.mean((2, 3)))


def initialise(module: nn.Module) -> None:
    """Linear layers like a ViT's, convolutions (classifier included) by Kaiming, as in the authors' code."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _token_block(drop_path: float) -> Block:
    norm: Any = _layer_norm  # timm's annotation asks for a class
    return Block(WIDTH, HEADS, qkv_bias=True, drop_path=drop_path, norm_layer=norm)
