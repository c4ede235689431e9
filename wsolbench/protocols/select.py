"""Who chooses the checkpoint and the threshold: one function each. Whatever a choice looks at passes through `Look`, which notes it.

A selector is written `name` or `name:argument`, e.g. `val-boxes`, `val-pseudo:rpn`, `fixed:0.2`, `test-oracle:sat`. Sources: the
realistic protocol (Murtaza et al., WACV 2025, https://arxiv.org/abs/2404.10034)
for class-accuracy, val-pseudo and otsu; the released code of SAT and TS-CAM for choices among a list on test.
"""
# n images, T thresholds

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from wsolbench.conventions import CONVENTIONS, get_convention
from wsolbench.errors import UsageError, unknown

if TYPE_CHECKING:
    from wsolbench.evaluation.levels import Levels
    from wsolbench.protocols.needs import AnnotationReader

PSEUDO = "val-pseudo"  # val's outcomes against pseudo-boxes, where outcomes are kept by name
LAST = "last"
SELECTOR_OF = {"val": "val-boxes", "test": "test-oracle"}  # split -> who chooses a threshold by its boxes


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


class Settings(NamedTuple):
    """What a selector is told beside the outcomes."""

    interval: float = 0.01  # spacing of the thresholds among which is chosen
    candidates: tuple[float, ...] = ()  # chosen among these instead


# --- thresholds ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Threshold:
    """Where maps are cut, and who chose that; `oracle`: test was looked at to choose it."""

    value: float | None  # None: every map at its own Otsu level
    by: str
    oracle: bool = False
    candidates: tuple[float, ...] = ()  # chosen among these by GT-known + Top-1 Loc; empty: among all by GT-known Loc

    def cuts(self, levels: Levels) -> npt.NDArray[np.int64]:
        """The level at which each quantised map is cut, [n]."""
        from wsolbench.boxes.maps import level_of

        return levels.otsu.astype(np.int64) if self.value is None else level_of(self.value, levels.qmax)

    def hits(self, levels: Levels) -> npt.NDArray[np.bool_]:
        """Say which images are correct, bool [n]: IoU .5, largest contour."""
        return levels.hits_otsu() if self.value is None else levels.hits(self.value)


def _best(levels: Levels, settings: Settings) -> tuple[float, float]:
    """The best threshold and its score; the first wins a tie.

    By box accuracy (IoU .5, largest contour); among candidates, as in SAT's code, by the sum of GT-known and Top-1 Loc.
    """
    if not settings.candidates:
        summary = levels.box_summary("single", (0.5,), settings.interval)
        return summary["best_thresholds"][0.5], summary["value"]
    score_T = gt_known_plus_top1(levels, settings.candidates).sum(0) / len(levels)
    return settings.candidates[int(score_T.argmax())], float(score_T.max())


def gt_known_plus_top1(levels: Levels, thresholds: Sequence[float]) -> npt.NDArray[np.int64]:
    """Per image and threshold 0, 1 (the box is right) or 2 (the class too), int64 [n, T]; without a classifier at most 1."""
    hits_nT = levels.hits(thresholds).astype(np.int64)
    return hits_nT * (1 + levels.in_top(1)[:, None]) if (levels.ranks >= 0).all() else hits_nT


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


# --- a selector as it is written -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Selector:
    """`name[:argument]`, taken apart."""

    name: str
    argument: str = ""

    def __str__(self) -> str:
        return f"{self.name}:{self.argument}" if self.argument else self.name

    @property
    def looks_at(self) -> str | None:
        """The annotation it needs: "val", "test" (boxes), "val-pseudo" (pseudo-boxes of val); None: labels or nothing."""
        return {"val-boxes": "val", "test-oracle": "test", "val-pseudo": PSEUDO}.get(self.name)

    def settings(self, dataset: str, backbone: str, interval: float) -> Settings:
        """What the argument means on a data set: thresholds of a convention differ between them."""
        if self.name not in ("fixed", "test-oracle") or not self.argument:
            return Settings(interval)
        if self.argument in CONVENTIONS:
            return Settings(interval, get_convention(self.argument).thresholds_for(dataset, backbone))
        return Settings(interval, tuple(map(float, self.argument.split("/"))))


def parse_checkpoint(text: str) -> Selector:
    """`last`, `class-accuracy`, `val-boxes`, `val-pseudo[:SOURCE]`, `test-oracle[:CONVENTION | :t/t/...]`.

    Raises:
        UsageError: there is none of that name, or it takes no such argument.

    >>> parse_checkpoint("test-oracle:sat")
    Selector(name='test-oracle', argument='sat')
    """
    return _parse("protocol.checkpoint", text, (LAST, *CHECKPOINTS))


def parse_threshold(text: str) -> Selector:
    """`val-boxes`, `val-pseudo[:SOURCE]`, `test-oracle[:CONVENTION | :t/t/...]`, `otsu`, `fixed:t` or `fixed:CONVENTION`.

    Raises:
        UsageError: there is none of that name, or it takes no such argument.

    >>> parse_threshold("fixed:0.2").settings("cub", "-", 0.01).candidates
    (0.2,)
    """
    return _parse("protocol.threshold", text, tuple(THRESHOLDS))


def parse_search(text: str) -> Selector:
    """Who chooses among the trials of a search: as `parse_checkpoint`, but for `last`.

    >>> parse_search("val-boxes")
    Selector(name='val-boxes', argument='')
    """
    return _parse("search.by", text, tuple(CHECKPOINTS))


def _parse(key: str, text: str, known: Sequence[str]) -> Selector:
    name, _, argument = text.partition(":")
    if name not in known:
        raise unknown(key, text, known)
    selector = Selector(name, argument)
    if name in ("fixed", "test-oracle") and argument and argument not in CONVENTIONS:
        try:
            values = list(map(float, argument.split("/")))
        except ValueError:
            raise UsageError(
                f"{key}={text}: '{argument}' is neither a threshold (several: 0.3/0.4) nor a convention: {', '.join(CONVENTIONS)}"
            ) from None
        if not all(0 <= value < 1 for value in values):
            raise UsageError(f"{key}={text}: thresholds lie in [0, 1)")
    elif argument and name not in ("fixed", "test-oracle", "val-pseudo"):
        raise UsageError(f"{key}={text}: '{name}' takes no argument")
    if name == "fixed" and len(selector.settings("", "-", 0.01).candidates) != 1:
        raise UsageError(
            f"{key}={text}: expected one threshold, e.g. fixed:0.2, or a convention with a fixed one, fixed:tscam"
        )
    return selector


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
