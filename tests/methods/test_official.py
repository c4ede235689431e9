"""SAT and TS-CAM compute what their authors' code computes: golden numbers, from random weights in the released layout.

The released checkpoints could not be had, so what is shown is the layout and the arithmetic, not the published weights.

How `tests/golden/{sat,tscam,conformer}_official.npz` were made: the authors' models (wpy1999/SAT commit 702290d,
`Model/SAT.py`; vasgaowei/TS-CAM commit 25aece4, `lib/models/{deit,conformer}.py`) were built with drop_path_rate=0 and
loaded strictly with `authors_layouts.random_weights` (SAT's constant `weight` kept as it is), then run on
`authors_layouts.random_batch`, on one CPU thread with torch 2.15.0 and timm 1.0.31 (its moved modules under their old
names): logits and maps in evaluation mode, the map of the label's class; losses and gradients in training mode, as in
`train.py` (area term: the absolute value of the batch mean less 0.25). "optimizer": the weight decay that
`create_optimizerv2` of SAT (on the model inside DataParallel, as there) and timm's optimizer factory of TS-CAM give each
tensor. Conformer's gradients were taken in float64, in both codes: in float32 rounding alone flips some of its ReLUs.
"conformer/shapes" are the names and shapes of its whole state dict.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from authors_layouts import WIDTHS, Shapes, gradient_summary, random_batch, random_weights, vit_shapes

import wsolbench
from wsolbench.config import TrainConfig
from wsolbench.method import Method

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@cache
def golden(name: str) -> dict[str, Any]:
    with np.load(GOLDEN / f"{name}_official.npz") as content:
        return dict(content)


def method_of(case: str) -> tuple[Method, Shapes, dict[str, Any]]:
    """The method, the authors' names and shapes, and the golden numbers, of e.g. "sat/tiny"."""
    name, size = case.split("/")
    numbers = golden(name)
    prefix = f"{size}/"
    classes = numbers[prefix + "logits"].shape[1]
    if name == "conformer":
        name, backbone, shapes = "tscam", "conformer_small_patch16", conformer_shapes()
    else:
        backbone, shapes = f"deit_{size}_patch16_224", vit_shapes(name, WIDTHS[size], classes)
    method = wsolbench.create_method(name, num_classes=classes, backbone=backbone, drop_path=0.0)
    return method, shapes, {key.removeprefix(prefix): v for key, v in numbers.items() if key.startswith(prefix)}


def conformer_shapes() -> Shapes:
    rows = [str(row).split(" ") for row in golden("conformer")["shapes"]]
    return {name: tuple(int(size) for size in sizes.split(",") if size) for name, sizes in rows}


CASES = ["sat/tiny", "sat/small", "tscam/tiny", "tscam/small", "conformer/small"]


@pytest.mark.parametrize("case", CASES)
def test_outputs_losses_and_gradients_equal_the_authors(case: str, tmp_path: Path) -> None:
    method, shapes, expected = method_of(case)
    released = {f"module.{name}": value for name, value in random_weights(shapes).items()}
    torch.save({"model": released, "epoch": 1}, tmp_path / "x.pth.tar", _use_new_zipfile_serialization=False)
    assert method.load_checkpoint(tmp_path / "x.pth.tar").name.endswith("(authors)")
    batch = random_batch(len(expected["logits"]), method.num_classes)
    method, batch.images_BCHW = method.double(), batch.images_BCHW.double()  # the same numbers on every processor

    got = method.localize(batch.images_BCHW, batch.labels_B)
    assert expected["maps"].std() > 0.02  # else agreement would say little
    torch.testing.assert_close(got.logits_BK, torch.from_numpy(expected["logits"]), rtol=0, atol=5e-5)
    torch.testing.assert_close(got.maps_Bhw, torch.from_numpy(expected["maps"]), rtol=0, atol=5e-5)

    losses = method.train().loss(batch)
    torch.stack(list(losses.values())).sum().backward()
    assert [loss.item() for loss in losses.values()] == pytest.approx(expected["losses"].tolist(), rel=1e-4)
    gradients = {key.removeprefix("grad/"): v for key, v in expected.items() if key.startswith("grad/")}
    assert len(gradients) >= 10
    ours = {_theirs(name, case): parameter for name, parameter in method.named_parameters()}
    for name, want in gradients.items():
        gradient = ours[name].grad
        assert gradient is not None
        have = gradient_summary(gradient)
        assert have[0] == pytest.approx(want[0], rel=1e-4), name
        assert np.linalg.norm(have[1:] - want[1:]) <= 1e-4 * np.linalg.norm(want[1:]), name


@pytest.mark.parametrize("case", ["sat/small", "tscam/small", "conformer/small"])
def test_optimizer_groups_equal_the_authors(case: str) -> None:
    """Every tensor's weight decay and learning rate."""
    method, _, _ = method_of(case)
    numbers = golden(case.split("/")[0])
    decay, lr = float(numbers["optimizer/weight_decay"].max()), float(numbers["optimizer/lr"].max())
    groups = method.param_groups(TrainConfig(lr=lr, weight_decay=decay, head_lr_scale=1.0))
    names = {id(parameter): _theirs(name, case) for name, parameter in method.named_parameters()}
    ours = {names[id(p)]: (group["weight_decay"], group["lr"]) for group in groups for p in group["params"]}
    rows = zip(numbers["optimizer/weight_decay"], numbers["optimizer/lr"], strict=True)
    assert ours == dict(zip(numbers["optimizer/names"].tolist(), rows, strict=True))


def _theirs(name: str, case: str) -> str:
    name = name.removeprefix("vit.")
    return f"trans_cls_{name}" if case.startswith("conformer") and name.startswith("head.") else name


def test_conformer_has_the_authors_tensors() -> None:
    method, shapes, _ = method_of("conformer/small")
    assert len(shapes) == 718
    ours = {_theirs(name, "conformer"): tuple(value.shape) for name, value in method.state_dict().items()}
    assert ours == shapes
