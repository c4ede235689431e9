"""Region proposals from segmentations: boxes that may hold an object, found without weights and without labels.

In the spirit of selective search (Uijlings et al., IJCV 2013, https://doi.org/10.1007/s11263-013-0620-5): segmentations at
several scales and in two colour spaces, each merged step by step, the most similar neighbours first, until one region is
left; the box of every region that existed on the way is a proposal. The segmentation (Felzenszwalb and Huttenlocher, IJCV
2004) and the merging are scikit-image's. Colours are compared by their means, not by histograms, and texture not at all.
"""
# H W image, L segments, M boxes

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]  # RGB [H, W, 3]
Boxes = npt.NDArray[np.int64]  # [M, 4]: x0, y0, x1, y1 with x1 = x0 + width, clipped to the last pixel

LONGEST = 224  # pixels of the longer side in which segments are sought: time grows with the number of segments
SCALES = (100.0, 300.0)  # Felzenszwalb's k: larger, fewer segments
SIGMA, MIN_SIZE = 0.8, 20
SMALLEST = 0.01  # share of the image below which a box is left out


class SegmentProposals:
    """The boxes of all regions of the segmentations' hierarchies."""

    name: ClassVar[str] = "segments"
    external: ClassVar[str | None] = None  # models of others that have a part in it

    def __call__(self, image_HW3: Image, label: int) -> Boxes:
        """Boxes [M, 4] of an image in its own pixels, M >= 1, each once; the whole image is one of them.

        >>> image = np.zeros((40, 60, 3), np.uint8)
        >>> image[10:30, 20:45] = 255
        >>> [20, 10, 45, 30] in SegmentProposals()(image, 0).tolist()
        True
        """
        height, width = image_HW3.shape[:2]
        scale = LONGEST / max(height, width)
        small: Image = np.asarray(
            cv2.resize(
                image_HW3,
                (max(1, round(width * scale)), max(1, round(height * scale))),
                interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
            ),
            np.uint8,
        )
        corners = [np.array([[0, 0, small.shape[1], small.shape[0]]])]
        for channels in (small, np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2LAB), np.uint8)):
            for k in SCALES:
                corners += list(_hierarchy(channels, k))
        boxes = np.concatenate(corners) * np.array([width / small.shape[1], height / small.shape[0]] * 2)
        return tidy(boxes, (height, width))


def tidy(boxes_M4: npt.ArrayLike, size_HW: tuple[int, int]) -> Boxes:
    """Boxes with real coordinates as whole pixels inside the image: each once, without those that are too small.

    The order is kept. If nothing is left, the whole image is.

    >>> tidy([[0.2, 0.2, 50.4, 70], [0, 0, 50, 70], [3, 3, 4, 4]], (60, 80)).tolist()
    [[0, 0, 50, 59]]
    """
    height, width = size_HW
    boxes = np.rint(np.asarray(boxes_M4, np.float64).reshape(-1, 4)).astype(np.int64)
    boxes = np.clip(boxes, 0, [width - 1, height - 1] * 2)
    boxes = boxes[(boxes[:, 2:] - boxes[:, :2]).prod(1) >= SMALLEST * width * height]
    _, first = np.unique(boxes, axis=0, return_index=True)
    return boxes[np.sort(first)] if len(boxes) else np.array([[0, 0, width - 1, height - 1]], np.int64)


def _hierarchy(image_HW3: Image, k: float) -> Iterator[npt.NDArray[np.int64]]:
    """Corners [M, 4] of the segments, and of what they are merged to under each of the ways to compare neighbours."""
    from skimage import graph as graphs
    from skimage.segmentation import felzenszwalb

    merge_hierarchical: Any = graphs.merge_hierarchical  # untyped
    segments_HW = felzenszwalb(image_HW3, scale=k, sigma=SIGMA, min_size=MIN_SIZE)
    for colour_weight in (1.0, 0.0):
        regions = _Regions(image_HW3, segments_HW, colour_weight)
        graph = regions.graph(segments_HW)
        yield regions.corners_L4.copy()
        merge_hierarchical(segments_HW, graph, math.inf, False, True, regions.merge, regions.weigh)
        if regions.merged:
            yield np.array(regions.merged)


class _Regions:
    """Regions of one segmentation by the number of a segment in them, and how unlike two neighbours are."""

    def __init__(self, image_HW3: Image, segments_HW: npt.NDArray[np.int64], colour_weight: float) -> None:
        count = int(segments_HW.max()) + 1
        flat = segments_HW.ravel()
        self.sizes = np.bincount(flat, minlength=count).astype(np.float64).tolist()
        sums = [np.bincount(flat, image_HW3[..., channel].ravel(), count) for channel in range(3)]
        self.colours = (np.stack(sums, 1) / np.array(self.sizes)[:, None]).tolist()
        self.corners_L4 = _corners(segments_HW, count)
        self.corners = self.corners_L4.tolist()
        self.pixels, self.colour_weight = float(flat.size), colour_weight
        self.merged: list[list[int]] = []

    def graph(self, segments_HW: npt.NDArray[np.int64]) -> Any:
        """Which segments touch, with their weights."""
        from skimage import graph as graphs

        right = np.stack([segments_HW[:, :-1].ravel(), segments_HW[:, 1:].ravel()], 1)
        below = np.stack([segments_HW[:-1].ravel(), segments_HW[1:].ravel()], 1)
        pairs = np.concatenate([right, below])
        pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)
        make: Any = graphs.RAG  # untyped
        graph: Any = make()
        for label in range(len(self.sizes)):
            graph.add_node(label, labels=[label])
        for a, b in pairs.tolist():
            graph.add_edge(a, b, weight=self.unlike(a, b))
        return graph

    def unlike(self, a: int, b: int) -> float:
        """Difference of mean colours, joint size, and the gaps that their joint box would have; each in [0, 1]."""
        colour = math.dist(self.colours[a], self.colours[b]) / (255 * math.sqrt(3))
        size = self.sizes[a] + self.sizes[b]
        x0, y0, x1, y1 = self._joint(a, b)
        gaps = (x1 - x0) * (y1 - y0) - size
        value: float = self.colour_weight * colour + (size + gaps) / self.pixels
        return value

    def merge(self, graph: Any, source: int, target: int) -> None:
        """`target` takes `source` in; called by scikit-image before it merges the nodes."""
        corners = self._joint(source, target)
        self.merged.append(corners)
        a, b = self.sizes[source], self.sizes[target]
        pairs = zip(self.colours[source], self.colours[target], strict=True)
        self.colours[target] = [(a * x + b * y) / (a + b) for x, y in pairs]
        self.sizes[target] = a + b
        self.corners[target] = corners

    def weigh(self, graph: Any, source: int, target: int, neighbour: int) -> dict[str, float]:
        """The weight of the edge from what `target` has become to a neighbour."""
        return {"weight": self.unlike(target, neighbour)}

    def _joint(self, a: int, b: int) -> list[int]:
        (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = self.corners[a], self.corners[b]
        return [min(ax0, bx0), min(ay0, by0), max(ax1, bx1), max(ay1, by1)]


def _corners(segments_HW: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """The box [L, 4] of each segment, x1 = x0 + width."""
    y, x = np.indices(segments_HW.shape)
    corners = np.empty((count, 4), np.int64)
    for column, (values, reduce, start) in enumerate(
        ((x, np.minimum, x.size), (y, np.minimum, x.size), (x + 1, np.maximum, 0), (y + 1, np.maximum, 0))
    ):
        corners[:, column] = start
        reduce.at(corners[:, column], segments_HW.ravel(), values.ravel())
    return corners
