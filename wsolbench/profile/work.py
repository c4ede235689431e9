"""The four kinds of work a method is measured in, as calls: forward, localize, boxes, train; and their FLOPs.

forward: images to logits, no map. A method that reads a classifier is measured by that classifier; one with a network of
its own (SAT, TS-CAM, class attention) by a plain timm classifier on the same backbone, which its own pass is to be held
against. localize: forward and map. boxes: one raw map to a normalised map and to the boxes and IoUs of all thresholds, on
the CPU. train: forward, backward and a step of AdamW.
"""
# B batch, C channels, H W image, h w map

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from wsolbench.backbones import create_backbone
from wsolbench.boxes.maps import normalize_maps
from wsolbench.boxes.scan import scan_maps
from wsolbench.config.schema import TrainConfig
from wsolbench.errors import WsolbenchError, unknown
from wsolbench.method.base import Method
from wsolbench.method.numerics import Numerics
from wsolbench.profile.timing import Subject
from wsolbench.training.stepping import Stepper
from wsolbench.types import Batch

FORWARD, LOCALIZE, BOXES, TRAIN = "forward", "localize", "boxes", "train"
WORKS = (FORWARD, LOCALIZE, BOXES, TRAIN)
PLAIN = Numerics()
BOXED_IMAGES = 16  # maps that are turned into boxes: how long it takes depends on what a map looks like
COUNTED_IMAGES = 2  # FLOPs are counted on; batch norm cannot train on one


def check_works(works: Sequence[str]) -> None:
    """Raise `UsageError` unless all are kinds of work."""
    for work in works:
        if work not in WORKS:
            raise unknown("kind of work", work, WORKS)


def does(method: Method, work: str) -> bool:
    """Whether the method has this kind of work to do: no forward without a network, no training where nothing learns."""
    if work == FORWARD:
        return method.backbone is not None
    return work != TRAIN or type(method).training_for(method.backbone) != "none"


def random_batch(
    batch_size: int,
    image_size_HW: tuple[int, int],
    num_classes: int,
    device: torch.device,
    channels_last: bool = False,
) -> Batch:
    """Fixed random images [B, 3, H, W] and labels [B]; not zeros, with which some kernels take short cuts."""
    generator = torch.Generator().manual_seed(0)
    images_BCHW = torch.randn(batch_size, 3, *image_size_HW, generator=generator)
    labels_B = torch.randint(num_classes, (batch_size,), generator=generator)
    if channels_last:
        images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
    return Batch([str(index) for index in range(batch_size)], images_BCHW, labels_B).to(device)


def reads_classifier(method: Method) -> bool:
    """Whether the method's own classifier is what FORWARD measures."""
    return isinstance(getattr(method, "classifier", None), nn.Module)


def network_of(method: Method) -> nn.Module:
    """The network that FORWARD measures: the method's classifier, or a plain one on its backbone.

    Raises:
        WsolbenchError: the backbone is no network by itself.
    """
    if reads_classifier(method):
        own: nn.Module = method.get_submodule("classifier")
        return own
    assert method.backbone is not None
    where = next(iter(method.parameters()), torch.empty(0)).device
    return create_backbone(method.backbone, num_classes=method.num_classes, pretrained=False).to(where)


def sizes_of(network: nn.Module) -> tuple[int, int]:
    """Parameters of a network, and those that are trained."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in network.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, learns in sizes if learns)


def prepare(target: nn.Module, numerics: Numerics) -> None:
    """Lay a method or a network out and compile it, in place."""
    if isinstance(target, Method):
        numerics.prepare(target)
        return
    if numerics.channels_last:
        target.to(memory_format=torch.channels_last)
    if numerics.compile:
        target.compile()


def subject_of(target: nn.Module, work: str, batch: Batch, train: TrainConfig, numerics: Numerics = PLAIN) -> Subject:
    """The call for FORWARD of a network, or for LOCALIZE (labels given) or a TRAIN step (AdamW) of a method.

    `prepare` has been called before with the same `numerics`. FORWARD and LOCALIZE keep no graph, unless a map is made of gradients.
    """
    device = batch.images_BCHW.device
    if work == FORWARD:

        def forward() -> Tensor:
            with torch.inference_mode(), numerics.running(device):
                logits_BK: Tensor = target(batch.images_BCHW)
            return logits_BK

        return Subject(forward, lambda: target.train(False))
    assert isinstance(target, Method)
    method = target
    if work == LOCALIZE:

        def localize() -> Tensor:
            # as an evaluation does
            grad = nullcontext() if "gradients" in type(method).needs else torch.inference_mode()
            with grad, numerics.running(device):
                return method.localize(batch.images_BCHW, batch.labels_B).maps_Bhw

        return Subject(localize, lambda: method.train(False))

    stepper: list[Stepper] = []

    def step() -> None:
        if not stepper:  # made in the first, untimed call: an error in it belongs to this subject
            optimizer = torch.optim.AdamW(method.param_groups(train), lr=train.lr)
            stepper.append(Stepper(method, optimizer, train, numerics, device))
        stepper[0].gradients(batch)
        stepper[0].update()

    return Subject(step, lambda: method.train(True))


def boxes_subject(method: Method, images_BCHW: Tensor, labels_B: Tensor, size_HW: tuple[int, int]) -> Subject:
    """One raw map of the method to boxes at all thresholds, on one thread; another image's map in each call."""
    height, width = size_HW
    truth = [np.array([[width // 4, height // 4, 3 * width // 4, 3 * height // 4]])]
    maps: list[Tensor] = []
    turn = itertools.count()

    def prepare() -> None:
        if not maps:
            with torch.inference_mode():
                maps.extend(method.train(False).localize(images_BCHW, labels_B).maps_Bhw.cpu().unbind())

    def boxes() -> object:
        map_hw = maps[next(turn) % len(maps)]
        return scan_maps(normalize_maps(map_hw[None], size_HW), truth, "both")

    return Subject(boxes, prepare)


def count_flops(subject: Subject) -> int:
    """Floating-point operations of one call: matrix products, convolutions and attention, a multiply-add as two.

    Attention is counted as its matrix products (torch's counter does not know the CPU's fused kernel); all else, such as
    normalisation, activations, softmax, the optimizer and autocast's casts, is not counted at all.
    """
    subject.prepare()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        subject.call()
    return int(counter.get_total_flops())


def flops_per_image(
    make: Callable[[Batch], Subject], size_HW: tuple[int, int], classes: int, device: torch.device
) -> float | None:
    """FLOPs per image of the call made for a batch; None where it fails, of which timing has told already."""
    try:
        return count_flops(make(random_batch(COUNTED_IMAGES, size_HW, classes, device))) / COUNTED_IMAGES
    except (WsolbenchError, RuntimeError, ValueError, MemoryError, TypeError, NotImplementedError):
        return None
