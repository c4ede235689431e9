from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from profile_toys import toy
from torch import nn

from wsolbench.config.schema import Dtype, TrainConfig
from wsolbench.errors import UsageError
from wsolbench.method.base import create_method
from wsolbench.method.numerics import Numerics
from wsolbench.profile.device import unsupported
from wsolbench.profile.timing import Subject
from wsolbench.profile.work import (
    FORWARD,
    LOCALIZE,
    TRAIN,
    boxes_subject,
    check_works,
    count_flops,
    does,
    flops_per_image,
    network_of,
    prepare,
    random_batch,
    subject_of,
)

CPU = torch.device("cpu")


def flops(method: str, backbone: str, work: str) -> float:
    """FLOPs of a 64x64 image, ten classes."""
    made = create_method(method, num_classes=10, backbone=backbone)
    target = network_of(made) if work == FORWARD else made
    found = flops_per_image(lambda batch: subject_of(target, work, batch, TrainConfig()), (64, 64), 10, CPU)
    assert found is not None
    return found


def test_flops_are_those_counted_by_hand() -> None:
    images, tokens = torch.randn(2, 3, 6, 8), torch.randn(2, 4, 10, 16)  # 4 heads, 10 tokens, 16 wide
    conv, linear = nn.Conv2d(3, 5, 3, padding=1), nn.Linear(7, 11)
    assert count_flops(Subject(lambda: conv(images))) == 2 * (2 * 6 * 8) * 5 * (3 * 3 * 3)
    assert count_flops(Subject(lambda: linear(torch.randn(4, 7)))) == 2 * 4 * 7 * 11
    with torch.inference_mode():
        attention = count_flops(Subject(lambda: F.scaled_dot_product_attention(tokens, tokens, tokens)))
    assert attention == 2 * (2 * (2 * 4) * 10 * 10 * 16)  # two products; fused on a CPU, where torch alone counts none


def test_flops_of_a_training_step_count_the_gradient_of_each_weight() -> None:
    subject = subject_of(toy(), TRAIN, random_batch(4, (6, 8), 2, CPU), TrainConfig())
    assert count_flops(subject) == 2 * (2 * 4 * 3 * 2)  # forward and weights; images need no gradient


@pytest.mark.parametrize(
    ("method", "backbone"),
    [
        *((name, "badges_vit.s0") for name in ("sat", "tscam", "cam", "gradcam", "attention")),
        ("cam", "badges_cnn"),
        ("gradcam", "badges_cnn"),
    ],
)
def test_a_map_costs_at_least_the_forward_pass(method: str, backbone: str) -> None:
    forward, localize = flops(method, backbone, FORWARD), flops(method, backbone, LOCALIZE)
    assert 0 < forward <= localize < 2 * forward
    if method != "attention":
        assert 2 * forward < flops(method, backbone, TRAIN) < 4 * forward


def test_flops_are_absent_where_a_call_fails() -> None:
    broken = toy(breaks=True)
    assert flops_per_image(lambda batch: subject_of(broken, LOCALIZE, batch, TrainConfig()), (6, 8), 2, CPU) is None


def test_forward_is_the_methods_classifier_or_a_plain_one_on_its_backbone() -> None:
    gradcam = create_method("gradcam", num_classes=10, backbone="badges_cnn")
    assert network_of(gradcam) is gradcam.get_submodule("classifier")
    plain = network_of(create_method("sat", num_classes=10, backbone="badges_vit.s0"))
    assert plain(torch.zeros(1, 3, 64, 64)).shape == (1, 10)
    assert not does(create_method("center-box", num_classes=10), FORWARD)
    assert not does(create_method("attention", num_classes=10, backbone="badges_vit.s0"), TRAIN)
    conformer = create_method("tscam", num_classes=10, backbone="conformer_small_patch16")
    with pytest.raises(UsageError, match="works with method 'tscam' only"):
        network_of(conformer)


def test_boxes_take_one_image_after_the_other() -> None:
    method = toy()
    batch = random_batch(3, (6, 8), 2, CPU)
    subject = boxes_subject(method, batch.images_BCHW, batch.labels_B, (12, 16))
    found: list[Any] = []
    for _ in range(4):
        subject.prepare()
        found.append(subject.call())
    assert len(method.seen) == 1  # maps are made once, before anything is timed
    assert found[0].q_BHW.shape == (1, 12, 16)
    assert (found[0].q_BHW == found[3].q_BHW).all()
    assert (found[0].q_BHW != found[1].q_BHW).any()


def test_images_are_random_and_fixed() -> None:
    one, two = (random_batch(3, (6, 8), 2, CPU) for _ in range(2))
    assert torch.equal(one.images_BCHW, two.images_BCHW)
    assert one.images_BCHW.std() > 0.5
    assert one.images_BCHW.shape == (3, 3, 6, 8)
    last = random_batch(3, (6, 8), 2, CPU, channels_last=True).images_BCHW
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, one.images_BCHW)


def test_layout_and_number_format_reach_the_work() -> None:
    numerics = Numerics(Dtype.bf16, channels_last=True)
    network = nn.Sequential(nn.Conv2d(3, 4, 3))
    prepare(network, numerics)
    weight = network.get_parameter("0.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    call = subject_of(network, FORWARD, random_batch(1, (6, 8), 2, CPU), TrainConfig(), numerics).call
    assert getattr(call(), "dtype", None) is torch.bfloat16


def test_what_a_device_cannot_do_is_told_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    assert unsupported(Numerics(), CPU) == ""
    assert unsupported(Numerics(Dtype.bf16), CPU) == ""
    assert "tf32 is a number format of CUDA devices" in unsupported(Numerics(Dtype.tf32), CPU)

    def refuse(*given: Any, **more: Any) -> None:
        raise RuntimeError("not implemented for 'Half'\nmore")

    monkeypatch.setattr("wsolbench.profile.device.F.conv2d", refuse)
    assert unsupported(Numerics(Dtype.fp16), CPU) == "fp16 on cpu: not implemented for 'Half'"


def test_unknown_work_is_one_sentence() -> None:
    check_works(["forward", "train"])
    with pytest.raises(UsageError, match="unknown kind of work 'trian', did you mean 'train'"):
        check_works(["trian"])
