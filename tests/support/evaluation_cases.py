"""Splits of any number of synthetic images in memory, for the scripts that measure whole evaluations."""

# H W image

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from wsolbench.data.split import Split
from wsolbench.types import Annotation, Sample

DISTINCT = 64  # images that are really there; the split repeats them
STORED_HW = (375, 500)  # of the pictures that the boxes belong to
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


class MemorySplit(Split):
    """Pixels uint8 in memory, already of the network's size; normalised when asked for, as a real split does. One box each."""

    def __init__(self, count: int, side: int, classes: int) -> None:
        random = np.random.RandomState(0)
        self.ids = [f"{index:08d}" for index in range(count)]
        self.labels = np.arange(count, dtype=np.int64) % classes
        self._index = {id: index for index, id in enumerate(self.ids)}
        self._pixels_nCHW = torch.from_numpy(random.randint(0, 256, (DISTINCT, 3, side, side), np.uint8))
        corners_n22 = np.sort(random.randint(0, STORED_HW[0], (DISTINCT, 2, 2)), axis=1)
        self._boxes_n14: npt.NDArray[np.int64] = corners_n22.reshape(DISTINCT, 1, 4).astype(np.int64)

    def sample(self, index: int, augment: torch.Generator | None) -> Sample:
        image_CHW = self._pixels_nCHW[index % DISTINCT].float().div_(255).sub_(MEAN).div_(STD)
        return Sample(self.ids[index], image_CHW, int(self.labels[index]))

    def annotation(self, id: str) -> Annotation:
        return Annotation(id, STORED_HW, self._boxes_n14[self._index[id] % DISTINCT])
