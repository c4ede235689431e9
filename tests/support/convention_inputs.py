"""Seeded maps and ground truth on which the released evaluators were run; equal bits on every machine.

Integers from `RandomState` (whose streams never change) and divisions by powers of two only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsolbench.types import Annotation

CLASSES = 200
IMAGES = 400
SIZES_HW = ((120, 160), (224, 224), (64, 64), (375, 500), (333, 251), (97, 61), (112, 300), (256, 256), (50, 41))


@dataclass(frozen=True)
class Case:
    """One image: its raw float32 map, class, rank of the class among the scores, and boxes."""

    raw_hw: npt.NDArray[np.float32]
    label: int
    rank: int
    annotation: Annotation


def cases() -> list[Case]:
    """IMAGES images in order of their classes, each class at least once."""
    random = np.random.RandomState(16)
    labels = np.sort(np.concatenate([np.arange(CLASSES), random.randint(0, CLASSES, IMAGES - CLASSES)]))
    return [_case(random, index, int(label)) for index, label in enumerate(labels)]


def _case(random: np.random.RandomState, index: int, label: int) -> Case:
    cells = (14, 28)[random.randint(2)]
    centre = random.randint(0, cells, 2)
    radius = random.randint(2, cells // 2)
    y, x = np.mgrid[:cells, :cells]
    blob = np.maximum(radius - np.maximum(abs(y - centre[0]), abs(x - centre[1])), 0) * 64 // radius
    noise = random.randint(0, 64, (cells, cells))
    rough = random.randint(0, 4, (7, 7)).repeat(cells // 7, 0).repeat(cells // 7, 1)
    kind = index % 10
    whole = {
        0: _smooth(noise + 4 * blob),  # a bump on smooth ground
        1: _smooth(noise + 8 * blob) - 300,
        2: 12 * _smooth(noise) + 3 * noise,
        3: noise,
        4: rough,  # plateaus, many components of one size
        5: (rough == 3) | (noise > 60),  # two values, many ties
        6: 0 * blob + 7,  # constant
        7: blob + (x < 2) * 40 + noise // 8,  # touches a border
        8: (y + x) % 2 * 3 + blob // 8,  # diagonal neighbours
        9: blob * 8 + noise // 2,
    }[kind]
    raw = whole.astype(np.float32) / np.float32(64)
    if index % 50 == 4:
        raw = raw / np.float32(2**20)  # almost constant: an epsilon in the denominator decides
    if index % 100 == 8:
        raw[3, 4] = np.nan
    height, width = SIZES_HW[random.randint(len(SIZES_HW))]
    boxes = []
    for number in range(1 + random.randint(3)):
        reach = radius * (4 + random.randint(5)) // 8 + 1
        low = np.maximum(centre - reach + random.randint(-1, 2, 2), 0)
        high = np.minimum(centre + reach + random.randint(-1, 2, 2), cells)
        box = [low[1] * width // cells, low[0] * height // cells, high[1] * width // cells, high[0] * height // cells]
        if number or index % 20 == 3:  # anywhere, down to slivers outside the centre crop
            x0, y0 = random.randint(width), random.randint(height)
            box = [x0, y0, random.randint(x0, width), random.randint(y0, height)]
        x0, y0 = min(box[0], width - 2), min(box[1], height - 2)
        boxes.append([x0, y0, min(max(box[2], x0 + 1), width - 1), min(max(box[3], y0 + 1), height - 1)])
    annotation = Annotation(f"{index:04d}", (height, width), np.array(boxes, np.int64))
    return Case(raw, label, int(random.choice([0, 0, 0, 1, 3, 4, 5, 9])), annotation)


def _smooth(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Twice a 3x3 box filter, in integers."""
    for _ in range(2):
        padded = np.pad(values, 1, mode="edge")
        height, width = values.shape
        values = sum(padded[i : i + height, j : j + width] for i in range(3) for j in range(3)) // 4
    return values
