"""What the kernels share: how they are compiled, comparisons that stay uint8, and a counting sort."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from wsolbench.system.compiled import compiled

U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

NONE = -1  # no branch, no record


@compiled
def smaller(a: Any, b: Any) -> Any:
    return a if a < b else b  # noqa: FURB136  # to numba, min() of two uint8 is an int64


@compiled
def larger(a: Any, b: Any) -> Any:
    return a if a > b else b  # noqa: FURB136


@compiled
def by_value(values: U8 | I32) -> tuple[I32, I32]:
    """Sort by value: indices, and where each of the 256 values begins among them [257]."""
    begin, place = np.zeros(257, np.int32), np.empty(256, np.int32)
    order = np.empty(len(values), np.int32)
    for index in range(len(values)):
        begin[values[index] + 1] += 1
    for value in range(256):
        begin[value + 1] += begin[value]
        place[value] = begin[value]
    for index in range(len(values)):
        value = values[index]
        order[place[value]] = index
        place[value] += 1
    return order, begin
