"""SAT against a naive implementation written from the facts: whole attention matrix, per-class maps, plain pooling."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import wsolbench
from wsolbench.config.schema import TrainConfig
from wsolbench.errors import UsageError
from wsolbench.method.base import Method
from wsolbench.types import Batch
from wsolbench_methods.sat import smoothing_kernel

CORNER, EDGE, CENTRE = 0.0026284618, 0.0460116034, 0.8054397389  # float32 values in the authors' code


def naive_sat(p: dict[str, Tensor], images: Tensor, masked: int) -> tuple[Tensor, Tensor]:
    """Logits and map, step by step; `p` are the method's weights by the names of its state dict."""
    x = p["vit.patch_embed.proj.weight"]
    heads, patch, depth = 2, x.shape[-1], sum(name.endswith("norm1.weight") for name in p)
    x = F.conv2d(images, x, p["vit.patch_embed.proj.bias"], stride=patch)
    B, D, h, w = x.shape
    x = torch.cat([p["vit.cls_token"].expand(B, 1, D), x.flatten(2).transpose(1, 2), p["loc_token"].expand(B, 1, D)], 1)
    x = x + torch.cat([p["vit.pos_embed"], p["loc_embed"]], 1)
    masks = []
    for i in range(depth):
        w_ = {name.removeprefix(f"vit.blocks.{i}."): v for name, v in p.items() if name.startswith(f"vit.blocks.{i}.")}
        y = F.layer_norm(x, (D,), w_["norm1.weight"], w_["norm1.bias"], 1e-6)
        q, k, v = F.linear(y, w_["attn.qkv.weight"], w_["attn.qkv.bias"]).chunk(3, -1)
        q, k, v = (t.reshape(B, -1, heads, D // heads).transpose(1, 2) for t in (q, k, v))
        A = q @ k.transpose(-2, -1) * (D // heads) ** -0.5
        m = torch.sigmoid(A[:, :, -1, :].mean(1))[:, None, None, :]
        W = A.softmax(-1)
        if i >= depth - masked:
            W = W * m
            masks.append(m[:, 0, 0, 1:-1])
        x = x + F.linear((W @ v).transpose(1, 2).reshape(B, -1, D), w_["attn.proj.weight"], w_["attn.proj.bias"])
        y = F.layer_norm(x, (D,), w_["norm2.weight"], w_["norm2.bias"], 1e-6)
        y = F.gelu(F.linear(y, w_["mlp.fc1.weight"], w_["mlp.fc1.bias"]))
        x = x + F.linear(y, w_["mlp.fc2.weight"], w_["mlp.fc2.bias"])
    x = F.layer_norm(x, (D,), p["vit.norm.weight"], p["vit.norm.bias"], 1e-6)[:, 1:-1]
    scores = F.conv2d(x.transpose(1, 2).reshape(B, D, h, w), p["head.weight"], p["head.bias"], padding=1)
    return scores.mean((2, 3)), torch.stack(masks).mean(0).reshape(B, h, w)


def naive_losses(logits: Tensor, maps: Tensor, labels: Tensor, area: float) -> dict[str, Tensor]:
    """The three losses as the paper's code has them."""
    kernel = torch.tensor([[CORNER, EDGE, CORNER], [EDGE, CENTRE, EDGE], [CORNER, EDGE, CORNER]])
    G = F.conv2d(maps.unsqueeze(1), kernel.expand(1, 1, 3, 3), padding=1).squeeze(1)
    return {
        "cls": F.cross_entropy(logits, labels),
        "area": (maps.mean((1, 2)).mean(0) - area).abs(),
        "normalization": ((1 - G) * G).mean((1, 2)).mean(0),
    }


def small_sat(**config: float) -> Method:
    """SAT on a small plain ViT, always with the same weights."""
    torch.manual_seed(0)
    return wsolbench.create_method("sat", num_classes=7, backbone="test_vit", **config)


@pytest.fixture
def method() -> Method:
    """The same with every weight away from its initial value, so that leaving one out shows."""
    method = small_sat(drop_path=0.0)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return method


def test_forward_equals_the_naive_implementation(method: Method, batch: Batch) -> None:
    prediction = method.localize(batch.images_BCHW)
    logits, maps = naive_sat(method.state_dict(), batch.images_BCHW, masked=3)
    assert prediction.logits_BK is not None
    assert maps.std() > 0.01  # else agreement would say little
    torch.testing.assert_close(prediction.logits_BK, logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(prediction.maps_Bhw, maps, rtol=0, atol=1e-5)


def test_losses_and_gradients_equal_the_naive_implementation(method: Method, batch: Batch) -> None:
    losses = method.loss(batch)
    sum(losses.values(), torch.zeros(())).backward()
    copies = {name: p.detach().clone().requires_grad_() for name, p in method.named_parameters()}
    expected = naive_losses(*naive_sat(copies, batch.images_BCHW, masked=3), batch.labels_B, area=0.25)
    sum(expected.values(), torch.zeros(())).backward()
    assert losses.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(losses[name], expected[name], rtol=0, atol=1e-5)
    for name, parameter in method.named_parameters():
        want = copies[name].grad
        assert want is not None
        assert parameter.grad is not None
        assert (parameter.grad - want).norm() <= 1e-4 * want.norm() + 1e-8, name


def test_masking_more_blocks_is_another_network(batch: Batch) -> None:
    method = small_sat(masked_blocks=1)
    logits, maps = naive_sat(method.state_dict(), batch.images_BCHW, masked=1)
    got = method.localize(batch.images_BCHW)
    torch.testing.assert_close(got.maps_Bhw, maps, rtol=0, atol=1e-5)
    torch.testing.assert_close(got.logits_BK, logits, rtol=0, atol=1e-5)


def test_weights_scale_their_terms(batch: Batch) -> None:
    plain = small_sat(drop_path=0.0).loss(batch)
    scaled = small_sat(drop_path=0.0, area_weight=4.0, normalization_weight=0.5).loss(batch)
    assert scaled["area"].item() == pytest.approx(4 * plain["area"].item())
    assert scaled["normalization"].item() == pytest.approx(0.5 * plain["normalization"].item())
    assert scaled["cls"].item() == plain["cls"].item()


@pytest.mark.parametrize("masked", [0, 7])
def test_impossible_number_of_masked_blocks_is_refused(masked: int) -> None:
    with pytest.raises(UsageError, match=f"masked_blocks={masked} is not between 1 and 6"):
        small_sat(masked_blocks=masked)


def test_smoothing_kernel_has_the_authors_values() -> None:
    kernel = smoothing_kernel()
    expected = torch.tensor([[CORNER, EDGE, CORNER], [EDGE, CENTRE, EDGE], [CORNER, EDGE, CORNER]])
    torch.testing.assert_close(kernel, expected, rtol=0, atol=2e-9 + 6e-8)
    smooth_ones = F.conv2d(torch.ones(1, 1, 5, 5), kernel[None, None], padding=1)[0, 0]
    assert [round(smooth_ones[i].item(), 3) for i in ((2, 2), (0, 2), (0, 0))] == [1.0, 0.949, 0.9]


@pytest.mark.parametrize(
    ("backbone", "num_classes", "trainable"),
    [  # counted in the authors' code; at K = 20 and 7 in its state dicts, less the nine frozen values of the kernel
        ("deit_tiny_patch16_224", 200, 5_870_600),
        ("deit_tiny_patch16_224", 1000, 7_253_800),
        ("deit_tiny_patch16_224", 20, 5_559_389 - 9),
        ("deit_small_patch16_224", 200, 22_357_832),
        ("deit_small_patch16_224", 1000, 25_123_432),
        ("deit_small_patch16_224", 7, 21_690_640 - 9),
        ("deit_base_patch16_224", 1000, 92_713_192),
    ],
)
def test_parameter_counts(backbone: str, num_classes: int, trainable: int) -> None:
    method = wsolbench.create_method("sat", num_classes=num_classes, backbone=backbone)
    assert sum(p.numel() for p in method.parameters() if p.requires_grad) == trainable
    assert len(method.state_dict()) == 154  # the authors' 155 less the constant kernel
    groups = method.param_groups(TrainConfig())  # the authors' 54 and 100 tensors: tokens and positions do decay
    by_decay = {
        decays: sum(len(group["params"]) for group in groups if bool(group["weight_decay"]) is decays)
        for decays in (True, False)
    }
    assert by_decay == {True: 54, False: 100}


def test_initial_values(batch: Batch) -> None:
    method = small_sat()
    for name in ("loc_token", "loc_embed", "vit.cls_token", "vit.pos_embed"):
        assert 0.015 < method.state_dict()[name].std() < 0.025, name
    bound = (9 * 64) ** -0.5  # PyTorch's default for a convolution
    assert 0.95 * bound < method.state_dict()["head.weight"].abs().max() <= bound


def test_reads_the_layout_of_the_authors_checkpoints(method: Method, batch: Batch, tmp_path: Path) -> None:
    layout = {f"module.{name.removeprefix('vit.')}": value for name, value in method.state_dict().items()}
    layout["module.weight"] = smoothing_kernel()[None, None]
    torch.save({"model": layout, "best_thr": 0.0, "epoch": 3}, tmp_path / "epoch_3.pth.tar")
    fresh = small_sat()
    assert not torch.equal(fresh.localize(batch.images_BCHW).maps_Bhw, method.localize(batch.images_BCHW).maps_Bhw)
    fresh.load_checkpoint(tmp_path / "epoch_3.pth.tar")
    assert torch.equal(fresh.localize(batch.images_BCHW).maps_Bhw, method.localize(batch.images_BCHW).maps_Bhw)
