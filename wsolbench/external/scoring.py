"""A split's map files, scored as they are read: a few threads each read and score some images, none holds more than those."""
# n images of a split, B images of a chunk, H W evaluation frame, h w raw map

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wsolbench.boxes.maps import normalize_maps
from wsolbench.conventions import Convention
from wsolbench.data.annotations import AnnotationReader
from wsolbench.data.split import Split
from wsolbench.evaluation.by_convention import score_convention
from wsolbench.evaluation.frame import Frame
from wsolbench.evaluation.parts import Arrays, Part, Parts
from wsolbench.evaluation.scoring import prepare_scoring, score_annotated
from wsolbench.external.logit_files import ClassOutcomes
from wsolbench.external.map_files import MapFiles, MapKind, check_raw_map, check_score_map
from wsolbench.system.interrupt import Interrupt
from wsolbench.system.progress import Reporter

CHUNK = 32  # images a thread reads and scores at a time


@dataclass(frozen=True)
class MapScorer:
    """Everything it takes to score the maps of one split."""

    name: str  # of the split
    split: Split
    files: MapFiles
    kind: MapKind
    frame: Frame
    classes: ClassOutcomes | None
    reader: AnnotationReader
    convention: Convention | None = None  # scored in addition to the reference
    geometry: str = "resize"  # what image content the maps show; reference scores need the whole image
    thresholds: tuple[float, ...] = ()  # of the convention

    def run(self, parts: Parts, reporter: Reporter) -> int:
        """Score every image that is not in `parts` already; returns how many those were.

        Whatever stops it, a map that is refused or Ctrl-C, what was finished before is saved first.
        """
        prepare_scoring(reporter)
        done, total, threads = parts.load(self._is_current), len(self.split), _threads()
        waiting: deque[Future[Part]] = deque()
        with (
            ThreadPoolExecutor(threads) as pool,
            reporter.bar(f"evaluate {self.name}", total, done=done, unit="maps") as advance,
            Interrupt() as interrupt,
        ):

            def collect(keep: int) -> None:
                while len(waiting) > keep:
                    part = waiting.popleft().result()
                    parts.add(part)
                    advance(len(part))
                    if parts.is_due():
                        parts.flush()
                    if interrupt.requested:
                        raise interrupt.stopped()

            try:
                for start in range(done, total, CHUNK):
                    waiting.append(pool.submit(self.score, range(start, min(start + CHUNK, total))))
                    collect(threads)  # one waits while the others are worked on: nothing else is in memory
                collect(0)
            finally:
                for future in waiting:
                    future.cancel()
                parts.flush()
        return total - done

    def score(self, indices: range) -> Part:
        """Read and score some images."""
        read = [self.files.read(index) for index in indices]
        maps = [self._checked(array, index) for (array, _), index in zip(read, indices, strict=True)]
        ids = [self.split.ids[index] for index in indices]
        at = slice(indices.start, indices.stop)
        # several threads note what they read; adding to a set is one step of the interpreter
        annotations = self.reader.read(self.name, self.split, ids)
        ranks = None if self.classes is None else self.classes.ranks[at]
        arrays: dict[str, npt.NDArray[Any]] = {
            "stamps": self.files.stamps[at],
            "sha256": np.frombuffer(b"".join(digest for _, digest in read), np.uint8).reshape(-1, 32),
            "constant": np.array([bool(map_hw.min() == map_hw.max()) for map_hw in maps]),
        }
        levels = None
        scores_BHW = self._score_maps(maps) if self.geometry == "resize" else None
        if scores_BHW is not None:
            predictions = None if self.classes is None else self.classes.predictions[at]
            levels, arrays["boxes"] = score_annotated(
                scores_BHW, annotations, self.frame, self.split.labels[at], ranks, predictions
            )
        if self.convention is not None:
            found = score_convention(
                self.convention,
                scores_BHW if scores_BHW is not None and self.convention.box_rule_only else maps,
                annotations,
                self.split.labels[at],
                ranks,
                ids,
                self.frame.resolution_HW,
                thresholds=self.thresholds,
            )
            arrays |= found.arrays()
        return Part(arrays, levels)

    def _is_current(self, first: int, arrays: Arrays) -> bool:
        """The part was made from the files that are there now."""
        stamps = arrays["stamps"]
        return bool(np.array_equal(stamps, self.files.stamps[first : first + len(stamps)]))

    def _score_maps(self, maps: list[npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
        if self.kind == "score":
            return np.stack(maps)
        return np.concatenate([normalize_maps(map_hw[None], self.frame.resolution_HW) for map_hw in maps])

    def _checked(self, map_hw: npt.NDArray[Any], index: int) -> npt.NDArray[Any]:
        where = self.files.say(index)
        if self.kind == "raw":
            return check_raw_map(map_hw, where)
        return check_score_map(map_hw, where, self.frame.resolution_HW)


def _threads() -> int:
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
