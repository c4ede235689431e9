"""The protocol matrix: who chose the checkpoint x who chose the threshold, looked up from the outcomes of one training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from wsolbench.config.selectors import LAST, Selector, Settings
from wsolbench.data.annotations import AnnotationReader
from wsolbench.evaluation.cells import protocol_cells
from wsolbench.evaluation.levels import Levels
from wsolbench.evaluation.threshold import Threshold
from wsolbench.protocols.select import Checkpoint, choose_checkpoint, choose_threshold
from wsolbench.record import Cell


def protocol_matrix(
    reader: AnnotationReader,
    steps: Sequence[int],
    outcomes: Callable[[int, str], Levels],
    allowed: Sequence[Selector],
    settings: Callable[[Selector], Settings],
    interval: float,
) -> list[Cell]:
    """GT-known and Top-1 Loc on test of every checkpoint selector with every threshold selector that the data allow.

    A value is an oracle's if test was looked at for its checkpoint or its threshold. The interval of one whose threshold
    was chosen on test chooses it anew in every resample; the checkpoint stays.

    Args:
        reader: notes what the choices look at.
        steps: the checkpoints, ascending.
        outcomes: of a checkpoint, by name: "val", "test", "val-pseudo".
        allowed: the selectors whose annotation exists.
        settings: what a selector's argument means in the run.
        interval: spacing of the thresholds among which is chosen.
    """
    has_classes = bool((outcomes(steps[-1], "test").ranks >= 0).all())
    by_checkpoint = [each for each in allowed if "checkpoint" in each.kind.chooses]
    if len(steps) == 1:
        by_checkpoint = [each for each in by_checkpoint if each.name == LAST]
    cells: list[Cell] = []
    for selector in by_checkpoint:
        if selector.name == "class-accuracy" and not has_classes:
            continue
        checkpoint = choose_checkpoint(reader, selector, steps, outcomes, settings(selector))
        for other in allowed:
            if "threshold" in other.kind.chooses:
                at = choose_threshold(reader, other, partial(outcomes, checkpoint.step), settings(other))
                cells += _cells(outcomes(checkpoint.step, "test"), checkpoint, at, interval)
    return cells


def _cells(test: Levels, checkpoint: Checkpoint, threshold: Threshold, interval: float) -> list[Cell]:
    return [
        replace(cell, oracle=cell.oracle or checkpoint.oracle)
        for cell in protocol_cells(test, threshold, interval, checkpoint.by)
    ]
