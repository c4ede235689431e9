"""A batch of maps scored: outcomes at every threshold, by the reference, by a convention, against pseudo-boxes."""
# B images of a batch, L = 255 levels, M contour modes, I IoU levels

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from wsolbench.boxes.arrays import Array, check_maps, image_column, to_numpy
from wsolbench.boxes.maps import normalize_maps, otsu_level, quantize
from wsolbench.boxes.scan import scan_maps
from wsolbench.conventions import Convention
from wsolbench.evaluation.by_convention import score_convention
from wsolbench.evaluation.frame import Frame
from wsolbench.evaluation.levels import IOUS, PIXEL_INTERVAL, Levels
from wsolbench.evaluation.localize import Located
from wsolbench.evaluation.parts import Part
from wsolbench.evaluation.resampling import Floats
from wsolbench.metrics.functional import pixel_histograms
from wsolbench.pseudo_boxes.folder import PseudoBoxes
from wsolbench.system.progress import Reporter
from wsolbench.types import Annotation

Boxes: TypeAlias = npt.NDArray[np.int16]


class Scored(NamedTuple):
    """Outcomes of a batch, and the boxes of the largest contour at each level, int16 [B, 255, 4].

    Boxes take ten times the space of outcomes and are wanted at one threshold, which is chosen once all are known: they
    are kept apart, for as long as a run is unfinished. Where the images have no boxes, there are none: [B, 0, 4].
    """

    levels: Levels
    boxes_BL4: Boxes


def score_maps(
    maps_BHW: Array,
    boxes: Sequence[Array] | None,
    labels: Array | Sequence[int],
    ranks: Array | Sequence[int] | None,
    predictions: Array | Sequence[int] | None,
    ids: Sequence[str],
    masks: Array | None = None,
    threads: int = 1,
) -> Levels:
    """Score a batch: everything that is stored of its images; arguments as in `score_with_boxes`."""
    return score_with_boxes(maps_BHW, boxes, labels, ranks, predictions, ids, masks, threads).levels


def score_with_boxes(
    maps_BHW: Array,
    boxes: Sequence[Array] | None,
    labels: Array | Sequence[int],
    ranks: Array | Sequence[int] | None,
    predictions: Array | Sequence[int] | None,
    ids: Sequence[str],
    masks: Array | None = None,
    threads: int = 1,
) -> Scored:
    """Score a batch.

    Args:
        maps_BHW: float64 score maps in [0, 1] (`wsolbench.boxes.normalize_maps`).
        boxes: per image its integer boxes [N, 4], in the frame of the maps; None where the data set has masks only.
        labels: class per image.
        ranks: rank of the label per image (`wsolbench.metrics.label_rank`); None without a classifier.
        predictions: predicted class per image; None without a classifier.
        ids: image ids.
        masks: [B, H, W] of 1 object, 0 background, 255 ignored, for PxAP; None without masks.
        threads: how many images are worked on at a time.
    """
    maps = check_maps(maps_BHW)
    if len(ids) != len(maps):
        raise ValueError(f"expected {len(maps)} ids, got {len(ids)}")
    if boxes is None:
        q_BHW, packed, boxes_BL4 = quantize(maps), None, np.zeros((len(maps), 0, 4), np.int16)
        qmax_B = q_BHW.max(axis=(1, 2))
    else:
        iou_MBL, boxes_BL4, q_BHW, qmax_B = scan_maps(maps, boxes, "both", threads)
        packed = _packed(iou_MBL)
    pixels = (None, None) if masks is None else pixel_histograms(maps, to_numpy(masks), PIXEL_INTERVAL)
    levels = Levels(
        np.array(list(ids), np.str_),
        image_column(labels, len(maps), "labels"),
        image_column(ranks, len(maps), "ranks"),
        image_column(predictions, len(maps), "predictions"),
        qmax_B,
        np.array([otsu_level(q_HW) for q_HW in q_BHW], np.uint8),
        packed,
        *pixels,
    )
    return Scored(levels, boxes_BL4)


def hits_packed(maps_BHW: Array, boxes: Sequence[Array], threads: int = 1) -> npt.NDArray[np.uint8]:
    """Score a batch against other boxes: `Levels.packed` alone, uint8 [B, 2, 3, 32]; arguments as in `score_with_boxes`."""
    return _packed(scan_maps(check_maps(maps_BHW), boxes, "both", threads)[0])


def _packed(iou_MBL: Floats) -> npt.NDArray[np.uint8]:
    correct_MBIL = iou_MBL[:, :, None] >= np.array(IOUS)[:, None]
    return np.packbits(np.moveaxis(correct_MBIL, 0, 1), axis=-1)


def prepare_scoring(reporter: Reporter) -> None:
    """Compile the box engine where that has not been done, and say so: without a word it would look like a hang."""
    from wsolbench.boxes.onepass import compile_now

    with reporter.bar("compile the box engine", 1):
        seconds = compile_now()
    if seconds > 2:
        reporter.message(f"compiled the box engine in {seconds:.0f} s, once per installation")


def score_annotated(
    maps_BHW: npt.NDArray[np.float64],
    annotations: Sequence[Annotation],
    geometry: Frame,
    labels_B: Array | Sequence[int],
    ranks_B: Array | Sequence[int] | None = None,
    predictions_B: Array | Sequence[int] | None = None,
) -> Scored:
    """Score a batch of score maps in the evaluation frame; the rest as in `wsolbench.evaluation.scoring.score_with_boxes`."""
    return score_with_boxes(
        maps_BHW,
        [geometry.boxes(annotation) for annotation in annotations] if geometry.has_boxes else None,
        labels_B,
        ranks_B,
        predictions_B,
        [annotation.id for annotation in annotations],
        np.stack([geometry.mask(annotation) for annotation in annotations]) if geometry.has_masks else None,
    )


@dataclass(frozen=True)
class Scoring:
    """What is made of a split's maps: the reference's outcomes, a convention's, or both."""

    frame: Frame
    reference: bool = True
    convention: Convention | None = None  # its image content must be that of the split
    thresholds: tuple[float, ...] = ()  # of the convention
    pseudo: PseudoBoxes | None = None  # boxes of the split's images that the maps are scored against too


@dataclass(frozen=True)
class ScoredPart:
    """What is kept of a batch."""

    part: Part
    seconds: float  # that `localize` took


def score(
    ids: Sequence[str],
    labels_B: Tensor,
    located: Located,
    read: Callable[[], list[Annotation]],
    scoring: Scoring,
) -> ScoredPart:
    """Work of a scorer's thread; it holds no images."""
    from wsolbench.metrics import label_rank

    annotations = read()
    seconds, prediction = located.wait(), located.prediction
    frame, convention = scoring.frame, scoring.convention
    ranks: Tensor | None = None
    predictions: Tensor | None = None
    if prediction.logits_BK is not None:
        ranks = label_rank(prediction.logits_BK, labels_B)
        predictions = prediction.logits_BK.argmax(1)
    levels: Levels | None = None
    arrays: dict[str, npt.NDArray[Any]] = {}
    scores_BHW = None
    if scoring.reference or (convention is not None and convention.box_rule_only):
        scores_BHW = normalize_maps(prediction.maps_Bhw, frame.resolution_HW)
    if scoring.reference and scores_BHW is not None:
        scored = score_annotated(scores_BHW, annotations, frame, labels_B, ranks, predictions)
        levels, arrays["boxes"] = scored.levels, scored.boxes_BL4
    if scoring.pseudo is not None and scores_BHW is not None:
        truth = [frame.boxes(scoring.pseudo.annotation(id)) for id in ids]
        arrays["pseudo_packed"] = hits_packed(scores_BHW, truth)
    if convention is not None:
        found = score_convention(
            convention,
            prediction.maps_Bhw.numpy() if scores_BHW is None or not convention.box_rule_only else scores_BHW,
            annotations,
            labels_B,
            ranks,
            ids,
            frame.resolution_HW,
            thresholds=scoring.thresholds,
        )
        arrays |= found.arrays()
    return ScoredPart(Part(arrays, levels), seconds)
