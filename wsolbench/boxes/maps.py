"""Values of a map: raw map -> score map -> uint8 -> level, exactly as the reference evaluator computes them.

Source: Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right", CVPR 2020,
https://arxiv.org/abs/2001.07437, and the behaviour of its evaluator (clovaai/wsolevaluation, commit 96f4b88).
"""
# B images, H W map, h w raw map, T thresholds

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from wsolbench.boxes.arrays import Array, Floats, to_numpy
from wsolbench.conventions import Convention, get_convention


def normalize_maps(
    maps_Bhw: Array, size: int | tuple[int, int], convention: str = "reference"
) -> npt.NDArray[np.float64]:
    """Turn raw maps [B, h, w] into score maps [B, H, W] in [0, 1], float64, on the CPU.

    "reference": bicubic resize in float64 (OpenCV), then subtract the minimum, then divide by the new maximum; a map
    that holds a NaN or is constant becomes all zero. Float32 or another resize would change the quantised values.

    Args:
        maps_Bhw: numpy array or tensor, any real dtype.
        size: (H, W), or one number for a square; the evaluation resolution.
        convention: whose order of operations (`wsolbench.conventions`); an unknown one raises `UsageError`.

    >>> normalize_maps(np.array([[[1.0, 3.0], [2.0, 5.0]]]), 2).tolist()
    [[[0.0, 0.5], [0.25, 1.0]]]
    """
    height, width = (size, size) if isinstance(size, int) else size
    if convention != "reference":
        return normalize_batch(get_convention(convention), maps_Bhw, (height, width))
    # .double() first: numpy has no bfloat16, and every narrower float is exact in float64
    raw = np.asarray(maps_Bhw, np.float64) if isinstance(maps_Bhw, np.ndarray) else to_numpy(maps_Bhw, double=True)
    if raw.ndim != 3 or 0 in raw.shape[1:]:
        raise ValueError(f"expected raw maps of shape [B, h, w], got {list(raw.shape)}")
    maps = np.zeros((len(raw), height, width))
    for out, one in zip(maps, raw, strict=True):
        resized = cv2.resize(np.ascontiguousarray(one), (width, height), interpolation=cv2.INTER_CUBIC)
        if np.isnan(resized).any() or resized.min() == resized.max():
            continue
        with np.errstate(invalid="ignore"):  # an infinite map turns into NaN, which the metrics refuse
            shifted = resized - resized.min()
            out[:] = shifted / shifted.max()
    return maps


def quantize(maps_HW: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Quantise values in [0, 1] (any shape) to uint8 by truncation, so that only exactly 1 gives 255.

    >>> quantize(np.array([0.0, 0.999, 1.0])).tolist()
    [0, 254, 255]
    """
    return (maps_HW * 255).astype(np.uint8)


def threshold_grid(interval: float) -> npt.NDArray[np.float64]:
    """Return the reference's thresholds 0, interval, 2 interval, ... below 1 (float64 [T]).

    >>> len(threshold_grid(0.01)), len(threshold_grid(0.001))
    (100, 1000)
    """
    if not 0 < interval <= 1:
        raise ValueError(f"expected an interval in (0, 1], got {interval}")
    grid = np.arange(0, 1, interval, dtype=np.float64)
    return grid[grid < 1]  # arange may overshoot by one step when 1 / interval is not an integer in floating point


def level_of(thresholds: npt.ArrayLike, qmax: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return the level int(threshold * qmax), truncated from the float64 product as the reference does.

    The foreground of a quantised map is q > level. Thresholds lie in [0, 1), so the level lies in 0 .. qmax - 1 (0 if
    qmax is 0). The shape is that of `qmax` followed by that of `thresholds`.

    >>> level_of([0.0, 0.4, 0.999], [255, 3]).tolist()
    [[0, 102, 254], [0, 1, 2]]
    """
    wanted = np.asarray(thresholds, np.float64)
    if not ((wanted >= 0) & (wanted < 1)).all():
        raise ValueError(f"expected thresholds in [0, 1), got {wanted.tolist()}")
    return np.asarray(np.multiply.outer(np.asarray(qmax, np.float64), wanted)).astype(np.int64)


def otsu_level(q_HW: npt.NDArray[np.uint8]) -> int:
    """Return Otsu's level of a quantised map: the foreground is q > level (Otsu 1979, OpenCV's `THRESH_OTSU`).

    It lies in 0 .. max(q) - 1 (0 for an all-zero map), so the foreground is never empty unless the map is.

    >>> otsu_level(np.array([[0, 1, 200, 201]], np.uint8))
    1
    """
    level, _ = cv2.threshold(np.ascontiguousarray(q_HW), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return max(0, min(int(level), int(q_HW.max()) - 1))


# --- the edge -----------------------------------------------------------------------------------------------------------


def normalize(convention: Convention, raw_hw: Array, resolution_HW: tuple[int, int]) -> npt.NDArray[Any]:
    """Turn one raw map [h, w] into the convention's score map [H, W], in the convention's precision.

    A map that is constant or holds a value that is not finite becomes all zero. The released codes give NaN for most of
    these; NaN exceeds no threshold (and becomes 0 as uint8), so they too take the map for one without foreground.

    >>> from wsolbench.conventions import get_convention
    >>> raw = np.array([[1.0, 3.0], [2.0, 5.0]])
    >>> normalize(get_convention("tscam"), raw, (2, 2)).tolist()
    [[0.0, 0.5], [0.25, 1.0]]
    >>> bool(normalize(get_convention("sat"), raw, (2, 2)).max() < 1)
    True
    """
    raw = to_numpy(raw_hw, double=True)
    if convention.box_rule_only or convention.name == "reference":
        score: npt.NDArray[Any] = normalize_maps(raw[None], resolution_HW)[0]
        return score
    values: npt.NDArray[Any] = np.ascontiguousarray(raw, dtype=convention.dtype)
    zeros = np.zeros(resolution_HW, values.dtype)
    if convention.minmax == "after resize":
        values = _resized(values, convention, resolution_HW)
    low, high = values.min(), values.max()
    with np.errstate(invalid="ignore", over="ignore"):
        # the sum in float64: numpy before 2 adds a Python float to a float32 that way, and so did these codes
        span = values.dtype.type(float(high - low) + convention.epsilon)
    if low == high or not np.isfinite(span):  # NaN and infinities end up in the span
        return zeros
    values = (values - low) / span
    return values if convention.minmax == "after resize" else _resized(values, convention, resolution_HW)


def normalize_batch(convention: Convention, maps_Bhw: Array, resolution_HW: tuple[int, int]) -> Floats:
    """`normalize` for raw maps [B, h, w]; float64 [B, H, W], which holds a float32 convention's values exactly."""
    raw = to_numpy(maps_Bhw, double=True)
    if raw.ndim != 3 or 0 in raw.shape[1:]:
        raise ValueError(f"expected raw maps of shape [B, h, w], got {list(raw.shape)}")
    maps = np.zeros((len(raw), *resolution_HW))
    for out, one in zip(maps, raw, strict=True):
        out[:] = normalize(convention, one, resolution_HW)
    return maps


def _resized(values_hw: npt.NDArray[Any], convention: Convention, size_HW: tuple[int, int]) -> npt.NDArray[Any]:
    how = cv2.INTER_CUBIC if convention.interpolation == "bicubic" else cv2.INTER_LINEAR
    resized: npt.NDArray[Any] = cv2.resize(values_hw, size_HW[::-1], interpolation=how)
    return resized
