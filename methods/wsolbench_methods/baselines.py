"""Trivial baselines: maps that never look at the image. They say how far a data set's centring carries a score.

The centred Gaussian is the "center" row of Choe et al., CVPR 2020 (https://arxiv.org/abs/2001.07437), whose width the
authors' code does not state. Ours: all of it. Differs from the paper: the width is 0.25 of each side, so that every
threshold's box is a centred box of the image's shape; a centred box and the full image stand beside it.
"""

# B batch, H W image and map (maps are made at input resolution)

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from wsolbench.method import Untrained
from wsolbench.registry import register_method
from wsolbench.types import Prediction


@dataclass
class CenterBoxConfig:
    area: float = 0.5  # share of the image inside the box


@register_method("center-box")
@final
class CenterBox(Untrained):
    """Baseline: one box in the middle of every image."""

    Config: ClassVar[type] = CenterBoxConfig

    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Prediction:
        """Ones where |x| and |y|, measured from the centre in half sides, are at most sqrt(area); no logits."""
        y_H1, x_1W = _from_centre(images_BCHW)
        reach = math.sqrt(self.config.area)
        return _same_for_all(images_BCHW, ((y_H1.abs() <= reach) & (x_1W.abs() <= reach)).float())


@register_method("full-image")
@final
class FullImage(Untrained):
    """Baseline: the whole image is the object."""

    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Prediction:
        """Ones with a zero in the last corner, since a constant map normalises to nothing; no logits."""
        map_HW = torch.ones(images_BCHW.shape[-2:], device=images_BCHW.device)
        map_HW[-1, -1] = 0.0
        return _same_for_all(images_BCHW, map_HW)


@dataclass
class CenterGaussianConfig:
    sigma: float = 0.25  # standard deviation in image sides


@register_method("center-gaussian")
@final
class CenterGaussian(Untrained):
    """Baseline: a Gaussian in the middle of every image; its threshold chooses the size of the box."""

    Config: ClassVar[type] = CenterGaussianConfig

    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Prediction:
        """exp(-(x^2 + y^2) / (2 sigma^2)) with x, y in image sides from the centre; no logits."""
        y_H1, x_1W = _from_centre(images_BCHW)
        return _same_for_all(images_BCHW, torch.exp(-(y_H1**2 + x_1W**2) / (8 * self.config.sigma**2)))


def _from_centre(images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel centres as a column of y and a row of x, in half sides from the image centre: within (-1, 1)."""
    (h, w), device = images_BCHW.shape[-2:], images_BCHW.device
    y_H = (2 * torch.arange(h, device=device) + 1 - h) / h
    x_W = (2 * torch.arange(w, device=device) + 1 - w) / w
    return y_H[:, None], x_W[None, :]


def _same_for_all(images_BCHW: Tensor, map_HW: Tensor) -> Prediction:
    return Prediction(None, map_HW.repeat(len(images_BCHW), 1, 1))
