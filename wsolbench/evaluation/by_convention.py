"""Many maps scored by a paper's convention: outcomes that add up over batches, and the numbers its code would have printed.

The `reference` convention is the engine of `wsolbench.boxes`, at every threshold and for every contour; asking for it
here is a programming error.
"""
# n images, B images of a batch, N boxes of an image, T thresholds, H W evaluation frame, h w raw map

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from wsolbench.boxes.arrays import Array, Bools, Floats, image_column, to_numpy
from wsolbench.boxes.by_convention import COMPARE, best_iou, boxes_of_map, truth_boxes
from wsolbench.boxes.maps import normalize
from wsolbench.conventions import Convention
from wsolbench.errors import UsageError
from wsolbench.types import Annotation

if TYPE_CHECKING:  # scoring needs no torch
    from wsolbench.data.split import Split
    from wsolbench.evaluation.parts import Parts


@dataclass(frozen=True, eq=False)
class ConventionOutcomes:
    """What a convention makes of n images, in order: about 30 bytes an image and threshold."""

    convention: Convention
    thresholds: tuple[float, ...]  # T
    ids: npt.NDArray[np.str_]  # [n]
    labels: npt.NDArray[np.int32]  # [n]
    ranks: npt.NDArray[np.int32]  # [n] classes before the label; -1: no class scores
    boxes: npt.NDArray[np.int32]  # [n, T, 4] in the convention's frame
    iou: Floats  # [n, T] best IoU with any of the image's boxes

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """Join batches or shards of one split, scored by one convention at the same thresholds."""
        if not parts:
            raise ValueError("expected at least one part, got none")
        if any((part.convention, part.thresholds) != (parts[0].convention, parts[0].thresholds) for part in parts):
            raise ValueError("expected parts of one convention and the same thresholds")
        columns = ("ids", "labels", "ranks", "boxes", "iou")
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in columns}
        return cls(parts[0].convention, parts[0].thresholds, **joined)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The columns that a split does not tell, by the names under which an unfinished evaluation keeps them."""
        return {"convention_boxes": self.boxes, "convention_iou": self.iou, "convention_ranks": self.ranks}

    @classmethod
    def of_parts(cls, convention: Convention, thresholds: Sequence[float], split: Split, parts: Parts) -> Self:
        """The outcomes of a split from the `arrays` of its parts, once everything is flushed."""
        return cls(
            convention,
            tuple(thresholds),
            np.array(split.ids, np.str_),
            split.labels.astype(np.int32),
            parts.all("convention_ranks"),
            parts.all("convention_boxes"),
            parts.all("convention_iou"),
        )

    @property
    def has_classes(self) -> bool:
        """Class scores were given."""
        return bool((self.ranks >= 0).all())

    def hits(self, iou: float = 0.5, top_k: int | None = None) -> Bools:
        """Say which images are correct at each threshold: bool [n, T]; with `top_k` the class must be right too."""
        if top_k is None:
            return np.asarray(COMPARE[self.convention.gt_known](self.iou, iou))
        if not self.has_classes:
            raise UsageError("no class scores were given: Top-k Loc needs logits")
        found = np.asarray(COMPARE[self.convention.top_k](self.iou, iou))
        return found & (self.ranks < top_k)[:, None]

    def accuracy(self, iou: float = 0.5, top_k: int | None = None) -> Floats:
        """Return the accuracy at each threshold, averaged the convention's way: float64 [T] in [0, 1]."""
        hits = self.hits(iou, top_k)
        if not len(hits):
            raise ValueError("expected at least one image, got none")
        if self.convention.averaging == "images":
            return np.asarray(hits.sum(0) / len(hits), np.float64)
        per_class = [hits[self.labels == label].mean(axis=0) for label in np.unique(self.labels)]
        return np.asarray(np.mean(per_class, axis=0), np.float64)

    def chosen(self) -> int:
        """Index of the threshold whose numbers are printed.

        Where the code maximises GT-known + Top-1 Loc but there are no class scores, GT-known Loc alone decides.
        """
        if self.convention.selection != "GT-known + Top-1":
            return 0
        # in percent, as the code adds them: equal sums may round differently, and then the first is not the winner
        total = 100.0 * self.hits().sum(0) / len(self)
        if self.has_classes:
            total = total + 100.0 * self.hits(top_k=1).sum(0) / len(self)
        return int(total.argmax())


def score_convention(
    convention: Convention,
    maps: Sequence[Array] | Array,
    annotations: Sequence[Annotation],
    labels: Array | Sequence[int],
    ranks: Array | Sequence[int] | None,
    ids: Sequence[str],
    resolution_HW: tuple[int, int],
    dataset: str = "",
    *,
    thresholds: Sequence[float] | None = None,
    backbone: str = "-",
) -> ConventionOutcomes:
    """Score a batch of B images.

    Args:
        convention: any but the reference.
        maps: raw maps [h, w] of the true class; for "... (box rule only)" score maps [H, W] in [0, 1]
            (`wsolbench.boxes.normalize_maps`).
        annotations: boxes and sizes, in original pixels.
        labels: class per image.
        ranks: rank of the label per image (`wsolbench.metrics.label_rank`); None without class scores.
        ids: image ids.
        resolution_HW: the evaluation frame.
        dataset: decides the thresholds.
        thresholds: instead of the convention's own.
        backbone: some codes have other thresholds for some backbones.

    Raises:
        UsageError: several thresholds for a convention that does not choose, or one outside [0, 1).
        WsolbenchError: an image has no boxes.

    >>> from wsolbench.conventions import get_convention
    >>> raw = np.zeros((14, 14)); raw[4:10, 5:10] = 1
    >>> truth = Annotation("a", (256, 256), np.array([[100, 70, 170, 180]]))
    >>> out = score_convention(get_convention("sat"), [raw], [truth], [3], [0], ["a"], (224, 224))
    >>> out.thresholds, out.accuracy().tolist()
    ((0.3, 0.35, 0.4, 0.45), [1.0, 1.0, 1.0, 1.0])
    """
    if convention.name == "reference":
        raise ValueError("the reference convention is scored by wsolbench.evaluation.scoring.score_maps")
    count = len(maps)
    if not count == len(annotations) == len(ids):
        raise ValueError(f"expected {count} annotations and ids, got {len(annotations)} and {len(ids)}")
    own = convention.thresholds_for(dataset, backbone) if thresholds is None else tuple(map(float, thresholds))
    _check_thresholds(convention, own)
    boxes, iou = _boxes_and_iou(convention, maps, annotations, resolution_HW, own)
    return ConventionOutcomes(
        convention,
        own,
        np.array(list(ids), np.str_),
        image_column(labels, count, "labels"),
        image_column(ranks, count, "ranks"),
        boxes,
        iou,
    )


def _boxes_and_iou(
    convention: Convention,
    maps: Sequence[Array] | Array,
    annotations: Sequence[Annotation],
    resolution_HW: tuple[int, int],
    thresholds: Sequence[float],
) -> tuple[npt.NDArray[np.int32], Floats]:
    """The box of each map at each threshold, int32 [n, T, 4], and its best IoU with a true one [n, T]."""
    boxes = np.empty((len(maps), len(thresholds), 4), np.int32)
    iou = np.empty((len(maps), len(thresholds)))
    for index, (one, annotation) in enumerate(zip(maps, annotations, strict=True)):
        values = (
            _score_map(one, resolution_HW) if convention.box_rule_only else normalize(convention, one, resolution_HW)
        )
        boxes[index] = boxes_of_map(convention, values, thresholds)
        truth_N4 = truth_boxes(convention, annotation, resolution_HW)
        iou[index] = best_iou(boxes[index], truth_N4, convention.extent)
    return boxes, iou


def _check_thresholds(convention: Convention, thresholds: Sequence[float]) -> None:
    if not thresholds or not all(0 <= threshold < 1 for threshold in thresholds):
        raise UsageError(f"expected thresholds in [0, 1), got {list(thresholds)}")
    if convention.selection == "fixed" and len(thresholds) > 1:
        raise UsageError(
            f"convention '{convention.name}' has one fixed threshold and chooses none: got {len(thresholds)}, give one"
        )


def _score_map(map_HW: Array, resolution_HW: tuple[int, int]) -> npt.NDArray[Any]:
    values = to_numpy(map_HW)
    if values.shape != resolution_HW:
        raise ValueError(f"expected a score map of {resolution_HW[0]}x{resolution_HW[1]}, got {list(values.shape)}")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("expected score maps in [0, 1]: use wsolbench.boxes.normalize_maps")
    return values
