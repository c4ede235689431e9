"""Proposals of pretrained models, with random weights in the models' own layouts: what is asked of them, and what is done with it."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.pseudo_boxes.pretrained import ClipProposals, RpnProposals, load_clip, load_rpn

CPU = torch.device("cpu")
IMAGE = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
SIDE, GRID, WIDTH = 32, 4, 8


def check(boxes):
    assert boxes.dtype == np.int64
    assert len(boxes) == len(np.unique(boxes, axis=0)) >= 1
    assert (boxes >= 0).all()
    assert (boxes[:, :2] <= boxes[:, 2:]).all()
    assert (boxes[:, 2:] < [130, 90]).all()


# --- region proposal network -----------------------------------------------------------------------------------------


def small_detector(weights=None, weights_backbone=None):
    """The detector of the smallest kind that torchvision has, with random weights."""
    assert weights is None
    torch.manual_seed(0)
    return fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)


@pytest.fixture(scope="module")
def detector():
    return small_detector().eval()


def test_rpn_boxes_are_the_networks_in_original_pixels(detector):
    source = RpnProposals(detector, "random", CPU, count=30)
    boxes = source(IMAGE, 0)
    check(boxes)
    assert len(boxes) <= 30
    seen = {}
    handle = detector.rpn.register_forward_hook(
        lambda module, inputs, output: seen.update(all=output[0][0], of=inputs[0])
    )
    try:
        assert source(IMAGE, 1).tolist() == boxes.tolist()  # class-agnostic, and the same again
    finally:
        handle.remove()
    (height, width), raw = seen["of"].image_sizes[0], seen["all"][:30]
    scaled = np.rint(raw.numpy() * np.array([130 / width, 90 / height] * 2)).astype(int).clip(0, [129, 89, 129, 89])
    expected = [box for box in scaled.tolist() if (box[2] - box[0]) * (box[3] - box[1]) >= 0.01 * 130 * 90]
    assert boxes.tolist() == list(map(list, dict.fromkeys(map(tuple, expected))))


def test_rpn_weights_come_from_a_file_of_tensors(detector, tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.models.detection.fasterrcnn_resnet50_fpn", small_detector)
    state = {
        name: value + 0.01 if value.is_floating_point() else value for name, value in detector.state_dict().items()
    }
    save_file(state, tmp_path / "rpn.safetensors")
    source = load_rpn(tmp_path / "rpn.safetensors", CPU)
    assert torch.equal(source.detector.state_dict()["rpn.head.cls_logits.bias"], state["rpn.head.cls_logits.bias"])
    assert "weights with SHA-256" in source.external
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WsolbenchError, match=r"weights '.*other.safetensors' does not fit FasterRCNN"):
        load_rpn(tmp_path / "other.safetensors", CPU)


def test_rpn_weights_that_cannot_be_had_are_a_sentence(monkeypatch):
    def offline(weights=None, weights_backbone=None):
        raise OSError("<urlopen error no network>")

    monkeypatch.setattr("torchvision.models.detection.fasterrcnn_resnet50_fpn", offline)
    with pytest.raises(WsolbenchError, match=r"no network.*give them with --weights FILE"):
        load_rpn(None, CPU)


# --- CLIP ------------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1 = nn.LayerNorm(WIDTH)
        self.attn = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, x):
        y = self.ln_1(x)
        return x + self.attn(y, y, y, need_weights=False)[0]


class FakeClip(nn.Module):
    """The parts of open_clip's CLIP that are used, tiny: a ViT of 4 x 4 patches, and a table of words for text."""

    def __init__(self):
        super().__init__()
        visual = self.visual = nn.Module()
        visual.image_size, visual.image_mean, visual.image_std = (SIDE, SIDE), (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)
        visual.patches = nn.Conv2d(3, WIDTH, SIDE // GRID, SIDE // GRID)
        visual.transformer = nn.Module()
        visual.transformer.resblocks = nn.ModuleList([Block(), Block()])
        self.words = nn.Embedding(128, WIDTH)
        self.logit_scale = nn.Parameter(torch.tensor(3.0))

    def encode_image(self, images, normalize):
        patches = self.visual.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([patches.mean(1, keepdim=True), patches], 1)
        for block in self.visual.transformer.resblocks:
            tokens = block(tokens)
        return nn.functional.normalize(tokens[:, 0], dim=1)

    def encode_text(self, tokens, normalize):
        return nn.functional.normalize(self.words(tokens).mean(1), dim=1)


PROMPTS: list[str] = []


def tokenize(texts):
    PROMPTS[:] = texts
    return torch.tensor([[ord(character) % 128 for character in text.ljust(60)[:60]] for text in texts])


@pytest.fixture
def clip():
    torch.manual_seed(1)
    return FakeClip()


def test_clip_boxes_are_those_of_the_classs_map(clip):
    source = ClipProposals(clip, tokenize, ["001.Black_footed_Albatross", "dog", "tree"], "random", CPU)
    assert PROMPTS[0] == "a photo of a Black footed Albatross."
    maps = [source.map_of(IMAGE, label, SIDE) for label in range(3)]
    assert all(each.shape == (GRID, GRID) for each in maps)
    assert not torch.equal(maps[0], maps[1])
    assert torch.equal(maps[0], source.map_of(IMAGE, 0, SIDE))
    for label in range(3):
        check(source(IMAGE, label))
    assert all(parameter.grad is None for parameter in clip.parameters())
    assert not clip.visual.transformer.resblocks[-1].ln_1._forward_hooks


def test_clip_map_is_grad_cam(clip):
    """Against the package grad-cam, whose weights are mean gradients too."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    source = ClipProposals(clip, tokenize, ["cat", "dog", "tree"], "random", CPU)

    class Probabilities(nn.Module):
        def __init__(self):
            super().__init__()
            self.clip = clip

        def forward(self, images):
            return (clip.logit_scale.exp() * clip.encode_image(images, True) @ source.text_KC.T).softmax(1)

    def grid(tokens):
        return tokens[:, 1:].transpose(1, 2).reshape(1, WIDTH, GRID, GRID)

    clip.visual.patches.requires_grad_()
    unit = torch.from_numpy(IMAGE).permute(2, 0, 1).float()[None] / 255
    unit = nn.functional.interpolate(unit, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (torch.tensor(values)[:, None, None] for values in (clip.visual.image_mean, clip.visual.image_std))
    layer = clip.visual.transformer.resblocks[-1].ln_1
    with GradCAM(model=Probabilities(), target_layers=[layer], reshape_transform=grid) as cam:
        cam((unit - mean) / std, [ClassifierOutputTarget(2)])
        (activations,), (gradients,) = cam.activations_and_grads.activations, cam.activations_and_grads.gradients
    weights = gradients.mean((2, 3), keepdim=True)
    expected = (weights * activations).sum(1)[0].relu()
    assert expected.max() > 0
    torch.testing.assert_close(source.map_of(IMAGE, 2, SIDE), expected.detach(), rtol=1e-4, atol=1e-8)


def test_clip_is_loaded_through_open_clip(clip, tmp_path, monkeypatch):
    def create_model(name, pretrained, force_quick_gelu):
        assert (name, force_quick_gelu) == ("ViT-B-16", True)
        if pretrained is not None:
            raise RuntimeError(f"no network for {pretrained}")
        return FakeClip()

    package = types.SimpleNamespace(create_model=create_model, get_tokenizer=lambda name: tokenize)
    monkeypatch.setitem(__import__("sys").modules, "open_clip", package)
    save_file(clip.state_dict(), tmp_path / "clip.safetensors")
    source = load_clip(tmp_path / "clip.safetensors", ["cat", "dog"], CPU)
    assert torch.equal(source.model.words.weight, clip.words.weight)
    with pytest.raises(WsolbenchError, match=r"no network for openai.*--weights FILE"):
        load_clip(None, ["cat", "dog"], CPU)
    for codes in (["n01440764", "n01443537"], ["01226z", "0130jx", "01_5g"]):
        with pytest.raises(UsageError, match="which CLIP cannot read: give names with --class-names"):
            load_clip(None, codes, CPU)
