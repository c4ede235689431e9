"""Who chooses the checkpoint and the threshold: one function each. Whatever a choice looks at passes through `Look`, which notes it.

What there is stands in `wsolbench.config.selectors`. Sources: the realistic protocol (Murtaza et al., WACV 2025,
https://arxiv.org/abs/2404.10034) for class-accuracy, val-pseudo and otsu; the released code of SAT and TS-CAM for choices
among a list on test.
"""
# n images, T thresholds

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from wsolbench.config.selectors import LAST, PSEUDO, Selector, Settings
from wsolbench.evaluation.threshold import Threshold, gt_known_plus_top1

if TYPE_CHECKING:
    from wsolbench.data.annotations import AnnotationReader
    from wsolbench.evaluation.levels import Levels


# --- what a choice may look at ---------------------------------------------------------------------------------------


class Look:
    """Outcomes that a choice may be made by. What is asked for is noted with the reader of annotations, and makes the mark.

    `outcomes` gives them by name: "val", "test", "val-pseudo" (val, scored against pseudo-boxes).
    """

    def __init__(self, reader: AnnotationReader, outcomes: Callable[[str], Levels], purpose: str) -> None:
        self._reader, self._outcomes, self._purpose = reader, outcomes, purpose
        self.oracle = False  # test was looked at

    def labels(self, split: str) -> Levels:
        """Outcomes of "val" or "test", to be judged by their class labels."""
        return self._noted(split, split, "labels")

    def boxes(self, split: str) -> Levels:
        """Outcomes of "val" or "test" against their boxes."""
        return self._noted(split, split, "boxes")

    def pseudo_boxes(self) -> Levels:
        """Outcomes of val against pseudo-boxes."""
        return self._noted(PSEUDO, "val", "pseudo-boxes")

    def _noted(self, name: str, split: str, kind: str) -> Levels:
        levels = self._outcomes(name)
        self.oracle |= self._reader.choose_on(split, levels, self._purpose, kind)
        return levels


# --- thresholds ------------------------------------------------------------------------------------------------------


def _best(levels: Levels, settings: Settings) -> tuple[float, float]:
    """The best threshold and its score; the first wins a tie.

    By box accuracy (IoU .5, largest contour); among candidates, as in SAT's code, by the sum of GT-known and Top-1 Loc.
    """
    if not settings.candidates:
        summary = levels.box_summary("single", (0.5,), settings.interval)
        return summary["best_thresholds"][0.5], summary["value"]
    score_T = gt_known_plus_top1(levels, settings.candidates).sum(0) / len(levels)
    return settings.candidates[int(score_T.argmax())], float(score_T.max())


def _val_boxes_threshold(look: Look, settings: Settings) -> float | None:
    return _best(look.boxes("val"), settings)[0]


def _val_pseudo_threshold(look: Look, settings: Settings) -> float | None:
    return _best(look.pseudo_boxes(), settings)[0]


def _test_oracle_threshold(look: Look, settings: Settings) -> float | None:
    return _best(look.boxes("test"), settings)[0]


def _otsu(look: Look, settings: Settings) -> float | None:
    return None


def _fixed(look: Look, settings: Settings) -> float | None:
    return settings.candidates[0]


THRESHOLDS: dict[str, Callable[[Look, Settings], float | None]] = {
    "val-boxes": _val_boxes_threshold,
    "val-pseudo": _val_pseudo_threshold,
    "test-oracle": _test_oracle_threshold,
    "otsu": _otsu,
    "fixed": _fixed,
}


# --- checkpoints -----------------------------------------------------------------------------------------------------


def _class_accuracy(look: Look, settings: Settings) -> float:
    return look.labels("val").topk_accuracy(1)


def _val_boxes(look: Look, settings: Settings) -> float:
    return _best(look.boxes("val"), settings)[1]


def _val_pseudo(look: Look, settings: Settings) -> float:
    return _best(look.pseudo_boxes(), settings)[1]


def _test_oracle(look: Look, settings: Settings) -> float:
    return _best(look.boxes("test"), settings)[1]


CHECKPOINTS: dict[str, Callable[[Look, Settings], float]] = {
    "class-accuracy": _class_accuracy,
    "val-boxes": _val_boxes,
    "val-pseudo": _val_pseudo,
    "test-oracle": _test_oracle,
}


@dataclass(frozen=True)
class Checkpoint:
    """The state of the network that is scored, and who chose it; `oracle`: test was looked at to choose it."""

    step: int  # optimizer steps it has taken
    by: str
    score: float | None = None  # by which it was chosen
    candidates: int = 1
    oracle: bool = False


# --- choosing --------------------------------------------------------------------------------------------------------


def choose_threshold(
    reader: AnnotationReader,
    selector: Selector,
    outcomes: Callable[[str], Levels] | Mapping[str, Levels],
    settings: Settings,
) -> Threshold:
    """The threshold that a selector chooses by the outcomes of one checkpoint."""
    look = Look(reader, _by_name(outcomes), "threshold selection")
    value = THRESHOLDS[selector.name](look, settings)
    by = f"fixed:{value:g}" if selector.name == "fixed" else str(selector)
    candidates = settings.candidates if selector.name == "test-oracle" else ()
    return Threshold(value, by, look.oracle, candidates)


def choose_checkpoint(
    reader: AnnotationReader,
    selector: Selector,
    steps: Sequence[int],
    outcomes: Callable[[int, str], Levels],
    settings: Settings,
) -> Checkpoint:
    """The one of the checkpoints, given as ascending steps, with the best score; the earliest wins a tie, one alone is the last."""
    if selector.name == LAST or len(steps) == 1:
        return Checkpoint(steps[-1], LAST)
    scores, oracle = [], False
    for step in steps:
        look = Look(reader, partial(outcomes, step), "checkpoint selection")
        scores.append(CHECKPOINTS[selector.name](look, settings))
        oracle |= look.oracle
    best = int(np.argmax(scores))
    return Checkpoint(steps[best], str(selector), scores[best], len(steps), oracle)


def _by_name(outcomes: Callable[[str], Levels] | Mapping[str, Levels]) -> Callable[[str], Levels]:
    return outcomes.__getitem__ if isinstance(outcomes, Mapping) else outcomes
