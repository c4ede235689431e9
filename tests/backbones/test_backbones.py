"""The embedded backbones behave as timm models do, and every timm model can be had by name."""

from __future__ import annotations

import subprocess
import sys

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from wsolbench import backbones
from wsolbench.backbones import embedded
from wsolbench.errors import UsageError, WsolbenchError

EMBEDDED = embedded.list_backbones()


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", EMBEDDED)
def test_shipped_weights_load_with_another_number_of_classes(name, images):
    one, other = (timm.create_model(name, pretrained=True, num_classes=10).eval() for _ in range(2))
    scratch = timm.create_model(name, pretrained=False, num_classes=10).eval()
    assert one(images).shape == (2, 10)
    assert torch.equal(one.forward_features(images), other.forward_features(images))
    assert not torch.allclose(one.forward_features(images), scratch.forward_features(images), atol=0.1)


@pytest.mark.parametrize("name", EMBEDDED)
def test_timm_interface(name, images):
    model = backbones.create_backbone(name, num_classes=7, pretrained=False).eval()
    features = model.forward_features(images)
    pooled = model.forward_head(features, pre_logits=True)
    assert pooled.shape == (2, model.num_features)
    assert torch.allclose(model.get_classifier()(pooled), model(images))
    assert model.pretrained_cfg["input_size"] == (3, 64, 64)
    model.reset_classifier(4)
    assert model(images).shape == (2, 4)
    assert model.num_classes == 4
    model.reset_classifier(0)
    assert torch.allclose(model(images), pooled)


def test_cnn_map_and_receptive_field(images):
    model = backbones.create_backbone("badges_cnn", num_classes=10, pretrained=False).eval()
    assert model.forward_features(images).shape[2:] == (16, 16)
    assert model.global_pool == "avg"
    # GroupNorm looks at the whole map by its statistics; the convolutions alone see 23 pixels
    for module in model.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.forward = lambda x: x
    images.requires_grad_()
    model.forward_features(images)[0, :, 8, 8].sum().backward()
    ys, xs = torch.nonzero(images.grad[0].abs().sum(0), as_tuple=True)
    assert int(ys.max() - ys.min()) + 1 <= 23
    assert int(xs.max() - xs.min()) + 1 <= 23


@pytest.mark.parametrize("tag", ["s0", "s1"])
def test_vit_parts_are_those_methods_use(tag, images):
    model = backbones.create_backbone(f"badges_vit.{tag}", num_classes=10, pretrained=True, drop_path_rate=0.1).eval()
    assert isinstance(model, VisionTransformer)
    assert model.patch_embed.grid_size == (8, 8)
    tokens = model._pos_embed(model.patch_embed(images))
    assert tokens.shape == (2, 65, 96)
    for block in model.blocks:
        tokens = block(tokens)
    assert torch.allclose(model.norm(tokens), model.forward_features(images), atol=1e-6)


def test_vit_seeds_differ():
    first, second = (timm.create_model(f"badges_vit.{tag}", pretrained=True) for tag in ("s0", "s1"))
    assert not torch.allclose(first.cls_token, second.cls_token)
    assert embedded.weights_sha256("badges_vit.s0") != embedded.weights_sha256("badges_vit.s1")


def test_weights_are_small_and_have_logs():
    files = list(embedded.WEIGHTS.iterdir())
    assert sum(file.stat().st_size for file in files) < 5_000_000
    assert {file.name for file in files} == {f"{name}.{kind}" for name in EMBEDDED for kind in ("safetensors", "jsonl")}


def test_weights_hash():
    assert embedded.weights_sha256("resnet18") is None
    for name in EMBEDDED:
        assert len(embedded.weights_sha256(name) or "") == 64


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("badges_cnn", "cnn"),
        ("badges_vit.s1", "vit"),
        ("resnet50", "cnn"),
        ("deit_small_patch16_224", "vit"),
        ("deit_small_distilled_patch16_224", "vit"),
        ("vit_base_patch16_siglip_224", "cnn"),  # no class token
        ("swin_tiny_patch4_window7_224", "cnn"),
    ],
)
def test_family(name, expected):
    assert backbones.family(name) == expected


@pytest.mark.parametrize(
    ("name", "near"),
    [("resnet5", "'resnet50'"), ("badges_vt.s0", "'badges_vit.s0'"), ("badges_vit.s7", "'badges_vit.s0'")],
)
def test_unknown_names_get_suggestions(name, near):
    for ask in (
        lambda: backbones.create_backbone(name, num_classes=2, pretrained=False),
        lambda: backbones.family(name),
    ):
        with pytest.raises(UsageError, match=f"unknown backbone '{name}', did you mean .*{near}"):
            ask()


def test_failed_download_is_one_sentence(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("Name or service not known\nand a long story")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        WsolbenchError, match=r"weights of backbone 'resnet18' could not be loaded .*not known"
    ) as caught:
        backbones.create_backbone("resnet18", num_classes=2, pretrained=True)
    assert "\n" not in str(caught.value)


def test_names_without_weights_say_so():
    name = next(name for name in timm.list_models("vit_*") if not timm.list_pretrained(f"{name}*"))
    with pytest.raises(WsolbenchError, match=name):
        backbones.create_backbone(name, num_classes=2, pretrained=True)


def test_listing_imports_no_torch():
    code = "import sys, wsolbench.backbones.embedded as e; assert e.list_backbones(); sys.exit('torch' in sys.modules)"
    root = str(embedded.WEIGHTS.parents[2])
    assert subprocess.run([sys.executable, "-c", code], check=False, env={"PYTHONPATH": root}).returncode == 0
