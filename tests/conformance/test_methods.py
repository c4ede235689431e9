"""What every registered method promises, on tiny backbones and eight images. A new file is tested by being registered."""

from __future__ import annotations

import ast
import copy
import dataclasses
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import wsolbench
from wsolbench.checkpoint import write_tensors
from wsolbench.errors import UsageError
from wsolbench.method import Method
from wsolbench.numerics import Dtype, Numerics
from wsolbench.registry import METHODS, Entry
from wsolbench.types import Batch, Prediction

K = 4
BACKBONES = ("badges_cnn", "badges_vit.s0")
ADAPTED = ("gradcam-pkg:EigenCAM", "gradcam-pkg:EigenGradCAM")  # with and without gradients; ScoreCAM takes minutes
NAMES = [name for name in wsolbench.list_methods() if not name.endswith(":")] + [*ADAPTED]


def build(name: str, backbone: str | None, seed: int = 0, **config: Any) -> Method:
    torch.manual_seed(seed)
    return wsolbench.create_method(name, num_classes=K, backbone=backbone, **config)


def entry_of(name: str) -> Entry:
    """Where the name, or the adapter that answers for it, is registered."""
    return METHODS.entries().get(name) or METHODS.entries()[name.partition(":")[0] + ":"]


@cache
def backbones_of(name: str) -> tuple[str | None, ...]:
    """Those the method accepts; one without a network runs without."""
    if METHODS.get(name).default_backbone is None:
        return (None,)
    accepted = []
    for backbone in BACKBONES:
        try:
            build(name, backbone)
        except UsageError:  # refusing is allowed, `test_runs_on_a_tiny_backbone` asks for at least one
            continue
        accepted.append(backbone)
    return tuple(accepted)


CASES = [pytest.param(name, b, id=f"{name}-{b}" if b else name) for name in NAMES for b in backbones_of(name)]
on_every_backbone = pytest.mark.parametrize(("name", "backbone"), CASES)
for_every_method = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(7)
    images = torch.randn(8, 3, 64, 64, generator=generator)
    return Batch([f"image/{i}" for i in range(8)], images, torch.arange(8) % K)


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def train(method: Method, batch: Batch, steps: int, lr: float = 1e-3) -> None:
    torch.manual_seed(1)
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=lr)
    method.train()
    for _ in range(steps):
        optimizer.zero_grad()
        total(method(batch)).backward()
        optimizer.step()


def is_trained(method: Method) -> bool:
    return type(method).training_for(method.backbone) != "none"


def assert_same(first: Prediction, second: Prediction) -> None:
    assert torch.equal(first.maps_Bhw, second.maps_Bhw)
    assert (first.logits_BK is None) == (second.logits_BK is None)
    if first.logits_BK is not None and second.logits_BK is not None:
        assert torch.equal(first.logits_BK, second.logits_BK)


@for_every_method
def test_runs_on_a_tiny_backbone(name: str) -> None:
    assert backbones_of(name)


@on_every_backbone
@pytest.mark.parametrize("labelled", [True, False], ids=["labels", "predicted"])
def test_prediction_has_the_promised_shapes(name: str, backbone: str | None, labelled: bool, batch: Batch) -> None:
    prediction = build(name, backbone).localize(batch.images_BCHW, batch.labels_B if labelled else None)
    maps = prediction.maps_Bhw
    assert maps.ndim == 3
    assert len(maps) == 8
    assert maps.dtype == torch.float32
    assert maps.isfinite().all()
    assert not maps.requires_grad
    assert (maps.amax((1, 2)) >= maps.amin((1, 2))).all()
    if prediction.logits_BK is not None:
        assert prediction.logits_BK.shape == (8, K)
        assert prediction.logits_BK.dtype == torch.float32
        assert prediction.logits_BK.isfinite().all()
        assert not prediction.logits_BK.requires_grad


@on_every_backbone
def test_no_labels_means_the_predicted_class(name: str, backbone: str | None, batch: Batch) -> None:
    method = build(name, backbone)
    predicted = method.localize(batch.images_BCHW)
    if predicted.logits_BK is not None:
        assert_same(predicted, method.localize(batch.images_BCHW, predicted.logits_BK.argmax(1)))
    else:  # no classifier: one map whatever the class
        assert_same(predicted, method.localize(batch.images_BCHW, batch.labels_B))


@on_every_backbone
@pytest.mark.parametrize("size", [1, 3])
def test_prediction_is_independent_of_the_batch_size(name: str, backbone: str | None, size: int, batch: Batch) -> None:
    """Computed in float64, where only a mixing of images could show: answers are equal to float32 rounding.

    In float32 the kernels chosen for a batch of one round differently, by up to 1.3e-6 of the largest value on these
    backbones, which would hide what is tested here.
    """
    method = build(name, backbone).double()
    images, labels = batch.images_BCHW.double(), batch.labels_B
    whole = method.localize(images, labels)
    parts = [method.localize(*part) for part in zip(images.split(size), labels.split(size), strict=True)]
    assert_equal_to_rounding(torch.cat([part.maps_Bhw for part in parts]), whole.maps_Bhw)
    if whole.logits_BK is not None:
        logits_BK = torch.cat([part.logits_BK for part in parts if part.logits_BK is not None])
        assert_equal_to_rounding(logits_BK, whole.logits_BK)


def assert_equal_to_rounding(got: Tensor, expected: Tensor) -> None:
    assert (got - expected).abs().max() <= 3e-7 * expected.abs().max()


@on_every_backbone
def test_seed_repeats_bit_for_bit(name: str, backbone: str | None, batch: Batch) -> None:
    states = []
    for _ in range(2):
        method = build(name, backbone, seed=3)
        if is_trained(method):
            train(method, batch, steps=2)
        states.append((method.state_dict(), method.localize(batch.images_BCHW, batch.labels_B)))
    (first, first_prediction), (second, second_prediction) = states
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert_same(first_prediction, second_prediction)


@on_every_backbone
def test_another_seed_is_another_network(name: str, backbone: str | None) -> None:
    first, second = (build(name, backbone, seed=seed).state_dict() for seed in (0, 1))
    assert not first or any(not torch.equal(first[key], second[key]) for key in first)


@on_every_backbone
def test_loss_falls(name: str, backbone: str | None, batch: Batch) -> None:
    """In steps small enough, and enough of them, to fall by a fifth or more: larger ones leap to and fro at first."""
    method = build(name, backbone)
    if not is_trained(method):
        assert method.loss(batch) == {}
        return
    losses = method.loss(batch)
    assert losses
    assert all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())
    before = total(losses).item()
    train(method, batch, steps=16, lr=3e-4)
    assert total(method.loss(batch)).item() < before


@on_every_backbone
def test_every_trainable_parameter_is_used(name: str, backbone: str | None, batch: Batch) -> None:
    """Else DistributedDataParallel would wait for its gradient."""
    method = build(name, backbone).train()
    if is_trained(method):
        total(method(batch)).backward()
    assert [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None] == []


@on_every_backbone
def test_optimizer_groups_hold_every_trainable_parameter_once(name: str, backbone: str | None) -> None:
    from wsolbench.config import TrainConfig

    method = build(name, backbone)
    grouped = [id(p) for group in method.param_groups(TrainConfig()) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in method.parameters() if p.requires_grad)


@on_every_backbone
def test_saves_and_loads(name: str, backbone: str | None, batch: Batch, tmp_path: Path) -> None:
    method = build(name, backbone, seed=0)
    write_tensors(tmp_path / "last.safetensors", method.state_dict())
    torch.manual_seed(1)
    loaded = wsolbench.create_method(name, num_classes=K, backbone=backbone, checkpoint=tmp_path / "last.safetensors")
    assert_same(loaded.localize(batch.images_BCHW, batch.labels_B), method.localize(batch.images_BCHW, batch.labels_B))


@on_every_backbone
def test_localize_is_the_same_in_every_grad_mode(name: str, backbone: str | None, batch: Batch) -> None:
    method = build(name, backbone)
    modes: list[AbstractContextManager[Any]] = [torch.enable_grad(), torch.no_grad(), torch.inference_mode()]
    predictions = []
    for mode in modes:
        with mode:  # copies, so that under inference_mode the inputs are inference tensors
            predictions.append(method.localize(batch.images_BCHW.clone(), batch.labels_B.clone()))
    assert_same(predictions[0], predictions[1])
    assert_same(predictions[0], predictions[2])
    with torch.inference_mode():
        predicted = method.localize(batch.images_BCHW.clone())
    assert_same(predicted, method.localize(batch.images_BCHW))
    assert torch.is_grad_enabled()


@on_every_backbone
@pytest.mark.parametrize("dtype", [Dtype.bf16, Dtype.fp16])
def test_other_numerics_keep_the_promises(name: str, backbone: str | None, dtype: Dtype, batch: Batch) -> None:
    method, numerics = build(name, backbone), Numerics(dtype, channels_last=True)
    plain = method.localize(batch.images_BCHW, batch.labels_B)
    with numerics.applied(method), numerics.running(torch.device("cpu")):
        prediction, losses = method.localize(batch.images_BCHW, batch.labels_B), method(batch)
    assert prediction.maps_Bhw.dtype == torch.float32
    assert prediction.maps_Bhw.shape == plain.maps_Bhw.shape
    assert prediction.maps_Bhw.isfinite().all()
    assert prediction.logits_BK is None or prediction.logits_BK.dtype == torch.float32
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())


@on_every_backbone
def test_localize_leaves_gradients_weights_and_modes_alone(name: str, backbone: str | None, batch: Batch) -> None:
    method = build(name, backbone).train()
    parts = list(method.modules())
    if len(parts) > 1:
        parts[-1].eval()  # a mixed state, as with frozen norms
    modes = [part.training for part in parts]
    parameters = list(method.parameters())
    for parameter in parameters[::2]:
        parameter.grad = torch.full_like(parameter, 3.0)
    before = copy.deepcopy([(p.grad, p.requires_grad) for p in parameters])
    weights = {key: value.clone() for key, value in method.state_dict().items()}
    method.localize(batch.images_BCHW)
    for parameter, (grad, requires_grad) in zip(parameters, before, strict=True):
        assert parameter.requires_grad == requires_grad
        assert (parameter.grad is None) == (grad is None)
        assert grad is None or torch.equal(parameter.grad, grad)  # type: ignore[arg-type]
    assert all(torch.equal(value, weights[key]) for key, value in method.state_dict().items())  # e.g. batch-norm sums
    assert [part.training for part in parts] == modes


@on_every_backbone
def test_localize_ignores_dropout_of_training_mode(name: str, backbone: str | None, batch: Batch) -> None:
    method = build(name, backbone)
    evaluated = method.eval().localize(batch.images_BCHW, batch.labels_B)
    assert_same(method.train().localize(batch.images_BCHW, batch.labels_B), evaluated)


@on_every_backbone
def test_state_dict_of_a_shared_classifier_is_that_of_the_backbone(name: str, backbone: str | None) -> None:
    """The engine trains it once, for all methods that read it."""
    from wsolbench.backbones import create_backbone

    method = build(name, backbone)
    if type(method).training_for(backbone) == "classifier":
        assert backbone is not None
        shared = create_backbone(backbone, num_classes=K, pretrained=False)
        classifier = method.get_submodule("classifier")
        assert isinstance(classifier, nn.Module)
        assert {k: v.shape for k, v in classifier.state_dict().items()} == {
            k: v.shape for k, v in shared.state_dict().items()
        }


@for_every_method
def test_unknown_option_is_an_error_with_a_suggestion(name: str) -> None:
    options = [field.name for field in dataclasses.fields(METHODS.get(name).Config)]
    with pytest.raises(UsageError, match=f"unknown option of method '{name.replace('+', '[+]')}'"):
        build(name, None, nonsense=1)
    if options:
        with pytest.raises(UsageError, match=f"did you mean '{options[0]}'"):
            build(name, None, **{options[0] + "x": 1})


@for_every_method
def test_is_described(name: str) -> None:
    """The class's first line is what `wsolbench list` prints; the module names the source."""
    entry = entry_of(name)
    assert 20 <= len(entry.summary) <= 120
    assert entry.summary.endswith(".")
    module = ast.get_docstring(ast.parse(entry.path.read_text(encoding="utf-8")))
    assert module is not None
    assert "https://" in module


@for_every_method
def test_classes_are_final(name: str) -> None:
    assert getattr(METHODS.get(name), "__final__", False), "decorate it with typing.final"


ALLOWED = {"method", "types", "registry", "errors", "config", "backbones", "checkpoint", "precision", "whole_batch"}
SOURCES = sorted({file for name in NAMES for file in entry_of(name).path.parent.glob("*.py")})


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_methods_cannot_reach_annotations(path: Path) -> None:
    """Method files import neither data sets nor metrics nor selection, and open no files."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}
    ours = {module.split(".")[1] for module in imported if module.startswith("wsolbench.")}
    assert ours <= ALLOWED
    assert "wsolbench" not in imported
    assert not any(module.startswith("wsolbench_datasets") for module in imported)
    assert "wsolbench.types.Annotation" not in imported
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not calls & {"open", "eval", "exec", "__import__"}


def test_batch_holds_no_annotation() -> None:
    assert [field.name for field in dataclasses.fields(Batch)] == ["ids", "images_BCHW", "labels_B", "aux"]
