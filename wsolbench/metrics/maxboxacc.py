"""MaxBoxAcc and MaxBoxAccV2 (Choe et al., CVPR 2020 and its journal version).  https://arxiv.org/abs/2007.04178

Bit-identical to the released evaluator (clovaai/wsolevaluation, commit 96f4b88). The threshold is the best one on the
images that are evaluated, a test oracle by definition.
"""
# B images, I IoU levels, T thresholds

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Self, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchmetrics import Metric

from wsolbench.boxes.arrays import Array, Contours, check_contours
from wsolbench.boxes.maps import threshold_grid
from wsolbench.boxes.scan import scan_maps
from wsolbench.metrics.functional import box_hits, summarize_boxes


class BoxResult(TypedDict):
    """What a box metric computes; accuracies are fractions in [0, 1]."""

    value: float  # mean of `per_iou`
    per_iou: dict[float, float]
    hits: Tensor  # int64 [I, T]: correct images
    count: int
    thresholds: Tensor  # float64 [T]
    best_thresholds: dict[float, float]


class SummedMetric(Metric):
    """Abstract: a metric whose states are int64 sums, which no cast may touch, and a constant that tells it apart."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    settings: Tensor

    def __init__(self, **kwargs: Any) -> None:
        # A process without images would answer from its cache and leave the others waiting for it.
        super().__init__(**{"compute_with_cache": False, **kwargs})

    def set_dtype(self, dst_type: str | torch.dtype) -> Self:
        """Do nothing: counts in half precision would be wrong from 2,049 images on."""
        return self

    def set_apart(self, *settings: float) -> None:
        """Keep what tells two metrics of a class apart as a constant state.

        MetricCollection merges metrics for good if their states happen to agree on the first batch; torchmetrics 1.6
        compares the first state only, so this one goes to the front.
        """
        self.add_state("settings", torch.tensor(settings, dtype=torch.float64), dist_reduce_fx="max")
        self._defaults = {"settings": self._defaults.pop("settings"), **self._defaults}


class BoxMetric(SummedMetric):
    """Abstract: correct images per IoU level and threshold, as int64 sums; `compute` reads the first best threshold."""

    hits: Tensor
    count: Tensor

    def __init__(
        self, contours: Contours, ious: Sequence[float], thresholds: npt.NDArray[np.float64], k: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        check_contours(contours)
        if not ious or not all(0 < iou <= 1 for iou in ious):
            raise ValueError(f"expected IoU levels in (0, 1], got {list(ious)}")
        self.contours: Contours = contours
        self.ious = tuple(float(iou) for iou in ious)
        self.thresholds = thresholds
        shape = (len(self.ious), len(thresholds))
        self.add_state("hits", torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.set_apart(contours == "multi", k, len(thresholds), thresholds[-1], *self.ious)

    def outcomes(self, maps_BHW: Array, boxes: Sequence[Array]) -> npt.NDArray[np.bool_]:
        """Say which images are correct at each IoU level and threshold: bool [B, I, T]."""
        found = scan_maps(maps_BHW, boxes, self.contours)
        return box_hits(found.iou_MBL[0], found.qmax_B, self.thresholds, self.ious)

    def update(self, maps_BHW: Array, boxes: Sequence[Array]) -> None:
        """Add images: float64 maps [B, H, W] in [0, 1], and per image its integer boxes [N, 4] in the same frame."""
        correct_BIT = self.outcomes(maps_BHW, boxes)
        self.hits += sum_hits(correct_BIT, self.hits)
        self.count += len(correct_BIT)

    def compute(self) -> BoxResult:
        """Return the accuracy at the threshold that is best per IoU level, and the counts it was read from."""
        return self._summary()

    def _summary(self, choose_by: Tensor | None = None) -> BoxResult:
        by = None if choose_by is None else choose_by.cpu().numpy()
        summary = summarize_boxes(self.hits.cpu().numpy(), int(self.count), self.ious, self.thresholds, by)
        return {
            "value": summary["value"],
            "per_iou": summary["per_iou"],
            "hits": self.hits,
            "count": summary["count"],
            "thresholds": torch.from_numpy(self.thresholds),
            "best_thresholds": summary["best_thresholds"],
        }

    def _wrap_compute(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        """Give one-element tensors their shape back: torchmetrics squeezes them out of what `compute` returns."""
        wrapped = super()._wrap_compute(compute)

        @functools.wraps(compute)
        def keep_shapes(*args: Any, **kwargs: Any) -> BoxResult:
            result: BoxResult = wrapped(*args, **kwargs)
            result["hits"] = result["hits"].reshape(len(self.ious), len(self.thresholds))
            result["thresholds"] = result["thresholds"].reshape(len(self.thresholds))
            return result

        return keep_shapes


def sum_hits(correct_BIT: npt.NDArray[np.bool_], like: Tensor) -> Tensor:
    """Count the correct images, int64 [I, T] on the device of `like`."""
    return torch.from_numpy(correct_BIT.sum(0, dtype=np.int64)).to(like.device)


class MaxBoxAcc(BoxMetric):
    """Box accuracy at the best threshold: one box per image (largest contour), IoU >= .5, 100 thresholds.

    Shapes: `update(maps_BHW, boxes)` takes float64 score maps in [0, 1] at the evaluation resolution (numpy or tensor)
    and a list of B integer arrays [N, 4], in the same frame. `compute()` returns a `BoxResult` of fractions in [0, 1].
    Source: Choe et al., CVPR 2020, section 4.1.

    Args:
        contours: "single" (largest contour) or "multi" (every contour, holes too; any of them may be right).
        ious: the IoU levels; the threshold is maximised for each, then the accuracies are averaged.
        interval: step between thresholds.
        kwargs: passed to `torchmetrics.Metric`.

    >>> maps = torch.zeros(2, 8, 8, dtype=torch.float64)
    >>> maps[:, 2:5, 2:6] = 1
    >>> metric = MaxBoxAcc()
    >>> metric.update(maps, [torch.tensor([[2, 2, 6, 5]]), torch.tensor([[0, 0, 1, 1]])])
    >>> metric.compute()["value"]
    0.5
    """

    def __init__(
        self, contours: Contours = "single", ious: Sequence[float] = (0.5,), interval: float = 0.01, **kwargs: Any
    ) -> None:
        super().__init__(contours, ious, threshold_grid(interval), **kwargs)


class MaxBoxAccV2(BoxMetric):
    """`MaxBoxAcc` with every contour, 1,000 thresholds, and the mean over IoU .3, .5, .7 of separate maxima.

    Shapes, units and arguments as in `MaxBoxAcc`.
    Source: Choe et al., "Evaluation for Weakly Supervised Object Localization: Protocol, Metrics, and Datasets".

    >>> maps = torch.zeros(1, 8, 8, dtype=torch.float64)
    >>> maps[0, 2:5, 2:6] = 1
    >>> metric = MaxBoxAccV2()
    >>> metric.update(maps, [torch.tensor([[2, 2, 6, 6]])])
    >>> metric.compute()["per_iou"]
    {0.3: 1.0, 0.5: 1.0, 0.7: 1.0}
    """

    def __init__(
        self,
        contours: Contours = "multi",
        ious: Sequence[float] = (0.3, 0.5, 0.7),
        interval: float = 0.001,
        **kwargs: Any,
    ) -> None:
        super().__init__(contours, ious, threshold_grid(interval), **kwargs)
