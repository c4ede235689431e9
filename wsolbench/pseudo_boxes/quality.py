"""How good pseudo-boxes are where ground truth exists: a report, made after them, that chooses nothing."""
# n images, N boxes of an image

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from wsolbench.boxes.truth import iou_matrix
from wsolbench.data.split import Split
from wsolbench.errors import WsolbenchError
from wsolbench.pseudo_boxes.folder import MEAN_IOU, PseudoBoxes
from wsolbench.system.files import write_json, write_text

QUALITY = "quality.json"


@dataclass(frozen=True)
class Quality:
    """Best IoU of each pseudo-box with its image's ground truth boxes, and box areas as shares of the image.

    IoU counts extents as x1 - x0 + 1, as everywhere; an area is (x1 - x0)(y1 - y0), x1 being x0 + width.
    """

    images: int
    mean_iou: float
    share_iou_50: float  # images with IoU >= .5
    mean_area: float
    median_area: float
    ground_truth_mean_area: float  # over all ground truth boxes

    def __str__(self) -> str:
        return (
            f"mean IoU {self.mean_iou:.3f}, IoU >= .5 in {self.share_iou_50:.1%} of {self.images} images, mean area "
            f"{self.mean_area:.3f} of the image (median {self.median_area:.3f}; ground truth {self.ground_truth_mean_area:.3f})"
        )


def measure_quality(pseudo: PseudoBoxes, split: Split) -> Quality:
    """Compare pseudo-boxes with the ground truth of `split`, which is read for this report only.

    Raises:
        WsolbenchError: an image has no ground truth boxes.
    """
    best, areas, true_areas = [], [], []
    for id in split.ids:
        truth = split.annotation(id)
        if truth.boxes_N4 is None or not len(truth.boxes_N4):
            raise WsolbenchError(f"no quality can be reported: {id!r} has no ground truth box")
        box_14 = pseudo.boxes[id][None]
        best.append(iou_matrix(box_14, truth.boxes_N4).max())
        areas.append(_areas(box_14, pseudo.sizes_HW[id])[0])
        true_areas.extend(_areas(truth.boxes_N4, truth.size_HW))
    iou_n = np.array(best)
    return Quality(
        images=len(iou_n),
        mean_iou=float(iou_n.mean()),
        share_iou_50=float((iou_n >= 0.5).mean()),
        mean_area=float(np.mean(areas)),
        median_area=float(np.median(areas)),
        ground_truth_mean_area=float(np.mean(true_areas)),
    )


def write_quality(folder: str | Path, quality: Quality) -> None:
    """Leave `quality.json` and, as the released folders have it, `localization_iou.txt` with the mean IoU as a fraction."""
    note = "ground truth boxes of this split were read for this report only, after the pseudo-boxes had been made"
    write_json(Path(folder, QUALITY), asdict(quality) | {"note": note})
    write_text(Path(folder, MEAN_IOU), f"{quality.mean_iou:.6f}")


def _areas(boxes_N4: np.ndarray[tuple[int, ...], np.dtype[np.int64]], size_HW: tuple[int, int]) -> list[float]:
    extents = boxes_N4[:, 2:] - boxes_N4[:, :2]
    shares: list[float] = (extents.prod(1) / (size_HW[0] * size_HW[1])).tolist()
    return shares
