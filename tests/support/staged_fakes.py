"""Fakes for tests of choices: which checkpoint or trial is the best is known beforehand, and the same on every processor.

How a processor rounds decides what a short training makes of a network, so a test that needs selectors to disagree, or a trial
to win, must not leave that to one. Here training decides a whole number only: a step that counts itself, or a way that grows
with the learning rate. Maps are the image itself, moved by that number of pixels, and logits are made of one number; nothing
is summed, so answers do not hang on the size of a batch either. Importing this module registers methods and a data set.
"""

# B batch, C channels, H W image, K classes

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from engine_fakes import CLASSES, SIDE, FakeData, FakeSplit
from torch import Tensor, nn

from wsolbench.method import Method, PostHoc, true_or_predicted
from wsolbench.registry import register_dataset, register_method
from wsolbench.types import Annotation, Batch, Prediction

# What is best after a number of steps, with 3 steps an epoch: each has another best checkpoint, and none is the last one.
BEST_STEP = {"last": 12, "test-oracle": 0, "class-accuracy": 3, "val-boxes": 6, "val-pseudo": 9}
PSEUDO_XY = (2, 1)  # how far pseudo-boxes of val lie from the true ones: to the right, down
TEST_XY = (-1, 3)  # and the true ones of test from what is seen
MAPS_XY = [TEST_XY, (7, 7), (0, 0), PSEUDO_XY, (7, 7)]  # how far maps are moved, by epochs learned
RIGHT = [(), (0, 1, 2), (0,), (1,), (0, 1)]  # classes that are recognised


def moved(boxes_N4: Any, by_xy: tuple[int, int]) -> Any:
    """Boxes elsewhere in the image."""
    return (boxes_N4 + np.array(by_xy * 2)).clip(0, SIDE - 1)


class MovedSplit(FakeSplit):
    """Objects of test are annotated beside what is seen of them, so the best maps of val are not those of test."""

    def annotation(self, id: str) -> Annotation:
        whole = super().annotation(id)
        if not id.startswith("test"):
            return whole
        mask_HW = np.roll(np.asarray(whole.mask_HW), TEST_XY[::-1], axis=(0, 1))
        return replace(whole, boxes_N4=moved(whole.boxes_N4, TEST_XY), mask_HW=mask_HW)


class MovedData(FakeData):
    def __init__(self, config: Any, *, root: str | Path | None = None) -> None:
        super().__init__(config, root=root)
        self._splits: dict[str, FakeSplit] = {name: MovedSplit(name, config.per_class) for name in self.splits}


register_dataset("moved-data")(MovedData)


def seen_classes(images_BCHW: Tensor) -> Tensor:
    """The channel that holds the object, which alone exceeds 1."""
    return images_BCHW.amax((2, 3)).argmax(1)


def logits_of(images_BCHW: Tensor, right: tuple[int, ...]) -> Tensor:
    """Certain of the class of what is seen where it is one of `right`, and of another one elsewhere."""
    seen_B = seen_classes(images_BCHW)
    wrong_B = ~torch.isin(seen_B, torch.tensor(right, dtype=torch.int64))
    return 4.0 * F.one_hot((seen_B + wrong_B) % CLASSES, CLASSES)


def map_of(images_BCHW: Tensor, classes_B: Tensor, by_xy: tuple[int, int]) -> Tensor:
    """The class's channel, moved."""
    return images_BCHW[torch.arange(len(images_BCHW)), classes_B].roll(by_xy[::-1], (1, 2))


class Staged(nn.Module):
    """Counts the steps it learns, which is all that decides its answers; its weight never moves."""

    steps: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_classes))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @property
    def stage(self) -> int:
        return int(self.steps) // 3

    def forward(self, images_BCHW: Tensor) -> Tensor:
        if self.training:
            self.steps += 1
        return logits_of(images_BCHW, RIGHT[self.stage]) + 0.0 * self.weight

    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None) -> Prediction:
        logits_BK = self(images_BCHW)
        classes_B = true_or_predicted(logits_BK, labels_B)
        return Prediction(logits_BK, map_of(images_BCHW, classes_B, MAPS_XY[self.stage]))


class Sharp(nn.Module):
    """Learns nothing: two classes of three are recognised, and objects stand out sharply, a little beside their place."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_classes))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return logits_of(images_BCHW, (0, 1)) + 0.0 * self.weight

    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None) -> Prediction:
        logits_BK = self(images_BCHW)
        maps_Bhw = map_of(images_BCHW, true_or_predicted(logits_BK, labels_B), (1, 0))
        return Prediction(logits_BK, torch.where(maps_Bhw < 1, maps_Bhw / 16, maps_Bhw))


class Straying(nn.Module):
    """Learns at the learning rate by which to miss: in nine steps at 0.01 to stray by nearly four pixels."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.way = nn.Parameter(torch.zeros(1))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.way * F.one_hot(seen_classes(images_BCHW), CLASSES)

    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None) -> Prediction:
        logits_BK = self(images_BCHW)
        pixels = min(SIDE // 2, round(40 * self.way.item()))
        return Prediction(logits_BK, map_of(images_BCHW, true_or_predicted(logits_BK, labels_B), (pixels, pixels)))


class _Own(Method):
    """Trained on its own."""

    network: ClassVar[type[nn.Module]]

    @dataclass
    class Config:
        scale: float = 1.0

    def __init__(self, config: Any, **options: Any) -> None:
        super().__init__(config, **options)
        self.net: Any = self.network(self.num_classes)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"cls": self.config.scale * F.cross_entropy(self.net(batch.images_BCHW), batch.labels_B)}

    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Prediction:
        answer: Prediction = self.net.localize(images_BCHW, labels_B)
        return answer


class _Shared(PostHoc):
    """Reads a classifier that it shares with the others of its network."""

    network: ClassVar[type[nn.Module]]

    def __init__(self, config: Any, **options: Any) -> None:
        super().__init__(config, **options)
        self.classifier: Any = self.network(self.num_classes)

    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Prediction:
        if "gradients" in self.needs:
            assert not torch.is_inference_mode_enabled()
        answer: Prediction = self.classifier.localize(images_BCHW, labels_B)
        return answer


GRADIENTS = {"needs": frozenset({"gradients"})}
for _name, _base, _more in (
    ("staged", _Own, {"network": Staged}),
    ("staged-a", _Shared, {"network": Staged}),
    ("staged-b", _Shared, {"network": Staged, **GRADIENTS}),
    ("sharp-b", _Shared, {"network": Sharp, **GRADIENTS}),
    ("straying", _Own, {"network": Straying}),
    ("straying-b", _Shared, {"network": Straying, **GRADIENTS}),
):
    register_method(_name)(type(_name, (_base,), {"__module__": __name__, "__doc__": _base.__doc__, **_more}))
