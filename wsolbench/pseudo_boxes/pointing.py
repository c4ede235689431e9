"""From proposals to one box: a classifier trained on labels only points at the image's class and rates crops.

THE FILTER IS WSOLBENCH'S OWN CHOICE. The realistic protocol (Murtaza et al., WACV 2025, https://arxiv.org/abs/2404.10034)
says that a "pointing game" selects the most discriminative proposal; how, and the code that did it, is not public. Ours:

1. The classifier's map of the image's true class is brought to the evaluation frame; proposals that do not contain its maximum
   are dropped. A map that points nowhere (constant), or at nothing that was proposed, drops none.
2. What each remaining box holds is cut out of the network's image, resized bilinearly to the input size and classified. The
   highest probability of the true class wins (to four decimals, so that rounding does not decide), of equal ones the smaller
   box, then the one proposed first.
"""
# C channels, H W frame, h w map, K classes, M boxes

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from wsolbench.boxes.maps import normalize_maps
from wsolbench.errors import UsageError
from wsolbench.method.base import Method, evaluating
from wsolbench.pseudo_boxes.proposals import Boxes
from wsolbench.types import Prediction, Sample

CROPS = 64  # crops classified at a time
DECIMALS = 4  # of a probability that count


@dataclass(frozen=True)
class Choice:
    """The box (x0, y0, x1, y1) that was chosen, and how."""

    box: tuple[int, int, int, int]
    score: float  # probability of the true class for what the box holds
    rated: int  # boxes that were cropped
    pointed: bool  # whether a box contained the map's maximum


class Pointing:
    """Chooses one of an image's proposals; see the module's text for the rule, which is ours."""

    rule: ClassVar[str] = (
        "wsolbench's own choice (the paper's filter is not public): boxes without the maximum of the true class's map are "
        "dropped; of the others, the crop with the highest probability of the true class wins, then the smaller box"
    )

    def __init__(self, method: Method, device: torch.device, limit: int) -> None:
        """`limit`: so many boxes of an image are rated at most; which, is drawn from the generator given to `choose`."""
        self.method, self.device, self.limit = method.to(device), device, limit

    def choose(
        self, sample: Sample, boxes_M4: Boxes, size_HW: tuple[int, int], random: np.random.RandomState
    ) -> Choice:
        """One of the boxes, which are in the pixels of an image of `size_HW`, all of which `sample` shows.

        Raises:
            UsageError: the method has no classifier.
        """
        image_CHW = sample.image_CHW.to(self.device)
        frame_HW = (image_CHW.shape[1], image_CHW.shape[2])
        inside = np.zeros(len(boxes_M4), bool)
        peak = self._peak(image_CHW, sample.label, frame_HW)
        if peak is not None:
            y, x = (int((at + 0.5) * size / frame) for at, size, frame in zip(peak, size_HW, frame_HW, strict=True))
            x0, y0, x1, y1 = boxes_M4.T
            inside = (x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)
        kept = boxes_M4[inside] if inside.any() else boxes_M4
        if len(kept) > self.limit:
            kept = kept[np.sort(random.permutation(len(kept))[: self.limit])]
        scores = self._rate(image_CHW, sample.label, kept, size_HW)
        areas = (kept[:, 2:] - kept[:, :2]).prod(1)
        best = int(np.lexsort((np.arange(len(kept)), areas, -scores.round(DECIMALS)))[0])
        x0, y0, x1, y1 = kept[best].tolist()
        return Choice((x0, y0, x1, y1), float(scores[best]), len(kept), bool(inside.any()))

    def _peak(self, image_CHW: Tensor, label: int, frame_HW: tuple[int, int]) -> tuple[int, int] | None:
        """Row and column of the first maximum of the true class's map in the evaluation frame; None: it is constant."""
        prediction = self._localize(image_CHW[None], [label])
        scores_HW = normalize_maps(prediction.maps_Bhw.detach().float(), frame_HW)[0]
        if scores_HW.max() == 0:
            return None
        y, x = np.unravel_index(int(scores_HW.argmax()), scores_HW.shape)
        return int(y), int(x)

    def _rate(
        self, image_CHW: Tensor, label: int, boxes_M4: Boxes, size_HW: tuple[int, int]
    ) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """Probability of the class for each box [M]."""
        _, height, width = image_CHW.shape
        scale = torch.tensor([width / size_HW[1], height / size_HW[0]] * 2)
        corners_M4 = (torch.from_numpy(boxes_M4).float() * scale).to(self.device)
        scores = []
        for part_M4 in torch.split(corners_M4, CROPS):
            with torch.inference_mode():
                crops = roi_align(image_CHW[None], [part_M4], (height, width), aligned=True)
            logits_BK = self._logits(crops, [label] * len(part_M4))
            scores.append(logits_BK.detach().float().softmax(1)[:, label].cpu())
        return torch.cat(scores).numpy()

    def _logits(self, images_BCHW: Tensor, labels: Sequence[int]) -> Tensor:
        classifier = getattr(self.method, "classifier", None)
        if isinstance(classifier, nn.Module):  # a post-hoc method: its classifier alone is quicker than its maps
            with torch.inference_mode(), evaluating(classifier):
                logits_BK: Tensor = classifier(images_BCHW)
            return logits_BK
        answer = self._localize(images_BCHW, labels).logits_BK
        if answer is None:
            raise UsageError(
                f"{type(self.method).__name__} has no classifier, so it cannot point; give --classifier a run of a method "
                "that has one, e.g. cam"
            )
        return answer

    def _localize(self, images_BCHW: Tensor, labels: Sequence[int]) -> Prediction:
        labels_B = torch.tensor(labels, device=self.device)
        if "gradients" in type(self.method).needs:
            return self.method.localize(images_BCHW.clone(), labels_B)  # no inference tensor
        with torch.inference_mode():
            return self.method.localize(images_BCHW, labels_B)
