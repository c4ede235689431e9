"""CAM on the reference networks computes what wsolevaluation computes, in the layout of its checkpoints.

tests/golden/wsolevaluation_cnns.npz holds what clovaai/wsolevaluation itself (commit 96f4b88, torch 2.15.0 on one CPU
thread, numpy 2.4.6) made of the weights and images of tests/support/wsol_cnns.py, loaded strictly into
`wsol.resnet50 | vgg16 | inception_v3(architecture_type="cam", large_feature_map=False | True, pretrained=False)`:

- `NETWORK/logits`, `NETWORK/maps`: the model in evaluation mode on two 224x224 images, and with `return_cam=True` for
  their labels;
- `NETWORK/loss`, `NETWORK/gradient/PARAMETER`: cross-entropy on two 96x96 images in training mode, with
  `torch.nn.functional.dropout` replaced by the identity (its draws depend on the build of torch), and what
  `support.wsol_cnns.sample` keeps of each gradient; model and images in float64 (torch 2.14.1): in float32 a ReLU whose
  input rounds to the other side of zero moves gradients by up to 2 %, differently on every build of torch;
- `NETWORK/slow`, `NETWORK/fast`: parameters by learning rate, from `Trainer._set_optimizer` of main.py with lr 0.01,
  lr_classifier_ratio 10 and weight decay 5e-4, which is that of every group;
- `rates/...`: learning rate of each epoch, from `Trainer.adjust_learning_rate`, starting at 1.

Released checkpoints could not be had: these are their keys and shapes, with random weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from wsol_cnns import CLASSES, LABELS, MAP_SIZE, NETWORKS, TRAIN_SIZE, images, sample, watched, weights

import wsolbench
from wsolbench.config import Optimizer, Schedule, TrainConfig
from wsolbench.errors import WsolbenchError
from wsolbench.method import Method
from wsolbench.optimizers import build_optimizer, lr_factor
from wsolbench.protocol import TrainingPlan
from wsolbench.types import Batch

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "wsolevaluation_cnns.npz")
every_network = pytest.mark.parametrize("network", NETWORKS)


def build(network: str) -> Method:
    return wsolbench.create_method("cam", num_classes=CLASSES, backbone=network)


def authors_state(network: str) -> dict[str, torch.Tensor]:
    classifier = build(network).get_submodule("classifier")
    return weights({key: value.shape for key, value in classifier.state_dict().items()})


def loaded(network: str, folder: Path) -> Method:
    """As from the authors: what `torch.save` writes in main.py, from inside DataParallel."""
    state = {f"module.{key}": value for key, value in authors_state(network).items()}
    path = folder / "last_checkpoint.pth.tar"
    torch.save({"architecture": network, "epoch": 50, "state_dict": state, "optimizer": {"state": {}}}, path)
    method = build(network)
    assert method.load_checkpoint(path).name == "wsolevaluation CAM (authors)"
    return method


@every_network
def test_logits_and_maps_are_those_of_the_reference(network: str, tmp_path: Path) -> None:
    """In float64, which every processor rounds to the same float32: the reference's own rounding is what is left."""
    prediction = loaded(network, tmp_path).double().localize(images(MAP_SIZE).double(), torch.tensor(LABELS))
    assert prediction.logits_BK is not None
    np.testing.assert_allclose(prediction.logits_BK.numpy(), GOLDEN[f"{network}/logits"], rtol=0, atol=5e-5)
    maps = GOLDEN[f"{network}/maps"]  # ResNet's and VGG's are divided by the number of channels
    channels = {"wsol_resnet50": 2048, "wsol_vgg16": 1024}.get(network.removesuffix("_28"), 1)
    side = 28 if network.endswith("_28") else 14
    assert maps.shape == (2, side, side)
    assert np.ptp(maps * channels) > 0.1  # else 5e-5 would be no test
    np.testing.assert_allclose(prediction.maps_Bhw.numpy(), maps * channels, rtol=0, atol=5e-5)


@every_network
def test_loss_and_gradients_are_those_of_the_reference(network: str) -> None:
    method = build(network).train()
    method.get_submodule("classifier").load_state_dict(authors_state(network))
    method.double()
    for part in method.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    loss = method.loss(Batch(["a", "b"], images(TRAIN_SIZE).double(), torch.tensor(LABELS)))["cls"]
    loss.backward()
    assert loss.item() == pytest.approx(float(GOLDEN[f"{network}/loss"]), rel=1e-12)
    parameters = dict(method.get_submodule("classifier").named_parameters())
    names = watched(list(parameters))
    assert len(names) >= 10
    for name in names:
        gradient = parameters[name].grad
        assert gradient is not None
        expected = GOLDEN[f"{network}/gradient/{name}"]
        largest = expected[-1]
        assert largest > 0
        np.testing.assert_allclose(sample(gradient), expected, rtol=0, atol=1e-9 * largest, err_msg=name)


@every_network
def test_every_tensor_learns_and_decays_as_in_the_reference(network: str) -> None:
    config = TrainConfig(lr=0.01, head_lr_scale=10, weight_decay=5e-4)
    method = build(network)
    names = {id(parameter): name for name, parameter in method.get_submodule("classifier").named_parameters()}
    found = {
        names[id(parameter)]: (pytest.approx(group["lr"]), group["weight_decay"])
        for group in method.param_groups(config)
        for parameter in group["params"]
    }
    expected = {
        str(name): (lr, 5e-4) for kind, lr in (("slow", 0.01), ("fast", 0.1)) for name in GOLDEN[f"{network}/{kind}"]
    }
    assert found == expected


def test_methods_that_share_the_classifier_train_it_alike() -> None:
    config = TrainConfig(lr=0.01, head_lr_scale=10)
    groups = [
        [
            (group["lr"], group["weight_decay"], [tuple(parameter.shape) for parameter in group["params"]])
            for group in wsolbench.create_method(name, num_classes=3, backbone="wsol_vgg16").param_groups(config)
        ]
        for name in ("cam", "gradcam")
    ]
    assert groups[0] == groups[1]


@pytest.mark.parametrize(
    ("name", "milestones"), [("50 epochs, decay every 15", [14, 29, 44]), ("10 epochs, decay every 3", [2, 5, 8])]
)
def test_milestones_that_give_the_references_learning_rates(name: str, milestones: list[int]) -> None:
    """It decays at the start of epochs that the frequency divides, counted from 1: one epoch early."""
    rates = GOLDEN[f"rates/{name}"]
    train = TrainConfig(schedule=Schedule.step, milestones=milestones, epochs=len(rates))
    steps = 4  # per epoch
    plan = TrainingPlan(steps=steps * len(rates), steps_per_pass=steps, steps_per_epoch=steps)
    found = [lr_factor(step, plan, train) for step in range(plan.steps)]
    np.testing.assert_allclose(found, np.repeat(rates, steps), rtol=1e-9)


def test_optimizer_is_sgd_with_nesterov_momentum() -> None:
    train = TrainConfig(optimizer=Optimizer.sgd, lr=0.01, head_lr_scale=10, weight_decay=5e-4)
    groups: list[dict[str, Any]] = build_optimizer(build("wsol_vgg16"), train).param_groups
    assert [(g["lr"], g["momentum"], g["nesterov"], g["weight_decay"]) for g in groups] == [
        (0.01, 0.9, True, 5e-4),
        (0.1, 0.9, True, 5e-4),
    ]


@pytest.mark.parametrize("network", ["wsol_resnet50", "wsol_vgg16", "wsol_inception_v3"])
def test_gradcam_is_the_rectified_cam(network: str) -> None:
    """Without the constant that a convolutional classifier's bias adds."""
    state = authors_state(network)
    labels_B = torch.tensor(LABELS)
    maps = []
    for name in ("cam", "gradcam"):
        method: Any = wsolbench.create_method(name, num_classes=CLASSES, backbone=network)
        method.classifier.load_state_dict(state)
        maps.append(method.localize(images(TRAIN_SIZE), labels_B).maps_Bhw)
    signed_Bhw = maps[0] - (state["SPG_A4.bias"][labels_B, None, None] if "SPG_A4.bias" in state else 0)
    torch.testing.assert_close(maps[1] * signed_Bhw[0].numel(), signed_Bhw.relu(), rtol=1e-4, atol=1e-5)


def test_vgg_checkpoint_of_the_other_resolution_is_refused(tmp_path: Path) -> None:
    """Its layers have other numbers; those of the other two networks have the same, and fit both."""
    torch.save({"state_dict": authors_state("wsol_vgg16_28")}, tmp_path / "last.pth.tar")
    with pytest.raises(WsolbenchError, match=r"features\.28\.bias"):
        build("wsol_vgg16").load_checkpoint(tmp_path / "last.pth.tar")
