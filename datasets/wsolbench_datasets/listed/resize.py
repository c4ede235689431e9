"""PIL's bilinear resize of RGB pixels, bit for bit, for any part of the result, some three times as fast.

Source: the filter of Pillow (src/libImaging/Resample.c: `precompute_coeffs`, `normalize_coeffs_8bpc`): a triangle as wide as
the scale, so that every source pixel counts when an image shrinks; weights of 22 bits; two passes, the first one rounded to
8 bits. Which one is first depends on the release of Pillow (`ORDERS`), and moves values by 1. What differs is the order of memory: both passes add whole lines of pixels, which the compiler turns into vector
instructions. torchvision's own resize of uint8 has weights of 16 bits and differs by 1 in some 0.2 % of the values.
"""
# H W source, h w result, K weights of a line

from __future__ import annotations

import functools
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from wsolbench.system.compiled import compiled

Pixels = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int32]

BITS = 22


@functools.lru_cache(maxsize=4096)
def taps(source: int, result: int) -> tuple[Ints, Ints]:
    """Where the weights of each result line begin among the source lines, int32 [result], and the weights, [result, K].

    >>> first, weights = taps(4, 2)
    >>> first.tolist(), (weights / 2**BITS).round(3).tolist()
    ([0, 1], [[0.429, 0.429, 0.143], [0.143, 0.429, 0.429]])
    """
    scale = source / result
    support = max(scale, 1.0)
    centre = (np.arange(result) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), source)
    width = int((last - first).max())
    weights, total = np.zeros((result, width)), np.zeros(result)
    for tap in range(width):  # summed one after the other, as Pillow does: the order decides the last bit
        at = np.abs((tap + first - centre + 0.5) * (1.0 / support))
        weights[:, tap] = np.where((first + tap < last) & (at < 1.0), 1.0 - at, 0.0)
        total += weights[:, tap]
    whole = (0.5 + weights / total[:, None] * (1 << BITS)).astype(np.int32)
    over = np.maximum(first + width - source, 0)  # lines at the end have fewer weights: all get as many
    for line in np.flatnonzero(over):
        whole[line] = np.roll(whole[line], over[line])
    return (first - over).astype(np.int32), whole


def resize(
    pixels_HW3: Pixels,
    size_HW: tuple[int, int],
    part: tuple[slice, slice] = (slice(None), slice(None)),
    *,
    order: Order,
) -> Pixels:
    """Return rows and columns `part` of the image resized to `size_HW`: uint8 [h, w, 3].

    Equal to `numpy.asarray(image.resize(size, Image.Resampling.BILINEAR))[part]`; a negative step mirrors.

    Args:
        pixels_HW3: uint8, contiguous.
        size_HW: of the whole result.
        part: which of its rows and columns are wanted; others are not computed.
        order: see `pillows_order`.
    """
    height, width, _ = pixels_HW3.shape
    rows, columns = (
        (first[which], np.ascontiguousarray(weights[which]))
        for (first, weights), which in zip((taps(height, size_HW[0]), taps(width, size_HW[1])), part, strict=True)
    )
    if order(height, width, *size_HW):
        return _transposed(_lines(_transposed(_lines(pixels_HW3, *rows)), *columns))
    top, bottom = int(rows[0].min()), int(rows[0].max()) + rows[1].shape[1]  # other rows are not used
    resized = _transposed(_lines(_transposed(pixels_HW3[top:bottom]), *columns))
    return _lines(resized, rows[0] - np.int32(top), rows[1])


Order = Callable[[int, int, int, int], bool]

# Which images' rows come before columns (height, width, new height, new width), from the oldest release of Pillow on.
ORDERS: tuple[Order, ...] = (
    lambda height, width, new_height, new_width: False,
    # 12.x, after 12.0
    lambda height, width, new_height, new_width: height > 100 * width and new_height < height,
    # 13: where the height shrinks by more than twice as many pixels as the width, as for many photographs of 333x500
    lambda height, width, new_height, new_width: height - new_height > max(0, 2 * (width - new_width)),
)


@functools.cache
def pillows_order() -> Order | None:
    """The order in which the Pillow at hand resizes, tried once per process on a few noisy images.

    None: another release computes otherwise, or another processor rounds otherwise; then Pillow itself is to be used.
    """
    random, samples = np.random.RandomState(0), []
    for height, width, side in ((61, 83, 32), (75, 50, 33), (50, 75, 33), (300, 41, 64), (300, 2, 64), (20, 20, 37)):
        noise = random.randint(0, 256, (height, width, 3), np.uint8)
        wanted = np.asarray(Image.fromarray(noise).resize((side, side), Image.Resampling.BILINEAR))
        samples.append((noise, (side, side), wanted))
    return next(
        (
            order
            for order in ORDERS
            if all(np.array_equal(resize(noise, size, order=order), wanted) for noise, size, wanted in samples)
        ),
        None,
    )


def _transposed(pixels_HW3: Pixels) -> Pixels:
    return np.asarray(cv2.transpose(pixels_HW3), np.uint8)


def _lines(pixels_HW3: Pixels, first: Ints, weights: Ints) -> Pixels:
    """One pass: weighted sums of rows."""
    result = np.empty((len(first), *pixels_HW3.shape[1:]), np.uint8)
    _weighted_lines(pixels_HW3.reshape(len(pixels_HW3), -1), first, weights, result.reshape(len(first), -1))
    return result


@compiled
def _weighted_lines(lines: Pixels, first: Ints, weights: Ints, result: Pixels) -> None:
    """Each line of `result` is a weighted sum of lines, rounded: 8-bit values with 22-bit weights that sum to one."""
    half = np.int32(1 << (BITS - 1))
    total = np.empty(lines.shape[1], np.int32)
    for line in range(len(first)):
        total[:] = half
        for tap in range(weights.shape[1]):
            weight, source = weights[line, tap], lines[first[line] + tap]
            if weight != 0:
                for at in range(len(total)):
                    total[at] = np.int32(total[at] + weight * np.int32(source[at]))
        target = result[line]
        for at in range(len(total)):
            target[at] = total[at] >> BITS
