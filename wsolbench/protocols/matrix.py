"""The protocol matrix: who chose the checkpoint x who chose the threshold, looked up from the outcomes of one training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from wsolbench.evaluation.cells import protocol_cells
from wsolbench.evaluation.levels import Levels
from wsolbench.protocols.needs import AnnotationReader
from wsolbench.protocols.select import (
    CHECKPOINTS,
    LAST,
    PSEUDO,
    Checkpoint,
    Selector,
    Threshold,
    choose_checkpoint,
    choose_threshold,
)
from wsolbench.record import Cell
from wsolbench.runs.job import Job


def protocol_matrix(
    job: Job, reader: AnnotationReader, steps: Sequence[int], outcomes: Callable[[int, str], Levels]
) -> list[Cell]:
    """GT-known and Top-1 Loc on test of every checkpoint selector with every threshold selector that the data allow.

    A value is an oracle's if test was looked at for its checkpoint or its threshold. The interval of one whose threshold
    was chosen on test chooses it anew in every resample; the checkpoint stays.

    Args:
        job: says which annotations there are.
        reader: notes what the choices look at.
        steps: the checkpoints, ascending.
        outcomes: of a checkpoint, by name: "val", "test", "val-pseudo".
    """
    by_threshold = [Selector("otsu"), *_there(job, ("val-boxes", "val-pseudo", "test-oracle"))]
    has_classes = bool((outcomes(steps[-1], "test").ranks >= 0).all())
    by_checkpoint = [Selector(LAST)]
    if len(steps) > 1:
        by_checkpoint += [Selector("class-accuracy")] if has_classes else []
        by_checkpoint += [each for each in _there(job, tuple(CHECKPOINTS)) if each.name != "class-accuracy"]
    cells: list[Cell] = []
    for selector in by_checkpoint:
        checkpoint = choose_checkpoint(reader, selector, steps, outcomes, job.settings(selector))
        for other in by_threshold:
            at = choose_threshold(reader, other, partial(outcomes, checkpoint.step), job.settings(other))
            cells += _cells(outcomes(checkpoint.step, "test"), checkpoint, at, job.config.evaluate.interval)
    return cells


def _cells(test: Levels, checkpoint: Checkpoint, threshold: Threshold, interval: float) -> list[Cell]:
    return [
        replace(cell, oracle=cell.oracle or checkpoint.oracle)
        for cell in protocol_cells(test, threshold, interval, checkpoint.by)
    ]


def _there(job: Job, names: Sequence[str]) -> list[Selector]:
    """Those of the selectors whose annotation exists."""
    there = {None: True, "test": True, "val": job.val_split.annotated, PSEUDO: job.pseudo is not None}
    selectors = [Selector(name, job.pseudo.source if name == PSEUDO and job.pseudo else "") for name in names]
    return [each for each in selectors if there[each.looks_at]]
