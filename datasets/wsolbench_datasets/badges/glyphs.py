"""The symbols badges bear: scikit-learn's handwritten digits, and letters drawn from strokes for pretraining.

Letters come in the digits' own format, 8x8 ink counts of a 32x32 bitmap (0 to 16), so that the two differ in shape only.
They are drawn here and not by a font engine, whose output changes between versions. Letters that resemble a digit
(B, G, I, O, Q, S, Z, ...) are left out.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

SHARES = {"train": 55, "val": 15, "test": 30}  # percent of the digit samples; no sample is in two splits

# Strokes on an 8 x 8 grid, x to the right and y downwards, each written x0 y0 x1 y1.
_STROKES = {
    "A": "1740 4077 2464",
    "C": "7150 5030 3012 1215 1537 3757 5776",
    "E": "7010 1017 1777 1464",
    "F": "7010 1017 1464",
    "H": "1017 7077 1474",
    "K": "1017 7014 1477",
    "L": "1017 1777",
    "M": "1710 1044 4470 7077",
    "N": "1710 1077 7770",
    "P": "1710 1060 6072 7264 6414",
    "R": "1710 1060 6072 7264 6414 4477",
    "T": "1070 4047",
    "U": "1015 1537 3757 5775 7570",
    "V": "1047 4770",
    "X": "1077 7017",
    "Y": "1044 7044 4447",
}
LETTERS = tuple(_STROKES)


def randint(rng: np.random.RandomState, low: int, high: int) -> int:
    """An integer in [low, high], both included; the type is fixed because the platform's default decides the stream."""
    return int(rng.randint(low, high + 1, dtype=np.int64))


@cache
def digit_pools(split: str) -> tuple[npt.NDArray[np.uint8], ...]:
    """The split's digit samples, one uint8 array [n, 8, 8] with values 0 to 16 per class 0 to 9."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    rng = np.random.RandomState(55_15_30)
    pools = []
    for label in range(10):
        members = np.flatnonzero(digits.target == label)
        members = members[rng.permutation(len(members))]
        first, second = len(members) * SHARES["train"] // 100, len(members) * (SHARES["train"] + SHARES["val"]) // 100
        part = {"train": members[:first], "val": members[first:second], "test": members[second:]}[split]
        pools.append(digits.images[part].astype(np.uint8))
    return tuple(pools)


def draw_letter(label: int, rng: np.random.RandomState) -> Ints:
    """One handwriting-like sample of a letter: strokes with jittered ends under a random affine map, [8, 8] ink 0 to 16."""
    segments = [[int(digit) for digit in stroke] for stroke in _STROKES[LETTERS[label]].split()]
    # The grid is 8 units wide and the bitmap 32 pixels; one pixel is 64 units of the integer geometry.
    width, height = (
        randint(rng, 150, 230),
        randint(rng, 210, 256),
    )  # of 256: letters are narrower than tall, as digits are
    shear, turn = randint(rng, -64, 64), randint(rng, -40, 40)
    radius = randint(rng, 105, 170)
    ends: dict[tuple[int, int], tuple[int, int]] = {}
    for x0, y0, x1, y1 in segments:
        for x, y in ((x0, y0), (x1, y1)):
            if (x, y) not in ends:  # strokes that meet stay joined
                px = (2 * x - 8) * width // 2 + randint(rng, -110, 110)
                py = (2 * y - 7) * height // 2 + randint(rng, -90, 90)
                ends[x, y] = (px - (py * shear + py * turn) // 256, py + px * turn // 256)
    grid = (np.arange(32, dtype=np.int64) * 2 + 1 - 32) * 32
    px_11, py_11 = grid[None, :], grid[:, None]
    ink = np.zeros((32, 32), dtype=bool)
    for x0, y0, x1, y1 in segments:
        (ax, ay), (bx, by) = ends[x0, y0], ends[x1, y1]
        ink |= _near_segment(px_11 - ax, py_11 - ay, bx - ax, by - ay, radius)
    counts: Ints = ink.reshape(8, 4, 8, 4).sum((1, 3), dtype=np.int64)
    return counts


def _near_segment(x: Ints, y: Ints, dx: int, dy: int, radius: int) -> npt.NDArray[np.bool_]:
    """Which points lie within `radius` of the segment from the origin to (dx, dy): squared distances, all integer."""
    length2 = dx * dx + dy * dy
    along = x * dx + y * dy
    beside = (
        ((x * x + y * y) * length2 - along * along <= radius * radius * length2) & (along >= 0) & (along <= length2)
    )
    start = x * x + y * y <= radius * radius
    end = (x - dx) ** 2 + (y - dy) ** 2 <= radius * radius
    near: npt.NDArray[np.bool_] = beside | start | end
    return near
