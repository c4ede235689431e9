"""PxAP and peak IoU: how well the scores rank pixels, against masks; both read one pair of pooled histograms.

PxAP: Choe et al., CVPR 2020, https://arxiv.org/abs/2001.07437, bit-identical to the released evaluator
(clovaai/wsolevaluation, commit 96f4b88). Peak IoU: the highest point of the IoU-threshold curve (Zhang et al.,
"Rethinking Localization Map", https://arxiv.org/abs/2006.05220), pooled over the split as in the released code of
DA-WSOL (commit d60e8ea, `libs/solver.py`) and of the journal version of BAS (commit bd1bfa8, `WSOL/count_pxap.py`).
"""
# B images, H W map, T thresholds

from __future__ import annotations

from typing import Any, TypedDict

import torch
from torch import Tensor

from wsolbench.boxes.arrays import Array, check_maps, to_numpy
from wsolbench.boxes.maps import threshold_grid
from wsolbench.metrics.functional import PixelSummary, pixel_histograms, summarize_pixels
from wsolbench.metrics.maxboxacc import SummedMetric


class PixelResult(TypedDict):
    """What `PxAP` computes; curves run over ascending thresholds [T + 1], foreground is score >= threshold."""

    value: float  # pixel average precision in [0, 1]
    precision: Tensor  # float64, NaN where no pixel reaches the threshold
    recall: Tensor
    thresholds: Tensor
    piou: float  # peak IoU, as `PIoU` computes it


class PeakResult(TypedDict):
    """What `PIoU` computes; the curve runs over ascending thresholds [T + 1], foreground is score >= threshold."""

    value: float  # peak IoU in [0, 1]
    iou: Tensor  # float64 [T + 1]
    thresholds: Tensor
    best_threshold: float  # the lowest one where the curve has its peak


class PixelMetric(SummedMetric):
    """Abstract: foreground and background pixels per bin of the score, as int64 sums."""

    foreground: Tensor
    background: Tensor

    def __init__(self, interval: float = 0.001, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.interval = interval
        bins = torch.zeros(len(threshold_grid(interval)) + 2, dtype=torch.int64)
        self.add_state("foreground", bins, dist_reduce_fx="sum")
        self.add_state("background", bins.clone(), dist_reduce_fx="sum")
        self.set_apart(interval)

    def update(self, maps_BHW: Array, masks_BHW: Array) -> None:
        """Add images: float64 maps [B, H, W] in [0, 1] and masks [B, H, W] of 0, 1 and 255."""
        foreground, background = pixel_histograms(check_maps(maps_BHW), to_numpy(masks_BHW), self.interval)
        self.foreground += torch.from_numpy(foreground).to(self.foreground.device)
        self.background += torch.from_numpy(background).to(self.background.device)

    def _summary(self) -> PixelSummary:
        return summarize_pixels(self.foreground.cpu().numpy(), self.background.cpu().numpy(), self.interval)


class PxAP(PixelMetric):
    """Pixel average precision, pooled over all pixels of the split.

    Shapes: `update(maps_BHW, masks_BHW)` takes float64 score maps in [0, 1] and masks of the same shape (1 object,
    0 background, 255 ignored; `wsolbench.boxes.resize_mask` brings them to the evaluation resolution). `compute()`
    returns a `PixelResult`; it raises `ValueError` when no pixel is foreground.
    Source: Choe et al., CVPR 2020. No threshold is chosen.

    Args:
        interval: step between thresholds; the value depends on it a little.
        kwargs: passed to `torchmetrics.Metric`.

    >>> maps = torch.tensor([[[0.9, 0.8], [0.1, 0.0]]], dtype=torch.float64)
    >>> metric = PxAP()
    >>> metric.update(maps, torch.tensor([[[1, 0], [1, 255]]]))
    >>> round(metric.compute()["value"], 4)
    0.8333
    """

    def compute(self) -> PixelResult:
        """Return PxAP, peak IoU and the curves they were read from."""
        summary = self._summary()
        return {
            "value": summary["value"],
            "precision": torch.from_numpy(summary["precision"]),
            "recall": torch.from_numpy(summary["recall"]),
            "thresholds": torch.from_numpy(summary["thresholds"]),
            "piou": summary["piou"],
        }


class PIoU(PixelMetric):
    """Peak IoU: max over thresholds of TP / (TP + FP + FN), pixels pooled over the split; a test oracle by definition.

    Shapes, arguments and state as in `PxAP`, with which it shares one update in a `MetricCollection`. `compute()`
    returns a `PeakResult`; it raises `ValueError` when no pixel is foreground.
    Source: the "Peak-IoU" of Zhang et al., https://arxiv.org/abs/2006.05220, as DA-WSOL and BAS (journal) compute it.

    >>> maps = torch.tensor([[[0.9, 0.8], [0.1, 0.0]]], dtype=torch.float64)
    >>> metric = PIoU(interval=0.1)
    >>> metric.update(maps, torch.tensor([[[1, 0], [1, 255]]]))
    >>> result = metric.compute()
    >>> round(result["value"], 4), result["best_threshold"]
    (0.6667, 0.0)
    """

    def compute(self) -> PeakResult:
        """Return peak IoU, the IoU-threshold curve and the threshold of its peak."""
        summary = self._summary()
        return {
            "value": summary["piou"],
            "iou": torch.from_numpy(summary["iou"]),
            "thresholds": torch.from_numpy(summary["thresholds"]),
            "best_threshold": summary["piou_threshold"],
        }
