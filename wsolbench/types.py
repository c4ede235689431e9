"""What passes between data sets, methods and metrics.

Shape suffixes: B batch, C channels, H W image, h w map, K classes, N boxes. Methods see `Batch`, never `Annotation`:
localisation ground truth reaches only metrics and selection.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # keeps `import wsolbench` and `wsolbench list` free of torch
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sample:
    """One image as a split hands it out: id, float32 [C, H, W] normalised image, integer class label."""

    id: str
    image_CHW: Tensor
    label: int


@dataclass(slots=True)
class Batch:
    """What a method trains on: ids, float32 images [B, C, H, W], int64 labels [B].

    `aux` holds train-time teacher or prior maps by name, transformed with the image; never boxes or masks of the data set.
    """

    ids: list[str]
    images_BCHW: Tensor
    labels_B: Tensor
    aux: dict[str, Tensor] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch with every tensor on `device`."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory, from which a CUDA device copies while the processor goes on."""
        return self._with(lambda tensor: tensor.pin_memory())

    def parts(self, count: int) -> list[Batch]:
        """Return the batch in parts, in order, whose sizes differ by one at most; no part is empty."""
        edges = [len(self.ids) * number // count for number in range(count + 1)]
        return [self._part(slice(first, last)) for first, last in pairwise(edges) if last > first]

    def _part(self, rows: slice) -> Batch:
        aux = {name: value[rows] for name, value in self.aux.items()}
        return Batch(self.ids[rows], self.images_BCHW[rows], self.labels_B[rows], aux)

    def _with(self, change: Callable[[Tensor], Tensor]) -> Batch:
        aux = {name: change(value) for name, value in self.aux.items()}
        return Batch(self.ids, change(self.images_BCHW), change(self.labels_B), aux)


@dataclass(slots=True)
class Prediction:
    """What a method answers: class logits [B, K] (None: it has no classifier) and raw float32 score maps [B, h, w]."""

    logits_BK: Tensor | None
    maps_Bhw: Tensor


@dataclass(frozen=True, slots=True)
class Annotation:
    """Localisation ground truth of one image, in original pixels.

    `boxes_N4` are integers (x0, y0, x1, y1) with the reference's corners (x1 = x0 + width); `mask_HW` is uint8 with
    1 object, 0 background, 255 ignored; `soft_map_HW` is float in [0, 1].
    """

    id: str
    size_HW: tuple[int, int]
    boxes_N4: npt.NDArray[np.int64] | None = None
    mask_HW: npt.NDArray[np.uint8] | None = None
    soft_map_HW: npt.NDArray[np.float32] | None = None
