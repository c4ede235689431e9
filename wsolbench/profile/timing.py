"""Timing calls in turns, so that a machine which slows down or is shared hits all alike, until each median is known."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import torch

WARMUP = 3  # untimed calls at most: lazy initialisation, caches, autotuning
FEWEST = 20  # durations from which a narrow interval is believed; it is looked at after every call
PRECISION = 0.03  # stop when the 95 % interval of the median is within this share of it


@dataclass(frozen=True)
class Timing:
    """Distribution of one call's duration, in milliseconds. `settled`: the median is known to a few percent."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    calls: int
    settled: bool

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        """Summarise durations in seconds.

        >>> Timing.of([0.003, 0.001, 0.002]).median_ms
        2.0
        """
        ordered = sorted(1000 * value for value in seconds)
        last = len(ordered) - 1
        return cls(
            median(ordered), ordered[round(0.1 * last)], ordered[round(0.9 * last)], len(ordered), is_settled(seconds)
        )


@dataclass
class Subject:
    """A call to be timed: `prepare` runs before it, untimed. `done`: its figures are complete, or `error` says why not."""

    call: Callable[[], object]
    prepare: Callable[[], object] = lambda: None
    seconds: list[float] = field(default_factory=list)
    error: Exception | None = None
    done: bool = False


def is_settled(seconds: Sequence[float]) -> bool:
    """Whether the 95 % interval of the median (by order statistics, so for any distribution) is narrow."""
    n = len(seconds)
    reach = 0.98 * n**0.5
    low, high = int(n / 2 - reach) - 1, int(n / 2 + reach) + 1
    if n < FEWEST:
        return False
    ordered = sorted(seconds)
    return ordered[high] - ordered[low] <= 2 * PRECISION * median(ordered)


def time_in_turns(
    subjects: Mapping[Hashable, Subject],
    *,
    repeats: int,
    seconds: float,
    synchronise: Callable[[], None],
    on_done: Callable[[], object] = lambda: None,
) -> None:
    """Time every subject in rounds of shuffled order until it is settled, was called `repeats` times or used `seconds`.

    A subject that raises keeps its error and leaves the rounds; three calls are made whatever they take. `on_done` is
    called for each that leaves them. Subjects with an error from before are left alone.
    """
    order = random.Random(0)  # a fixed order would give each subject the same neighbour's caches

    def leave(subject: Subject) -> None:
        subject.done = True
        on_done()

    waiting = []
    for subject in subjects.values():
        end = time.perf_counter() + seconds
        for _ in range(WARMUP):
            if subject.error is None:
                _attempt(subject, synchronise)
            if subject.error is not None or time.perf_counter() > end:  # one call of a slow method warms it up
                break
        if subject.error is None:
            waiting.append(subject)
        else:
            leave(subject)
    while waiting:
        order.shuffle(waiting)
        for subject in list(waiting):
            _attempt(subject, synchronise, keep=True)
            spent = len(subject.seconds) >= 3 and sum(subject.seconds) >= seconds
            if subject.error or spent or len(subject.seconds) >= repeats or is_settled(subject.seconds):
                waiting.remove(subject)
                leave(subject)


def _attempt(subject: Subject, synchronise: Callable[[], None], *, keep: bool = False) -> None:
    try:
        subject.prepare()
        synchronise()
        start = time.perf_counter()
        subject.call()
        synchronise()
        if keep:
            subject.seconds.append(time.perf_counter() - start)
    except Exception as error:  # noqa: BLE001 - one method's failure is a line of the table, not the end of the others
        # Without its traceback: the frames would keep the tensors that did not fit.
        subject.error = error.with_traceback(None)
    if subject.error is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an accelerator or the CPU's allocator ran out of memory."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def status_of(error: BaseException) -> str:
    """Why a line has no figures, in one line of text; what failed while compiling says so.

    >>> status_of(ValueError("two\\nlines"))
    'failed: ValueError: two'
    """
    if is_out_of_memory(error):
        return "out of memory"
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    compiling = type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
    return f"{'compile failed' if compiling else 'failed'}: {type(error).__name__}: {first}"
