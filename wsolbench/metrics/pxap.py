"""PxAP and peak IoU: how well the score ranks pixels, against masks.  Choe et al., https://arxiv.org/abs/2001.07437

Bit-identical to the released evaluator (clovaai/wsolevaluation, commit 96f4b88); peak IoU reads the same histograms.
"""
# B images, H W map, T thresholds

from __future__ import annotations

from typing import Any, TypedDict

import torch
from torch import Tensor

from wsolbench.boxes import Array, check_maps, threshold_grid, to_numpy
from wsolbench.metrics.functional import pixel_histograms, summarize_pixels
from wsolbench.metrics.maxboxacc import SummedMetric


class PixelResult(TypedDict):
    """What `PxAP` computes; curves run over ascending thresholds [T + 1], foreground is score >= threshold."""

    value: float  # pixel average precision in [0, 1]
    precision: Tensor  # float64, NaN where no pixel reaches the threshold
    recall: Tensor
    thresholds: Tensor
    piou: float  # peak IoU: max over thresholds of TP / (TP + FP + FN)


class PxAP(SummedMetric):
    """Pixel average precision, pooled over all pixels of the split.

    Shapes: `update(maps_BHW, masks_BHW)` takes float64 score maps in [0, 1] and masks of the same shape (1 object,
    0 background, 255 ignored; `wsolbench.boxes.resize_mask` brings them to the evaluation resolution). `compute()`
    returns a `PixelResult`; it raises `ValueError` when no pixel is foreground.

    Args:
        interval: step between thresholds; the value depends on it a little.
        kwargs: passed to `torchmetrics.Metric`.

    >>> maps = torch.tensor([[[0.9, 0.8], [0.1, 0.0]]], dtype=torch.float64)
    >>> metric = PxAP()
    >>> metric.update(maps, torch.tensor([[[1, 0], [1, 255]]]))
    >>> round(metric.compute()["value"], 4)
    0.8333
    """

    foreground: Tensor
    background: Tensor

    def __init__(self, interval: float = 0.001, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.interval = interval
        bins = torch.zeros(len(threshold_grid(interval)) + 2, dtype=torch.int64)
        self.add_state("foreground", bins, dist_reduce_fx="sum")
        self.add_state("background", bins.clone(), dist_reduce_fx="sum")

    def update(self, maps_BHW: Array, masks_BHW: Array) -> None:
        """Add images: float64 maps [B, H, W] in [0, 1] and masks [B, H, W] of 0, 1 and 255."""
        foreground, background = pixel_histograms(check_maps(maps_BHW), to_numpy(masks_BHW), self.interval)
        self.foreground += torch.from_numpy(foreground).to(self.foreground.device)
        self.background += torch.from_numpy(background).to(self.background.device)

    def compute(self) -> PixelResult:
        """Return PxAP, peak IoU and the curves they were read from."""
        summary = summarize_pixels(self.foreground.cpu().numpy(), self.background.cpu().numpy(), self.interval)
        return {
            "value": summary["value"],
            "precision": torch.from_numpy(summary["precision"]),
            "recall": torch.from_numpy(summary["recall"]),
            "thresholds": torch.from_numpy(summary["thresholds"]),
            "piou": summary["piou"],
        }
