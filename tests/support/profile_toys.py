"""Methods that cost nothing and misbehave when told to, and a data set that fails when an image is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wsolbench.data.dataset import Dataset, DatasetInfo
from wsolbench.data.split import Split
from wsolbench.method.base import Method, Untrained
from wsolbench.registry import DATASETS, METHODS, register_dataset, register_method
from wsolbench.types import Batch, Prediction


@dataclass
class ToyConfig:
    out_of_memory_at: int = 10_000
    breaks: bool = False
    interrupts: bool = False


class Pooled(nn.Module):
    """One linear layer on the mean colour."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3, num_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        logits_BK: Tensor = self.head(images_BCHW.mean((2, 3)))
        return logits_BK


class Toy(Method):
    """A linear classifier; told to, it runs out of memory at a batch size, breaks, or is interrupted in training."""

    Config = ToyConfig
    default_backbone = "toy-net"

    def __init__(self, config: ToyConfig, **more: Any) -> None:
        super().__init__(config, **more)
        self.classifier = Pooled(self.num_classes)
        self.frozen = nn.Parameter(torch.zeros(7), requires_grad=False)
        self.seen: list[tuple[tuple[int, ...], bool, bool]] = []

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        if self.config.interrupts:
            raise KeyboardInterrupt
        logits_BK = self._logits(batch.images_BCHW)
        return {"cls": nn.functional.cross_entropy(logits_BK, batch.labels_B)}

    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Prediction:
        return Prediction(self._logits(images_BCHW), images_BCHW.mean(1))

    def _logits(self, images_BCHW: Tensor) -> Tensor:
        self.seen.append((tuple(images_BCHW.shape), bool(self.training), torch.is_inference_mode_enabled()))
        if len(images_BCHW) >= self.config.out_of_memory_at:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if self.config.breaks:
            raise ValueError("the toy is broken\nsecond line")
        logits_BK: Tensor = self.classifier(images_BCHW)
        return logits_BK


class Idle(Untrained):
    """Nothing to train."""

    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Prediction:
        return Prediction(None, images_BCHW.mean(1))


class Short(Toy):
    """Runs out of memory above three images."""

    def __init__(self, config: ToyConfig, **more: Any) -> None:
        super().__init__(ToyConfig(out_of_memory_at=4), **more)


class Crowded(Toy):
    """Runs out of memory in the first call, as beside others; alone it fits."""

    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Prediction:
        if not self.seen:
            self.seen.append(((), False, False))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().localize(images_BCHW, labels_B)


class Broken(Toy):
    """Raises in every call."""

    def __init__(self, config: ToyConfig, **more: Any) -> None:
        super().__init__(ToyConfig(breaks=True), **more)


class Stopped(Toy):
    """The user loses patience in its training step."""

    def __init__(self, config: ToyConfig, **more: Any) -> None:
        super().__init__(ToyConfig(interrupts=True), **more)


@dataclass
class NoOptions:
    pass


class Blind(Dataset):
    """Knows what it is, but fails when an image is asked for."""

    Config = NoOptions

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo("Blind", "-", "-", "1", ("a", "b"), (6, 8), {"test": 1})

    def split(self, name: str) -> Split:
        raise AssertionError("a profile must not read images")


def toy(**config: Any) -> Toy:
    """A toy for two classes."""
    return Toy(ToyConfig(**config), num_classes=2, backbone="toy-net")


@contextmanager
def registered() -> Iterator[None]:
    """Offer the toys inside the block only, as profile-toy, profile-idle, ..., and the data set profile-blind."""
    for cls in (Toy, Idle, Short, Crowded, Broken, Stopped):
        register_method(f"profile-{cls.__name__.lower()}")(cls)
    register_dataset("profile-blind")(Blind)
    try:
        yield
    finally:
        for registry in (METHODS, DATASETS):
            for name in [name for name in registry._classes if name.startswith("profile-")]:
                del registry._classes[name]  # others may have been imported meanwhile, and are for good
