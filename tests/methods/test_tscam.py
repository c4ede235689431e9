"""TS-CAM, CAM on tokens and the attention control against a naive implementation written from the facts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import wsolbench
from wsolbench.backbones import create_backbone
from wsolbench.config import TrainConfig
from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.method import Method
from wsolbench.types import Batch


def naive_vit(p: dict[str, Tensor], images: Tensor, prefix: str) -> tuple[Tensor, Tensor]:
    """Patch features [B, D, h, w] after the last norm and the attention of all blocks [L, B, N, N], mean over heads."""
    p = {name.removeprefix(prefix): value for name, value in p.items() if name.startswith(prefix)}
    heads, depth = 2, sum(name.endswith("norm1.weight") for name in p)
    x = F.conv2d(images, p["patch_embed.proj.weight"], p["patch_embed.proj.bias"], stride=16)
    B, D, h, w = x.shape
    x = torch.cat([p["cls_token"].expand(B, 1, D), x.flatten(2).transpose(1, 2)], 1) + p["pos_embed"]
    attentions = []
    for i in range(depth):
        b = {name.removeprefix(f"blocks.{i}."): v for name, v in p.items() if name.startswith(f"blocks.{i}.")}
        y = F.layer_norm(x, (D,), b["norm1.weight"], b["norm1.bias"], 1e-6)
        q, k, v = F.linear(y, b["attn.qkv.weight"], b["attn.qkv.bias"]).chunk(3, -1)
        q, k, v = (t.reshape(B, -1, heads, D // heads).transpose(1, 2) for t in (q, k, v))
        A = (q @ k.transpose(-2, -1) * (D // heads) ** -0.5).softmax(-1)
        attentions.append(A.mean(1))
        x = x + F.linear((A @ v).transpose(1, 2).reshape(B, -1, D), b["attn.proj.weight"], b["attn.proj.bias"])
        y = F.layer_norm(x, (D,), b["norm2.weight"], b["norm2.bias"], 1e-6)
        x = x + F.linear(
            F.gelu(F.linear(y, b["mlp.fc1.weight"], b["mlp.fc1.bias"])), b["mlp.fc2.weight"], b["mlp.fc2.bias"]
        )
    x = F.layer_norm(x, (D,), p["norm.weight"], p["norm.bias"], 1e-6)
    return x[:, 1:].transpose(1, 2).reshape(B, D, h, w), torch.stack(attentions)


def class_attention(attentions_LBNN: Tensor) -> Tensor:
    """Sum over blocks, row of the class token, columns of the patches, as a map."""
    return attentions_LBNN.sum(0)[:, 0, 1:].reshape(-1, 10, 10)


def scrambled(name: str, **config: float | str) -> Method:
    """A method on a small plain ViT with every weight away from its initial value."""
    torch.manual_seed(0)
    method = wsolbench.create_method(name, num_classes=7, backbone="test_vit", **config)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return method


@pytest.mark.parametrize("labelled", [True, False])
def test_tscam_equals_the_naive_implementation(exact: Batch, labelled: bool) -> None:
    method = scrambled("tscam").double()
    p = method.state_dict()
    features, attentions = naive_vit(p, exact.images_BCHW, "vit.")
    S = F.conv2d(features, p["head.weight"], p["head.bias"], padding=1)
    logits = S.mean((2, 3))
    classes = exact.labels_B if labelled else logits.argmax(1)
    got = method.localize(exact.images_BCHW, exact.labels_B if labelled else None)
    torch.testing.assert_close(got.logits_BK, logits.float(), rtol=1e-6, atol=1e-6)
    expected = class_attention(attentions) * S[torch.arange(4), classes]
    assert expected.min() < 0 < expected.max()  # maps stay signed
    torch.testing.assert_close(got.maps_Bhw, expected.float(), rtol=1e-6, atol=1e-6)


def test_tscam_loss_and_gradients_equal_the_naive_implementation(batch: Batch) -> None:
    method = scrambled("tscam", drop_path=0.0)
    loss = method.loss(batch)["cls"]
    loss.backward()
    copies = {name: p.detach().clone().requires_grad_() for name, p in method.named_parameters()}
    features, _ = naive_vit(copies, batch.images_BCHW, "vit.")
    scores = F.conv2d(features, copies["head.weight"], copies["head.bias"], padding=1)
    expected = F.cross_entropy(scores.mean((2, 3)), batch.labels_B)
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-5)
    for name, parameter in method.named_parameters():
        want = copies[name].grad
        assert want is not None
        assert parameter.grad is not None
        assert (parameter.grad - want).norm() <= 1e-4 * want.norm() + 1e-8, name


def test_cam_on_a_vit_is_the_class_map_without_attention(exact: Batch) -> None:
    method = scrambled("cam").double()
    p = method.state_dict()
    features, _ = naive_vit(p, exact.images_BCHW, "classifier.vit.")
    S = F.conv2d(features, p["classifier.head.weight"], p["classifier.head.bias"], padding=1)
    got = method.localize(exact.images_BCHW, exact.labels_B)
    torch.testing.assert_close(got.logits_BK, S.mean((2, 3)).float(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(got.maps_Bhw, S[torch.arange(4), exact.labels_B].float(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("blocks", ["all", "last"])
def test_attention_control_is_the_class_row(batch: Batch, blocks: str) -> None:
    method = scrambled("attention", blocks=blocks)
    _, attentions = naive_vit(method.state_dict(), batch.images_BCHW, "vit.")
    got = method.localize(batch.images_BCHW)
    assert got.logits_BK is None
    expected = class_attention(attentions if blocks == "all" else attentions[-1:])
    torch.testing.assert_close(got.maps_Bhw, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("backbone", "num_classes", "parameters"),
    [("deit_tiny_patch16_224", 20, 5_558_996), ("deit_small_patch16_224", 7, 21_689_863)],
)
def test_parameter_counts_equal_the_authors(backbone: str, num_classes: int, parameters: int) -> None:
    method = wsolbench.create_method("tscam", num_classes=num_classes, backbone=backbone)
    assert sum(p.numel() for p in method.parameters() if p.requires_grad) == parameters
    assert len(method.state_dict()) == 152


def test_tokens_and_positions_do_not_decay() -> None:
    """Unlike SAT's, the authors' exclusion list works."""
    method = scrambled("tscam")
    free = {id(p) for g in method.param_groups(TrainConfig()) if not g["weight_decay"] for p in g["params"]}
    assert {n for n, p in method.named_parameters() if p.ndim > 1 and id(p) in free} == {
        "vit.pos_embed",
        "vit.cls_token",
    }


def test_reads_the_layout_of_the_authors_checkpoints(batch: Batch, tmp_path: Path) -> None:
    method = scrambled("tscam")
    layout = {f"module.{name.removeprefix('vit.')}": value for name, value in method.state_dict().items()}
    torch.save({"state_dict": layout, "epoch": 3, "best_map": 0.0}, tmp_path / "model_best.pth")
    fresh = wsolbench.create_method("tscam", num_classes=7, backbone="test_vit")
    fresh.load_checkpoint(tmp_path / "model_best.pth")
    assert torch.equal(fresh.localize(batch.images_BCHW).maps_Bhw, method.localize(batch.images_BCHW).maps_Bhw)


@pytest.mark.parametrize(("classes", "heads_are_kept"), [(5, False), (9, True)])
def test_conformer_starts_from_its_own_authors_file(tmp_path: Path, classes: int, heads_are_kept: bool) -> None:
    """Of the plain classifiers TS-CAM's authors keep what has the right shape: at equal classes, all but one weight."""
    source = wsolbench.create_method("tscam", num_classes=9, backbone="conformer_small_patch16")
    plain = {name.removeprefix("vit."): value + 1 for name, value in source.state_dict().items()}
    plain["trans_cls_head.bias"] = plain.pop("head.bias")
    plain["trans_cls_head.weight"] = plain.pop("head.weight")[..., 0, 0]
    torch.save(plain, tmp_path / "conformer.pth")
    method = wsolbench.create_method("tscam", num_classes=classes, backbone="conformer_small_patch16")
    assert method.load_checkpoint(tmp_path / "conformer.pth").name == "plain Conformer"
    state = method.state_dict()
    assert torch.equal(state["vit.conv1.weight"], plain["conv1.weight"])
    if heads_are_kept:
        assert torch.equal(state["head.bias"], plain["trans_cls_head.bias"])
        assert torch.equal(state["vit.conv_cls_head.weight"], plain["conv_cls_head.weight"])


@pytest.mark.parametrize("name", ["sat", "cam", "gradcam", "attention"])
def test_conformer_is_refused_by_other_methods(name: str) -> None:
    with pytest.raises(UsageError, match=r"conformer_small_patch16' works with method 'tscam' only"):
        wsolbench.create_method(name, num_classes=3, backbone="conformer_small_patch16")


def test_conformer_says_which_images_fit_and_that_it_has_no_weights() -> None:
    method = wsolbench.create_method("tscam", num_classes=3, backbone="conformer_small_patch16")
    assert method.localize(torch.zeros(1, 3, 64, 96)).maps_Bhw.shape == (1, 4, 6)
    with pytest.raises(UsageError, match="multiples of 32, got 80x64"):
        method.localize(torch.zeros(1, 3, 80, 64))
    with pytest.raises(WsolbenchError, match="checkpoint=PATH"):
        wsolbench.create_method("tscam", num_classes=3, backbone="conformer_small_patch16", pretrained=True)


def test_class_bias_of_the_pretrained_classifier_is_kept_where_it_has_the_shape(tmp_path: Path) -> None:
    """The authors drop what differs in shape: at equal classes that is the head's weight alone."""
    pretrained = create_backbone("badges_vit.s0", num_classes=16, pretrained=True)
    bias = pretrained.get_parameter("head.bias")
    assert bias.abs().max() > 0
    build: dict[str, Any] = {"backbone": "badges_vit.s0", "pretrained": True}
    assert torch.equal(wsolbench.create_method("tscam", num_classes=16, **build).head.bias, bias)
    assert wsolbench.create_method("tscam", num_classes=10, **build).head.bias.shape == (10,)
    torch.save({"model": pretrained.state_dict()}, tmp_path / "vit.pth")
    method = wsolbench.create_method("tscam", num_classes=16, backbone="badges_vit.s0")
    assert not torch.equal(method.head.bias, bias)
    method.load_checkpoint(tmp_path / "vit.pth")
    assert torch.equal(method.head.bias, bias)
