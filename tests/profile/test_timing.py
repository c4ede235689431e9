from __future__ import annotations

import pytest
import torch

from wsolbench.profile.timing import Subject, Timing, is_settled, status_of, time_in_turns


def test_timing_is_of_the_durations() -> None:
    timing = Timing.of([value / 1000 for value in range(1, 12)])  # 1 .. 11 ms
    assert (timing.median_ms, timing.p10_ms, timing.p90_ms, timing.calls) == pytest.approx((6, 2, 10, 11))


def test_a_median_is_settled_when_its_interval_is_narrow() -> None:
    assert is_settled([1.0] * 20)
    assert is_settled([1.0] * 90 + [50.0] * 10)  # a few hiccups do not move a median
    assert not is_settled([1.0] * 3)  # too few to tell
    assert not is_settled([1.0, 2.0] * 10)


def test_subjects_are_timed_in_turns_after_a_warm_up() -> None:
    calls: list[str] = []
    subjects = {name: Subject(lambda name=name: calls.append(name)) for name in "abc"}  # type: ignore[misc]
    time_in_turns(dict(subjects), repeats=5, seconds=60, synchronise=lambda: None)
    timed = calls[9:]
    assert calls[:9] == [*"aaabbbccc"]
    assert sorted(timed[:3]) == sorted(timed[3:6]) == [*"abc"]
    assert all(3 <= len(subject.seconds) <= 5 and subject.done for subject in subjects.values())


def test_time_is_capped_but_three_calls_are_made() -> None:
    subject = Subject(lambda: None)
    time_in_turns({0: subject}, repeats=100, seconds=0, synchronise=lambda: None)
    assert len(subject.seconds) == 3


def test_device_work_is_awaited_before_and_after_each_call() -> None:
    events: list[str] = []
    subject = Subject(lambda: events.append("call"), lambda: events.append("prepare"))
    time_in_turns({0: subject}, repeats=3, seconds=0, synchronise=lambda: events.append("wait"))
    assert events == ["prepare", "wait", "call", "wait"] * 4  # one to warm up, as no time is given


def test_a_failure_leaves_the_rounds_and_the_others_go_on() -> None:
    def fail() -> None:
        raise torch.OutOfMemoryError("Tried to allocate 2.00 GiB.")

    left: list[int] = []
    subjects = {"bad": Subject(fail), "good": Subject(lambda: None)}
    time_in_turns(dict(subjects), repeats=4, seconds=9, synchronise=lambda: None, on_done=lambda: left.append(1))
    assert subjects["bad"].error is not None
    assert subjects["bad"].error.__traceback__ is None  # its frames would keep the tensors that did not fit
    assert (subjects["bad"].done, len(subjects["good"].seconds), len(left)) == (True, 4, 2)


def test_a_status_tells_memory_and_compilation_from_other_failures() -> None:
    assert status_of(torch.OutOfMemoryError("x")) == "out of memory"
    assert status_of(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")) == "out of memory"
    assert status_of(ValueError("\n  why\nmore")) == "failed: ValueError: why"
    failure = type("BackendCompilerFailed", (RuntimeError,), {"__module__": "torch._dynamo.exc"})
    assert status_of(failure("no compiler")) == "compile failed: BackendCompilerFailed: no compiler"
