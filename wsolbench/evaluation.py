"""Maps of a split, scored while the next batch is on its way; parts of an unfinished evaluation outlive the process."""

# B batch, C channels, H W evaluation frame, h w raw map, K classes, N boxes

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from wsolbench.boxes import normalize_maps
from wsolbench.config import EvaluateConfig
from wsolbench.convention_scores import score_convention
from wsolbench.conventions import Convention
from wsolbench.data import Split, eval_batches, stable_seed
from wsolbench.errors import WsolbenchError
from wsolbench.interrupt import Interrupt
from wsolbench.levels import Levels, hits_packed
from wsolbench.method import Method
from wsolbench.outcomes import Geometry, prepare_scoring, score_annotated
from wsolbench.parts import Part, Parts
from wsolbench.progress import Reporter
from wsolbench.protocol import AnnotationReader
from wsolbench.pseudo_boxes import PseudoBoxes
from wsolbench.types import Annotation, Batch, Prediction

QUEUE = 2  # batches that may wait for their scores


@dataclass(frozen=True)
class Scoring:
    """What is made of a split's maps: the reference's outcomes, a convention's, or both."""

    frame: Geometry
    reference: bool = True
    convention: Convention | None = None  # its image content must be that of the split
    dataset: str = ""  # it and the backbone decide the convention's thresholds
    backbone: str = "-"
    pseudo: PseudoBoxes | None = None  # boxes of the split's images that the maps are scored against too


@dataclass
class Evaluated:
    """A split's outcomes. `images_per_second` is that of `localize` alone."""

    parts: Parts
    images_per_second: float | None

    def levels(self) -> Levels:
        """The outcomes of all images."""
        return self.parts.levels()

    def pseudo_levels(self) -> Levels:
        """The outcomes against pseudo-boxes, where the maps were scored against any."""
        return replace(self.parts.levels(), packed=self.parts.all("pseudo_packed"))


def evaluate(
    method: Method,
    name: str,
    split: Split,
    scoring: Scoring,
    config: EvaluateConfig,
    *,
    seed: int,
    device: torch.device,
    reader: AnnotationReader,
    folder: Path,
    reporter: Reporter,
    kept_as: str | None = None,
) -> Evaluated:
    """Localise and score every image of the split called `name`, going on after the parts saved in `folder`.

    The map is that of the true class, as in the reference evaluator. On Ctrl-C, and every `config.save_every` seconds,
    what is finished is saved; batches keep their boundaries, so resuming cannot change a number. `kept_as` names the parts
    of a further pass over the same split.
    """
    prepare_scoring(reporter)
    parts = Parts(folder, kept_as or name, config.save_every)
    done = parts.load()
    method.to(device).eval()
    clock = _Clock()
    pending: deque[Future[Part]] = deque()
    with (
        ThreadPoolExecutor(1) as scorer,
        reporter.bar(f"evaluate {kept_as or name}", len(split), done=done) as advance,
        Interrupt() as interrupt,
    ):

        def collect(keep: int) -> None:
            while len(pending) > keep:
                parts.add(pending.popleft().result())

        pin = device.type == "cuda"
        for batch in eval_batches(split, batch_size=config.batch_size, workers=config.workers, skip=done, pin=pin):
            torch.manual_seed(stable_seed("evaluate", seed, name, batch.ids[0]))  # for methods that draw
            prediction, seconds = _localize(method, batch, device)
            clock.add(len(batch.ids), seconds)
            has_truth = scoring.frame.has_boxes or scoring.frame.has_masks
            if has_truth:
                annotations = reader.read(name, split, batch.ids)
            else:
                annotations = [Annotation(id, scoring.frame.resolution_HW) for id in batch.ids]
            pending.append(scorer.submit(_score, batch, prediction, annotations, scoring, config.threads))
            collect(QUEUE)
            advance(len(batch.ids))
            if interrupt.requested or parts.is_due():
                collect(0)
                parts.flush()
            if interrupt.requested:
                raise KeyboardInterrupt
        collect(0)
        parts.flush()
    return Evaluated(parts, clock.rate())


def _localize(method: Method, batch: Batch, device: torch.device) -> tuple[Prediction, float]:
    """The prediction on the CPU, and the seconds it took."""
    moved = batch.to(device)
    started = time.perf_counter()
    if "gradients" in type(method).needs:
        answer = method.localize(moved.images_BCHW, moved.labels_B)
    else:
        with torch.inference_mode():
            answer = method.localize(moved.images_BCHW, moved.labels_B)
    maps = answer.maps_Bhw.detach().float().cpu()  # waits for the device
    seconds = time.perf_counter() - started
    if maps.ndim != 3 or len(maps) != len(batch.ids):
        raise WsolbenchError(
            f"{type(method).__name__}.localize answered maps of shape {list(maps.shape)} for {len(batch.ids)} images; "
            "expected [B, h, w]"
        )
    return Prediction(None if answer.logits_BK is None else answer.logits_BK.detach().cpu(), maps), seconds


def _score(
    batch: Batch, prediction: Prediction, annotations: Sequence[Annotation], scoring: Scoring, threads: int
) -> Part:
    from wsolbench.metrics import label_rank

    frame, convention = scoring.frame, scoring.convention
    ranks: Tensor | None = None
    predictions: Tensor | None = None
    if prediction.logits_BK is not None:
        ranks = label_rank(prediction.logits_BK, batch.labels_B)
        predictions = prediction.logits_BK.argmax(1)
    levels: Levels | None = None
    arrays: dict[str, npt.NDArray[Any]] = {}
    scores_BHW = None
    if scoring.reference or (convention is not None and convention.box_rule_only):
        scores_BHW = normalize_maps(prediction.maps_Bhw, frame.resolution_HW)
    if scoring.reference and scores_BHW is not None:
        scored = score_annotated(scores_BHW, annotations, frame, batch.labels_B, ranks, predictions, threads)
        levels, arrays["boxes"] = scored.levels, scored.boxes_BL4
    if scoring.pseudo is not None and scores_BHW is not None:
        truth = [frame.boxes(scoring.pseudo.annotation(id)) for id in batch.ids]
        arrays["pseudo_packed"] = hits_packed(scores_BHW, truth, threads)
    if convention is not None:
        found = score_convention(
            convention,
            prediction.maps_Bhw.numpy() if scores_BHW is None or not convention.box_rule_only else scores_BHW,
            annotations,
            batch.labels_B,
            ranks,
            batch.ids,
            frame.resolution_HW,
            scoring.dataset,
            backbone=scoring.backbone,
        )
        arrays |= found.arrays()
    return Part(arrays, levels)


class _Clock:
    """Images per second; the first batch pays for warming up and is left out where there are others."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, float]] = []

    def add(self, images: int, seconds: float) -> None:
        self.batches.append((images, seconds))

    def rate(self) -> float | None:
        counted = self.batches[1:] or self.batches
        seconds = sum(seconds for _, seconds in counted)
        return sum(images for images, _ in counted) / seconds if seconds else None
