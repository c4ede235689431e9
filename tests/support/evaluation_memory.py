"""Whether the memory of an evaluation grows with its length: resident memory while very many images pass through.

    python tests/support/evaluation_memory.py [--images 50000] [--batch 64] [--warm-up 10000]

A network of one convolution on pictures of 64 x 64 in memory, so that the 50,000 take few minutes; the rest is as in any
evaluation: maps scored at every threshold, outcomes kept on disk until they are asked for. Resident memory is read every
500 images; the slope is that of a straight line through the readings after the warm-up (least squares).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluation_cases import MemorySplit
from torch import Tensor, nn

from wsolbench.config.schema import EvaluateConfig
from wsolbench.data.annotations import AnnotationReader
from wsolbench.evaluation.evaluate import evaluate
from wsolbench.evaluation.frame import Frame
from wsolbench.evaluation.scoring import Scoring
from wsolbench.method.base import NoConfig, Untrained
from wsolbench.system.progress import Advance, Silent
from wsolbench.types import Prediction

SIDE, CLASSES, EVERY = 64, 10, 500
MIB = 2**20


class OneConvolution(Untrained):
    """A map that differs from image to image."""

    def __init__(self, config: Any, **build: Any) -> None:
        super().__init__(config, **build)
        self.conv = nn.Conv2d(3, CLASSES, 8, stride=8)

    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Prediction:
        maps_BKhw = self.conv(images_BCHW)
        return Prediction(maps_BKhw.mean((2, 3)), maps_BKhw[:, 0])


class Watching(Silent):
    """Reads resident memory as images pass."""

    def __init__(self) -> None:
        super().__init__()
        self.images = 0
        self.readings: list[tuple[int, float]] = []  # images done, MiB

    @contextmanager
    def bar(self, title: str, total: int, *, done: int = 0, unit: str = "images") -> Iterator[Advance]:
        def advance(n: int, note: str | None = None) -> None:
            before, self.images = self.images, self.images + n
            if unit == "images" and before // EVERY != self.images // EVERY:
                self.readings.append((self.images, resident()))

        yield advance


def resident() -> float:
    """MiB of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def pass_through(images: int, batch_size: int, folder: Path) -> Watching:
    """Evaluate that many images."""
    torch.manual_seed(0)
    watching = Watching()
    evaluate(
        OneConvolution(NoConfig(), num_classes=CLASSES, backbone=None),
        "test",
        MemorySplit(images, SIDE, CLASSES),
        Scoring(Frame((SIDE, SIDE), has_masks=False)),
        EvaluateConfig(batch_size=batch_size),
        seed=0,
        device=torch.device("cpu"),
        reader=AnnotationReader(),
        folder=folder,
        reporter=watching,
    )
    return watching


def slope(readings: list[tuple[int, float]], warm_up: int) -> float:
    """MiB per 10,000 images."""
    images, mib = np.array([reading for reading in readings if reading[0] >= warm_up]).T
    return float(np.polyfit(images / 10_000, mib, 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--warm-up", type=int, default=10_000)
    chosen = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        readings = pass_through(chosen.images, chosen.batch, Path(folder)).readings
    seconds = time.perf_counter() - started
    late = [mib for images, mib in readings if images >= chosen.warm_up]
    print(
        f"{chosen.images} images in {seconds:.0f} s: after the first {chosen.warm_up} resident memory lies between "
        f"{min(late):.1f} and {max(late):.1f} MiB, slope {slope(readings, chosen.warm_up):+.2f} MiB per 10,000 images"
    )


if __name__ == "__main__":
    main()
