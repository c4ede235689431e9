"""A tiny data set and tiny methods for tests of the engine; importing this module registers them."""

# B batch, C channels, H W image, h w map, K classes

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsolbench.config import EvaluateConfig, ProtocolConfig, RunConfig, TrainConfig
from wsolbench.data import Dataset, DatasetInfo, Split
from wsolbench.method import Method, PostHoc, Untrained, true_or_predicted
from wsolbench.registry import register_dataset, register_method
from wsolbench.types import Annotation, Batch, Prediction, Sample

SIDE, CLASSES = 16, 3


class FakeSplit(Split):
    """Images of noise with a bright square, whose channel is the class."""

    def __init__(self, name: str, per_class: int) -> None:
        self.ids = [f"{name}/{index:03d}" for index in range(per_class * CLASSES)]
        self.labels = np.arange(len(self.ids), dtype=np.int64) % CLASSES
        self.asked: list[str] = []

    def _box(self, index: int) -> tuple[int, int, int, int]:
        random = np.random.RandomState(index)
        x0, y0 = random.randint(1, 7, 2).tolist()
        return x0, y0, x0 + int(random.randint(4, 9)), y0 + int(random.randint(4, 9))

    def sample(self, index: int, augment: torch.Generator | None) -> Sample:
        x0, y0, x1, y1 = self._box(index)
        image_CHW = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(index))
        image_CHW[self.labels[index], y0:y1, x0:x1] += 1
        if augment is not None and torch.rand((), generator=augment) < 0.5:
            image_CHW = image_CHW.flip(-1)
        return Sample(self.ids[index], image_CHW, int(self.labels[index]))

    def annotation(self, id: str) -> Annotation:
        self.asked.append(id)
        x0, y0, x1, y1 = self._box(self.ids.index(id))
        mask_HW = np.zeros((SIDE, SIDE), np.uint8)
        mask_HW[y0:y1, x0:x1] = 1
        return Annotation(id, (SIDE, SIDE), np.array([[x0, y0, x1, y1]], np.int64), mask_HW)


class FakeData(Dataset):
    @dataclass
    class Config:
        per_class: int = 4

    def __init__(self, config: Any, *, root: str | Path | None = None) -> None:
        super().__init__(config, root=root)
        self._splits = {name: FakeSplit(name, config.per_class) for name in self.splits}

    @property
    def info(self) -> DatasetInfo:
        counts = {name: len(split) for name, split in self._splits.items()}
        return DatasetInfo("Fake", "-", "-", "r1", ("a", "b", "c"), (SIDE, SIDE), counts, has_masks=True)

    def split(self, name: str) -> FakeSplit:
        return self._splits[name]


register_dataset("fake-data")(FakeData)


def kill_at(name: str, count: int) -> None:
    """End this process as `kill -9` does, if the environment says so for this count."""
    if os.environ.get(name) == str(count):
        os.kill(os.getpid(), signal.SIGKILL)


class Net(nn.Module):
    """A classifier with batch norm (a buffer that must be resumed) and dropout (randomness that must be).

    No bias before the norm: its gradient would be 0 but for rounding, which AdamW blows up to steps of the learning rate. They
    show in evaluation, whose running mean lags behind, so that another processor would come to other maps.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, num_classes)

    def features(self, images_BCHW: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(images_BCHW)))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        features_BChw = F.dropout(self.features(images_BCHW), 0.2, self.training)
        logits_BK: Tensor = self.head(features_BChw.mean((2, 3)))
        return logits_BK


def class_map(net: Net, images_BCHW: Tensor, labels_B: Tensor | None) -> Prediction:
    features_BChw = net.features(images_BCHW)
    logits_BK = net.head(features_BChw.mean((2, 3)))
    weights_BC = net.head.weight[true_or_predicted(logits_BK, labels_B)]
    return Prediction(logits_BK, torch.einsum("bchw,bc->bhw", features_BChw, weights_BC))


class Tiny(Method):
    """Trained on its own. Dies where the environment says so."""

    @dataclass
    class Config:
        scale: float = 1.0

    def __init__(self, config: Any, **options: Any) -> None:
        super().__init__(config, **options)
        self.net = Net(self.num_classes)
        self.losses = self.batches = 0

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        kill_at("KILL_AT_LOSS", self.losses)
        self.losses += 1
        return {"cls": self.config.scale * F.cross_entropy(self.net(batch.images_BCHW), batch.labels_B)}

    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Prediction:
        kill_at("KILL_AT_BATCH", self.batches)
        self.batches += 1
        prediction = class_map(self.net, images_BCHW, labels_B)
        return Prediction(prediction.logits_BK, prediction.maps_Bhw + 0.01 * torch.rand(prediction.maps_Bhw.shape))


class Raises(Untrained):
    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Prediction:
        raise ZeroDivisionError("the map\nis empty")


class NaN(Tiny):
    """Diverges at its fifth step."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        losses = super().loss(batch)
        return {"cls": losses["cls"], "area": losses["cls"] * (float("nan") if self.losses == 5 else 0.0)}


class Interrupted(Tiny):
    """Ctrl-C during its n-th step."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        if os.environ.get("INTERRUPT_AT_LOSS") == str(self.losses):
            os.kill(os.getpid(), signal.SIGINT)
        return super().loss(batch)

    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Prediction:
        if os.environ.get("INTERRUPT_AT_BATCH") == str(self.batches):
            os.kill(os.getpid(), signal.SIGINT)
        return super().localize(images_BCHW, labels_B)


class Preempted(Tiny):
    """Is sent away by SLURM during its fifth step, once: what PREEMPTED names, and a rank, remembers. All processes are told."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        once = Path(os.environ["PREEMPTED"] + os.environ.get("RANK", ""))
        if self.losses == 4 and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGUSR2)
        return super().loss(batch)


class SharedA(PostHoc):
    def __init__(self, config: Any, **options: Any) -> None:
        super().__init__(config, **options)
        self.classifier = Net(self.num_classes)

    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Prediction:
        assert isinstance(self.classifier, Net)
        return class_map(self.classifier, images_BCHW, labels_B)


class SharedB(PostHoc):
    """The same classifier, read with gradients."""

    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})

    def __init__(self, config: Any, **options: Any) -> None:
        super().__init__(config, **options)
        self.classifier = Net(self.num_classes)

    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Prediction:
        assert isinstance(self.classifier, Net)
        assert not torch.is_inference_mode_enabled()
        prediction = class_map(self.classifier, images_BCHW, labels_B)
        return Prediction(prediction.logits_BK, prediction.maps_Bhw.relu())


class Centre(Untrained):
    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Prediction:
        maps_Bhw = torch.zeros(len(images_BCHW), SIDE, SIDE)
        maps_Bhw[:, 4:12, 4:12] = 1
        return Prediction(None, maps_Bhw)


for _name, _class in {
    "tiny": Tiny,
    "raises": Raises,
    "nan": NaN,
    "interrupted": Interrupted,
    "preempted": Preempted,
    "shared-a": SharedA,
    "shared-b": SharedB,
    "centre": Centre,
}.items():
    register_method(_name)(_class)


def fake_config(out: Path, method: str = "tiny", seed: int = 0, **changes: Any) -> RunConfig:
    """A run that takes a tenth of a second: 3 epochs of 3 steps. `changes` go to the part that has the key."""
    parts = {
        "method": {"name": method},
        "dataset": {"name": "fake-data"},
        "protocol": ProtocolConfig(),
        "train": TrainConfig(epochs=3, batch_size=4, lr=1e-2),
        "evaluate": EvaluateConfig(batch_size=5, save_every=30.0),
    }
    for key, value in changes.items():
        owners = [part for part in parts.values() if not isinstance(part, dict) and hasattr(part, key)]
        assert len(owners) <= 1, f"'{key}' is ambiguous"
        if owners:
            setattr(owners[0], key, value)
        else:
            parts[key] = value
    return RunConfig(seed=seed, device=parts.pop("device", "cpu"), out=str(out), **parts)  # type: ignore[arg-type]
