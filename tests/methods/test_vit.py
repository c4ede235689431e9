"""The step-by-step ViT computes what timm computes, and the head what a convolution with global average computes."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import ParallelThingsBlock, VisionTransformer
from torch import Tensor

import wsolbench
from wsolbench.errors import UsageError
from wsolbench_methods.networks.vit import (
    ConvHead,
    _unfit,
    attention,
    build_vit,
    embed,
    final_norm,
    run_block,
    run_blocks_with_class_rows,
)

SMALL: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3, "num_classes": 0}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no qkv bias": {"qkv_bias": False},
    "qk norm": {"qk_norm": True},
    "attention norm": {"scale_attn_norm": True},
    "layer scale": {"init_values": 0.3},
    "pre norm": {"pre_norm": True},
    "register tokens": {"reg_tokens": 4, "no_embed_class": True},
    "pooled": {"global_pool": "avg"},
    "any size": {"dynamic_img_size": True},
}


def scrambled(vit: VisionTransformer) -> VisionTransformer:
    """Norms, scales and biases away from their neutral initial values, so that leaving one out shows."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return vit.eval()


def images(size: int = 32) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def timm_rows(vit: VisionTransformer, x_BCHW: Tensor) -> Tensor:
    """Class rows through timm's unfused attention, read at its attention dropout: [L, B, N]."""
    rows: list[Tensor] = []
    hooks = []
    for block in vit.blocks:
        block.attn.fused_attn = False
        hook = block.attn.attn_drop.register_forward_hook(lambda m, i, out: rows.append(out.mean(1)[:, 0]))
        hooks.append(hook)
    vit.forward_features(x_BCHW)
    for hook in hooks:
        hook.remove()
    return torch.stack(rows)


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_blocks_equal_timm(variant: str) -> None:
    if not VARIANTS[variant].keys() <= inspect.signature(VisionTransformer).parameters.keys():
        pytest.skip(f"timm {timm.__version__} has no {', '.join(VARIANTS[variant])}")
    vit = scrambled(VisionTransformer(**SMALL, **VARIANTS[variant]))
    x_BND, grid = embed(vit, images())
    by_hand = x_BND
    for block in vit.blocks:
        by_hand = run_block(block, by_hand, attention)
    with_rows, rows_LBN = run_blocks_with_class_rows(vit, x_BND)
    expected = vit.forward_features(images())
    assert grid == (4, 4)
    torch.testing.assert_close(vit.norm(by_hand), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(vit.norm(with_rows), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rows_LBN, timm_rows(vit, images()), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_distilled_vit_keeps_its_second_prefix_token() -> None:
    vit = timm.create_model("deit_tiny_distilled_patch16_224", img_size=32, depth=2, num_classes=0)
    scrambled(vit)
    assert _unfit(vit) == ""
    x_BND, grid = embed(vit, images())
    assert (x_BND.shape[1], grid) == (2 + 4, (2, 2))
    with_rows, _ = run_blocks_with_class_rows(vit, x_BND)
    torch.testing.assert_close(vit.norm(with_rows), vit.forward_features(images()), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_final_norm_is_the_pooling_norm_where_the_model_pools() -> None:
    vit = scrambled(VisionTransformer(**SMALL, global_pool="avg"))
    tokens = torch.randn(2, 17, 48)
    torch.testing.assert_close(final_norm(vit, tokens), vit.fc_norm(tokens))
    assert not torch.allclose(final_norm(vit, tokens), tokens, atol=0.1)


def test_dynamic_size_follows_the_image() -> None:
    vit = VisionTransformer(**SMALL, dynamic_img_size=True)
    assert embed(vit, images(48))[1] == (6, 6)


def test_wrong_image_size_is_said() -> None:
    with pytest.raises(UsageError, match="takes 32x32 images, got 48x48"):
        embed(VisionTransformer(**SMALL), images(48))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"class_token": False, "global_pool": "avg"}, "no class token"),
        ({"block_fn": ParallelThingsBlock}, "ParallelThingsBlock"),
    ],
)
def test_unfit_vits_are_refused_with_a_reason(change: dict[str, Any], reason: str) -> None:
    assert reason in _unfit(VisionTransformer(**SMALL, **change))


def test_cnn_is_refused_with_what_fits() -> None:
    with pytest.raises(UsageError, match=r"'sat' cannot run on backbone 'resnet18'.*deit_small_patch16_224"):
        build_vit("resnet18", asked_by="sat", pretrained=False)


def test_drop_path_grows_linearly_over_the_blocks() -> None:
    """As in the authors' code: block i has rate * i / (depth - 1), on both residuals."""
    vit = build_vit("badges_vit.s0", asked_by="sat", pretrained=False, drop_path=0.1)
    for i, block in enumerate(vit.blocks):
        for part in (block.drop_path1, block.drop_path2):
            assert getattr(part, "drop_prob", 0.0) == pytest.approx(0.1 * i / (len(vit.blocks) - 1))


@pytest.mark.parametrize("grid", [(1, 1), (1, 4), (2, 2), (3, 5), (8, 8)])
def test_head_equals_convolution_and_global_average(grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    head = ConvHead(12, 5).double()
    patches_BPD = torch.randn(3, grid[0] * grid[1], 12, dtype=torch.float64)
    classes_B = torch.tensor([4, 0, 4])
    maps_BKhw = F.conv2d(patches_BPD.transpose(1, 2).reshape(3, 12, *grid), head.weight, head.bias, padding=1)
    torch.testing.assert_close(head.logits(patches_BPD, grid), maps_BKhw.mean((2, 3)))
    torch.testing.assert_close(head.class_map(patches_BPD, grid, classes_B), maps_BKhw[torch.arange(3), classes_B])


@pytest.mark.parametrize(
    ("backbone", "side", "grid"),
    [
        ("deit_tiny_distilled_patch16_224", 224, (14, 14)),  # two prefix tokens
        ("vit_tiny_patch16_384", 384, (24, 24)),
        ("vit_small_patch32_224", 224, (7, 7)),
        ("deit3_small_patch16_224", 224, (14, 14)),  # layer scale, no position for the class token
    ],
)
@pytest.mark.parametrize("name", ["sat", "tscam"])
def test_maps_follow_the_grid_of_any_vit(name: str, backbone: str, side: int, grid: tuple[int, int]) -> None:
    method = wsolbench.create_method(name, num_classes=3, backbone=backbone)
    prediction = method.localize(torch.randn(1, 3, side, side))
    assert prediction.maps_Bhw.shape == (1, *grid)
    assert prediction.logits_BK is not None
    assert prediction.logits_BK.isfinite().all()


@pytest.mark.parametrize(
    ("backbone", "reason"),
    [
        ("deit_smal_patch16_224", r"unknown backbone 'deit_smal_patch16_224', did you mean .*'deit_small_patch16_224'"),
        ("resnet50", r"it is no Vision Transformer with a class token; it needs .* e\.g\. deit_small_patch16_224"),
        (
            "swin_tiny_patch4_window7_224",
            r"it is no Vision Transformer with a class token; it needs .* e\.g\. deit_small",
        ),
        ("vit_base_patch16_siglip_224", r"it is no Vision Transformer with a class token"),
    ],
)
@pytest.mark.parametrize("name", ["sat", "tscam"])
def test_backbone_that_cannot_be_used_is_one_sentence(name: str, backbone: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        wsolbench.create_method(name, num_classes=3, backbone=backbone)
    assert "\n" not in str(caught.value)
    assert ("conformer_small_patch16" in str(caught.value)) == (name == "tscam" and "unknown" not in reason)


@pytest.mark.parametrize("name", ["sat", "tscam", "cam", "attention"])
def test_image_that_does_not_fit_is_one_sentence(name: str) -> None:
    method = wsolbench.create_method(name, num_classes=3, backbone="deit_tiny_patch16_224")
    with pytest.raises(UsageError, match="the backbone takes 224x224 images, got 64x96"):
        method.localize(torch.zeros(1, 3, 64, 96))
