"""The frame in which maps, boxes and masks are compared."""
# N boxes of an image, H W image

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsolbench.boxes.by_convention import truth_boxes
from wsolbench.boxes.truth import resize_boxes, resize_mask
from wsolbench.conventions import Geometry, get_convention
from wsolbench.errors import WsolbenchError
from wsolbench.types import Annotation


@dataclass(frozen=True)
class Frame:
    """What a split looks like where maps and boxes are compared."""

    resolution_HW: tuple[int, int]
    has_masks: bool
    has_boxes: bool = True
    content: Geometry = "resize"  # of the image: all of it, or the middle of a larger one

    def boxes(self, annotation: Annotation) -> npt.NDArray[np.int64]:
        """The image's boxes [N, 4] in the evaluation frame."""
        if annotation.boxes_N4 is None or not len(annotation.boxes_N4):
            raise WsolbenchError(f"image '{annotation.id}' has no boxes, so its maps cannot be scored")
        if self.content == "resize":
            return resize_boxes(annotation.boxes_N4, annotation.size_HW, self.resolution_HW)
        return _crop_boxes(annotation, self.resolution_HW)

    def mask(self, annotation: Annotation) -> npt.NDArray[np.uint8]:
        """The image's mask [H, W] in the evaluation frame."""
        if annotation.mask_HW is None:
            raise WsolbenchError(f"image '{annotation.id}' has no mask although its data set promises masks")
        if self.content == "resize":
            return resize_mask(annotation.mask_HW, self.resolution_HW)
        return _crop_mask(annotation.mask_HW, self.resolution_HW)


def _crop_boxes(annotation: Annotation, resolution_HW: tuple[int, int]) -> npt.NDArray[np.int64]:
    """SAT's rule: scaled to the larger image, the margin taken off, clipped to the crop, truncated.

    A box that lies outside of the crop is the line of pixels at the edge that is nearest to it. (SAT leaves it inverted: either
    way its image stays in the count, and no map can be expected to hit it.)
    """
    boxes = truth_boxes(get_convention("sat"), annotation, resolution_HW)
    return np.clip(boxes, 0, np.array(resolution_HW[::-1] * 2) - 1).astype(np.int64)


def _crop_mask(mask_HW: npt.NDArray[np.uint8], resolution_HW: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Nearest neighbour in the larger image, of which the middle is taken."""
    (height, width), (y, x) = resolution_HW, get_convention("sat").margins_HW(resolution_HW)
    return resize_mask(mask_HW, (height + 2 * y, width + 2 * x))[y : y + height, x : x + width]
