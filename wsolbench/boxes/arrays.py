"""The edge: maps and boxes as they are given, checked, as numpy arrays."""
# B images, N boxes of an image, H W map

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

import numpy as np
import numpy.typing as npt

from wsolbench.errors import unknown

if TYPE_CHECKING:  # tensors are read by duck typing: data code and workers import this module without torch
    from torch import Tensor

Array: TypeAlias = "npt.NDArray[Any] | Tensor"


def check_maps(maps: Array, ndim: int = 3) -> npt.NDArray[np.float64]:
    """Return score maps as a numpy array, or say in one sentence what is wrong with them.

    Raises:
        TypeError: not a numpy array or tensor, or not float64.
        ValueError: not [B, H, W] (ndim 3) or [H, W] (ndim 2), or a value is NaN or outside [0, 1].
    """
    values = to_numpy(maps)
    if values.dtype != np.float64:
        raise TypeError(f"expected float64 score maps, got {values.dtype}: use wsolbench.boxes.normalize_maps")
    if values.ndim != ndim or 0 in values.shape[-2:]:
        raise ValueError(
            f"expected score maps of shape {'[B, H, W]' if ndim == 3 else '[H, W]'}, got {list(values.shape)}"
        )
    if values.size:
        low, high = values.min(), values.max()
        if np.isnan(low):
            raise ValueError("expected score maps without NaN")
        if low < 0 or high > 1:
            raise ValueError(f"expected score maps in [0, 1], got values in [{low:g}, {high:g}]")
    return values


def to_numpy(array: Array, double: bool = False) -> npt.NDArray[Any]:
    """Return a numpy array, or a tensor of any device as one (`double`: cast to float64 on the way)."""
    if isinstance(array, np.ndarray):
        return array
    if not hasattr(array, "detach"):
        raise TypeError(f"expected a numpy array or a tensor, got {type(array).__name__}")
    tensor = array.detach().cpu()
    values: npt.NDArray[Any] = (tensor.double() if double else tensor).numpy()
    return values


Contours = Literal["single", "multi"]


LEVELS = 255


def check_boxes(boxes: Sequence[Array], count: int, size_HW: tuple[int, ...]) -> list[npt.NDArray[np.int64]]:
    """Return the ground truth of `count` images as int64 arrays, or say in one sentence what is wrong with it.

    Raises:
        TypeError: boxes are not integers.
        ValueError: another number of images, an image without boxes, a box that is not (x0, y0, x1, y1), or one that
            reaches outside the map, which means that it was not resized to the evaluation frame.
    """
    if len(boxes) != count:
        raise ValueError(f"expected the boxes of {count} images, got those of {len(boxes)}")
    height, width = size_HW
    checked = []
    for index, one in enumerate(boxes):
        array = check_box_list(one, f"boxes of image {index}")
        if not len(array):
            raise ValueError(f"expected at least one box for image {index}, got none")
        # x1 = W is allowed: a box given as x0 + width may reach it, and the reference does not clip ground truth
        if array[:, 2].max() > width or array[:, 3].max() > height:
            raise ValueError(
                f"boxes of image {index} reach outside the {height}x{width} map: use wsolbench.boxes.resize_boxes"
            )
        checked.append(array)
    return checked


def check_box_list(boxes: Array, what: str) -> npt.NDArray[np.int64]:
    array = to_numpy(boxes)
    if array.dtype.kind not in "iu":
        raise TypeError(f"expected integer {what}, got {array.dtype}")
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"expected {what} of shape [N, 4], got {list(array.shape)}")
    if (array < 0).any() or (array[:, 2:] < array[:, :2]).any():
        raise ValueError(f"expected {what} as 0 <= x0 <= x1, 0 <= y0 <= y1, got {array.tolist()}")
    return array.astype(np.int64, copy=False)


def check_contours(contours: str, *more: str) -> None:
    """Raise `UsageError` unless `contours` is "single", "multi" or one of `more`."""
    known = (*get_args(Contours), *more)
    if contours not in known:
        raise unknown("contours", contours, known)


Bools: TypeAlias = npt.NDArray[np.bool_]


Floats: TypeAlias = npt.NDArray[np.float64]


def image_column(values: Array | Sequence[int] | None, count: int, what: str) -> npt.NDArray[np.int32]:
    """A whole number per image, int32 [count], as it is kept; -1 throughout where there are none (None)."""
    if values is None:
        return np.full(count, -1, np.int32)
    column = np.array(values, np.int64) if isinstance(values, list | tuple) else to_numpy(cast(Array, values))
    if column.dtype.kind not in "iu":
        raise TypeError(f"expected integer {what}, got {column.dtype}")
    if column.shape != (count,):
        raise ValueError(f"expected {what} of shape [{count}], got {list(column.shape)}")
    return column.astype(np.int32)
