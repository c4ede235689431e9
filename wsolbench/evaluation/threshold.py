"""Where maps are cut, and who chose that."""
# n images, T thresholds

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from wsolbench.evaluation.levels import Levels


@dataclass(frozen=True)
class Threshold:
    """Where maps are cut, and who chose that; `oracle`: test was looked at to choose it."""

    value: float | None  # None: every map at its own Otsu level
    by: str
    oracle: bool = False
    candidates: tuple[float, ...] = ()  # chosen among these by GT-known + Top-1 Loc; empty: among all by GT-known Loc

    def cuts(self, levels: Levels) -> npt.NDArray[np.int64]:
        """The level at which each quantised map is cut, [n]."""
        from wsolbench.boxes.maps import level_of

        return levels.otsu.astype(np.int64) if self.value is None else level_of(self.value, levels.qmax)

    def hits(self, levels: Levels) -> npt.NDArray[np.bool_]:
        """Say which images are correct, bool [n]: IoU .5, largest contour."""
        return levels.hits_otsu() if self.value is None else levels.hits(self.value)


def gt_known_plus_top1(levels: Levels, thresholds: Sequence[float]) -> npt.NDArray[np.int64]:
    """Per image and threshold 0, 1 (the box is right) or 2 (the class too), int64 [n, T]; without a classifier at most 1."""
    hits_nT = levels.hits(thresholds).astype(np.int64)
    return hits_nT * (1 + levels.in_top(1)[:, None]) if (levels.ranks >= 0).all() else hits_nT
