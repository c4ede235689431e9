"""Maps of a split, scored while the next batches are worked on; parts of an unfinished evaluation outlive the process."""

# B batch, C channels, H W evaluation frame, h w raw map, K classes, N boxes

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from wsolbench.boxes.maps import normalize_maps
from wsolbench.config.schema import EvaluateConfig
from wsolbench.conventions import Convention
from wsolbench.data.loading import eval_batches
from wsolbench.data.split import Split
from wsolbench.distributed import group as dist
from wsolbench.errors import WsolbenchError
from wsolbench.evaluation.by_convention import score_convention
from wsolbench.evaluation.levels import Levels, hits_packed
from wsolbench.evaluation.parts import Part, Parts
from wsolbench.evaluation.per_image import Geometry, prepare_scoring, score_annotated
from wsolbench.method.base import Method
from wsolbench.method.numerics import Numerics
from wsolbench.protocols.needs import AnnotationReader
from wsolbench.pseudo_boxes.folder import PseudoBoxes
from wsolbench.system.hashing import stable_seed
from wsolbench.system.interrupt import Interrupt
from wsolbench.system.progress import Reporter
from wsolbench.types import Annotation, Batch, Prediction

QUEUE = 2  # batches that may wait for their scores, beside those that are being scored


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
    numerics = Numerics.of(config)
    with dist.turn():
        done = dist.from_main(parts.load)
        method.to(device).eval()
        dist.share_weights(method)
    clock = _Clock()
    pending: deque[Future[_Scored]] = deque()
    with (
        numerics.applied(method),
        ThreadPoolExecutor(config.threads) as scorers,
        reporter.bar(f"evaluate {kept_as or name}", len(split), done=done) as advance,
        Interrupt() as interrupt,
    ):

        def collect(keep: int) -> None:
            while len(pending) > keep:
                scored = pending.popleft().result()
                parts.add(scored.part)
                clock.add(len(scored.part), scored.seconds)

        def save() -> None:
            with dist.turn():
                collect(0)
            with dist.turn():
                _bring_home(parts)
                parts.flush()

        batches = eval_batches(
            split,
            batch_size=config.batch_size,
            workers=config.workers,
            skip=done,
            pin=device.type == "cuda",
            share=(dist.rank(), dist.world()),
        )
        at_once = config.batch_size * dist.world()  # each process has a batch, but for the last ones
        for first in range(done, len(split), at_once):
            with dist.turn() as each:
                if (batch := next(batches, None)) is not None:
                    torch.manual_seed(stable_seed("evaluate", seed, name, batch.ids[0]))  # for methods that draw
                    located = _localize(method, batch, numerics, device)
                    read = partial(_annotations, name, split, batch.ids, scoring.frame, reader)
                    pending.append(scorers.submit(_score, batch.ids, batch.labels_B, located, read, scoring))
                    collect(config.threads + QUEUE - 1)
                each.ask(interrupt.requested, parts.is_due())
            advance(min(at_once, len(split) - first))
            stops, is_due, _ = each.answers
            if stops or is_due:
                save()
            if stops:
                raise dist.agreed(interrupt.stopped())
        save()
    rates = [rate for rate in dist.gather(clock.rate()) if rate is not None]
    return Evaluated(parts, sum(rates) if rates else None)


def _bring_home(parts: Parts) -> None:
    """Give the leader what the other processes have finished, in the order of the images: each has every n-th batch."""
    if dist.world() > 1:
        for batch in zip_longest(*dist.gather(parts.take())):
            for part in batch:
                if part is not None:
                    parts.add(part)


# --- a batch ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Located:
    """A prediction on its way to the CPU: it is there once `wait` has returned, which says how long it took."""

    prediction: Prediction
    started: _Moment
    done: _Moment

    def wait(self) -> float:
        """Seconds from the beginning of the forward pass to the maps on the CPU."""
        return self.done.seconds_since(self.started)


def _localize(method: Method, batch: Batch, numerics: Numerics, device: torch.device) -> _Located:
    """Begin the prediction of a batch; on a GPU nothing here waits for it."""
    moved = batch.to(device)
    started = _Moment(device)
    with numerics.running(device), nullcontext() if "gradients" in type(method).needs else torch.inference_mode():
        answer = method.localize(moved.images_BCHW, moved.labels_B)
    maps, logits = answer.maps_Bhw, answer.logits_BK
    if maps.ndim != 3 or len(maps) != len(batch.ids):
        raise WsolbenchError(
            f"{type(method).__name__}.localize answered maps of shape {list(maps.shape)} for {len(batch.ids)} images; "
            "expected [B, h, w]"
        )
    sent = Prediction(None if logits is None else _send(logits), _send(maps))
    return _Located(sent, started, _Moment(device))


def _send(values: Tensor) -> Tensor:
    """Start copying to the CPU; from a GPU into page-locked memory, where values are once its work so far is done."""
    return values.detach().float().to("cpu", non_blocking=True)


class _Moment:
    """A point in a device's work."""

    def __init__(self, device: torch.device) -> None:
        self._event: torch.cuda.Event | None = None
        self._time = time.perf_counter()
        if device.type == "cuda":
            self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            self._event.record()

    def seconds_since(self, before: _Moment) -> float:
        """How long the work in between took; waits until it is done."""
        if self._event is None or before._event is None:
            return self._time - before._time
        self._event.synchronize()
        return float(before._event.elapsed_time(self._event)) / 1000


def _annotations(
    name: str, split: Split, ids: Sequence[str], frame: Geometry, reader: AnnotationReader
) -> list[Annotation]:
    if frame.has_boxes or frame.has_masks:
        return reader.read(name, split, ids)
    return [Annotation(id, frame.resolution_HW) for id in ids]


@dataclass(frozen=True)
class _Scored:
    part: Part
    seconds: float  # that `localize` took


def _score(
    ids: Sequence[str],
    labels_B: Tensor,
    located: _Located,
    read: Callable[[], list[Annotation]],
    scoring: Scoring,
) -> _Scored:
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
            scoring.dataset,
            backbone=scoring.backbone,
        )
        arrays |= found.arrays()
    return _Scored(Part(arrays, levels), seconds)


class _Clock:
    """Images per second; the first batch pays for warming up and is left out where there are others."""

    def __init__(self) -> None:
        self.first: tuple[int, float] | None = None
        self.images, self.seconds = 0, 0.0  # of the others

    def add(self, images: int, seconds: float) -> None:
        if self.first is None:
            self.first = images, seconds
        else:
            self.images, self.seconds = self.images + images, self.seconds + seconds

    def rate(self) -> float | None:
        images, seconds = (self.images, self.seconds) if self.images else self.first or (0, 0.0)
        return images / seconds if seconds else None
