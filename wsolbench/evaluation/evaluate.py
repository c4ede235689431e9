"""Maps of a split, scored while the next batches are worked on; parts of an unfinished evaluation outlive the process."""

# B batch, C channels, H W evaluation frame, h w raw map, K classes, N boxes

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path

import torch

from wsolbench import distributed
from wsolbench.config.schema import EvaluateConfig
from wsolbench.data.annotations import AnnotationReader
from wsolbench.data.loading import eval_batches
from wsolbench.data.split import Split
from wsolbench.evaluation.frame import Frame
from wsolbench.evaluation.levels import Levels
from wsolbench.evaluation.localize import Located, localize
from wsolbench.evaluation.parts import Parts
from wsolbench.evaluation.scoring import ScoredPart, Scoring, prepare_scoring, score
from wsolbench.method.base import Method
from wsolbench.method.numerics import Numerics
from wsolbench.system.hashing import stable_seed
from wsolbench.system.interrupt import Interrupt
from wsolbench.system.progress import Reporter
from wsolbench.types import Annotation, Batch

QUEUE = 2  # batches that may wait for their scores, beside those that are being scored


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
    with distributed.turn():
        done = distributed.from_main(parts.load)
        method.to(device).eval()
        distributed.share_weights(method)
    with (
        numerics.applied(method),
        ThreadPoolExecutor(config.threads) as pool,
        reporter.bar(f"evaluate {kept_as or name}", len(split), done=done) as advance,
        Interrupt() as interrupt,
    ):
        scorers = _Scorers(pool, parts, scoring, config.threads + QUEUE - 1)
        batches = eval_batches(
            split,
            batch_size=config.batch_size,
            workers=config.workers,
            skip=done,
            pin=device.type == "cuda",
            share=(distributed.rank(), distributed.world()),
        )
        at_once = config.batch_size * distributed.world()  # each process has a batch, but for the last ones
        for first in range(done, len(split), at_once):
            with distributed.turn() as each:
                if (batch := next(batches, None)) is not None:
                    torch.manual_seed(stable_seed("evaluate", seed, name, batch.ids[0]))  # for methods that draw
                    located = localize(method, batch, numerics, device)
                    read = partial(_annotations, name, split, batch.ids, scoring.frame, reader)
                    scorers.submit(batch, located, read)
                each.ask(interrupt.requested, parts.is_due())
            advance(min(at_once, len(split) - first))
            stops, is_due, _ = each.answers
            if stops or is_due:
                scorers.save()
            if stops:
                raise distributed.agreed(interrupt.stopped())
        scorers.save()
    rates = [rate for rate in distributed.gather(scorers.clock.rate()) if rate is not None]
    return Evaluated(parts, sum(rates) if rates else None)


class _Scorers:
    """Scores batches in threads, beside the next forward passes; at most `most` of them wait."""

    def __init__(self, pool: ThreadPoolExecutor, parts: Parts, scoring: Scoring, most: int) -> None:
        self.pool, self.parts, self.scoring, self.most = pool, parts, scoring, most
        self.clock = _Clock()
        self._pending: deque[Future[ScoredPart]] = deque()

    def submit(self, batch: Batch, located: Located, read: Callable[[], list[Annotation]]) -> None:
        """Have a batch scored once its maps are there, and take in what has been scored before it."""
        self._pending.append(self.pool.submit(score, batch.ids, batch.labels_B, located, read, self.scoring))
        self._collect(self.most)

    def save(self) -> None:
        """Wait for all of it, bring it to the leader, and write it."""
        with distributed.turn():
            self._collect(0)
        with distributed.turn():
            _bring_home(self.parts)
            self.parts.flush()

    def _collect(self, keep: int) -> None:
        while len(self._pending) > keep:
            scored = self._pending.popleft().result()
            self.parts.add(scored.part)
            self.clock.add(len(scored.part), scored.seconds)


def _bring_home(parts: Parts) -> None:
    """Give the leader what the other processes have finished, in the order of the images: each has every n-th batch."""
    if distributed.world() > 1:
        for batch in zip_longest(*distributed.gather(parts.take())):
            for part in batch:
                if part is not None:
                    parts.add(part)


def _annotations(
    name: str, split: Split, ids: Sequence[str], frame: Frame, reader: AnnotationReader
) -> list[Annotation]:
    if frame.has_boxes or frame.has_masks:
        return reader.read(name, split, ids)
    return [Annotation(id, frame.resolution_HW) for id in ids]


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
