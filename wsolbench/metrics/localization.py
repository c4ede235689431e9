"""GT-known Loc and Top-k Loc: the box of the true class's map at one threshold, and the class as well.

Definitions vary between papers; here: one map per image (the true class's, or class-agnostic), one box (largest
contour), IoU >= .5 inclusive, class scores from one view. The threshold is fixed, or an oracle: the one that is best
for GT-known Loc on the images that are evaluated.
"""
# B images, K classes, T thresholds

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wsolbench.boxes.arrays import Array, Contours
from wsolbench.boxes.maps import level_of, threshold_grid
from wsolbench.errors import unknown
from wsolbench.metrics.maxboxacc import BoxMetric, BoxResult, sum_hits
from wsolbench.metrics.ranks import label_rank

Threshold = float | Literal["oracle"]


def _thresholds(threshold: Threshold, interval: float) -> npt.NDArray[np.float64]:
    if threshold == "oracle":
        return threshold_grid(interval)
    if isinstance(threshold, str):
        raise unknown("threshold", threshold, ["oracle", "a number in [0, 1)"])
    level_of(threshold, 255)  # refuses what is not in [0, 1)
    return np.array([threshold], np.float64)


class GTKnownLoc(BoxMetric):
    """Box accuracy with the true class's map, at a fixed threshold or at the oracle one (then it is MaxBoxAcc).

    Shapes: `update(maps_BHW, boxes)` takes float64 score maps in [0, 1] and a list of B integer arrays [N, 4] in the
    same frame. `compute()` returns a `BoxResult` of fractions in [0, 1].
    Source: the field's usual metric; semantics of clovaai/wsolevaluation (commit 96f4b88).

    Args:
        threshold: in [0, 1), relative to each map's maximum, or "oracle".
        iou: the level to reach, inclusive.
        contours: "single" or "multi".
        interval: step between thresholds of the oracle.
        kwargs: passed to `torchmetrics.Metric`.

    >>> maps = torch.zeros(1, 8, 8, dtype=torch.float64)
    >>> maps[0, 2:5, 2:6] = 1
    >>> metric = GTKnownLoc(threshold=0.4)
    >>> metric.update(maps, [torch.tensor([[2, 2, 6, 5]])])
    >>> metric.compute()["value"]
    1.0
    """

    def __init__(
        self,
        threshold: Threshold = "oracle",
        iou: float = 0.5,
        contours: Contours = "single",
        interval: float = 0.01,
        **kwargs: Any,
    ) -> None:
        super().__init__(contours, (iou,), _thresholds(threshold, interval), **kwargs)


class TopKLoc(BoxMetric):
    """Share of images whose class is among the k highest logits and whose box is right, with one map per image.

    Shapes: `update(maps_BHW, boxes, logits_BK, labels_B)`; maps and boxes as in `GTKnownLoc`, class ties as in
    `label_rank`. With "oracle", the threshold is the one best for GT-known Loc, whatever k: so Top-1 <= Top-5 <=
    GT-known. `compute()` returns a `BoxResult`; its `hits` count images right in class and box.
    Source: Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015; the map is the true
    class's, not each predicted class's own.

    Args:
        k: how many classes may be named.
        threshold, iou, contours, interval, kwargs: as in `GTKnownLoc`.

    >>> maps = torch.zeros(2, 8, 8, dtype=torch.float64)
    >>> maps[:, 2:5, 2:6] = 1
    >>> metric = TopKLoc(k=1, threshold=0.4)
    >>> logits = torch.tensor([[2.0, 1.0], [2.0, 1.0]])
    >>> metric.update(maps, [torch.tensor([[2, 2, 6, 5]])] * 2, logits, torch.tensor([0, 1]))
    >>> metric.compute()["value"]
    0.5
    """

    known_hits: Tensor

    def __init__(
        self,
        k: int = 1,
        threshold: Threshold = "oracle",
        iou: float = 0.5,
        contours: Contours = "single",
        interval: float = 0.01,
        **kwargs: Any,
    ) -> None:
        super().__init__(contours, (iou,), _thresholds(threshold, interval), k, **kwargs)
        if k < 1:
            raise ValueError(f"expected k >= 1, got {k}")
        self.k = k
        self.add_state("known_hits", torch.zeros_like(self.hits), dist_reduce_fx="sum")

    def update(  # type: ignore[override]  # torchmetrics passes arguments through; the class is final
        self, maps_BHW: Array, boxes: Sequence[Array], logits_BK: Tensor, labels_B: Tensor
    ) -> None:
        """Add images: maps and boxes as in `GTKnownLoc`, class logits [B, K], integer labels [B]."""
        if len(labels_B) != len(boxes):
            raise ValueError(f"expected the labels of {len(boxes)} images, got those of {len(labels_B)}")
        named_B = (label_rank(logits_BK, labels_B) < min(self.k, logits_BK.shape[1])).cpu().numpy()
        correct_BIT = self.outcomes(maps_BHW, boxes)
        self.known_hits += sum_hits(correct_BIT, self.hits)
        self.hits += sum_hits(correct_BIT & named_B[:, None, None], self.hits)
        self.count += len(correct_BIT)

    def compute(self) -> BoxResult:
        """Return the accuracy at the fixed threshold, or at the one best for GT-known Loc."""
        return self._summary(choose_by=self.known_hits)
