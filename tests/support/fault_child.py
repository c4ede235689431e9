"""Runs that are killed, told to stop or started twice: `fault_child.py OUT KILLS STOPS SEED` prints what happened as JSON.

One process imports torch once and forks a child for every attempt; it touches no tensor itself, so forking is safe. Half of
the children that are killed are killed by this process after a random part of the time that an undisturbed one takes; the
other half kill themselves at a random event of the phase that was hit least: a loss, a batch, or an operation on files,
between any two of which a run must be safe. Signals that ask to stop come at such events too.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import random
import signal
import struct
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import engine_fakes
import torch
from engine_fakes import fake_config
from run_files import temporary_files

import wsolbench.launch
import wsolbench.method.numerics
import wsolbench.runs.trained
import wsolbench.runs.verdict
import wsolbench.training.state
from wsolbench.config.schema import RunConfig, SearchConfig
from wsolbench.evaluation.scoring import prepare_scoring
from wsolbench.launch import here
from wsolbench.metrics import label_rank  # noqa: F401 (imported here, once, instead of in every child)
from wsolbench.runs.evaluator import Evaluator
from wsolbench.system.environment import source_commit
from wsolbench.system.interrupt import Stopped, caught
from wsolbench.system.progress import Silent

PHASES = ("opening", "training", "selection", "evaluation", "writing")
SPACE = 'space: [{for: {methods: ["*"]}, train: {lr: {log-uniform: [1.0e-3, 0.1]}}}]'
FILE_EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
NUMBERS = struct.Struct(f"{1 + len(PHASES)}q")  # the phase, and the events of each
shared = mmap.mmap(-1, NUMBERS.size)  # written by the child, read here once it is dead


@dataclass
class Fault:
    """What happens to an attempt: a signal at event n (from 1) of a phase, or SIGKILL after some seconds; or nothing."""

    number: int = signal.SIGKILL
    phase: str = ""
    event: int = 0
    delay: float = math.inf


@dataclass
class Attempt:
    """What came of it. `code` is the exit status, -9 killed."""

    code: int
    phase: str
    events: dict[str, int]
    seconds: float


def configs(out: Path) -> list[RunConfig]:
    """A training that all selectors choose from, a search, and a classifier that two methods share."""
    often: dict[str, Any] = {"save_every": 0.0}
    matrix = fake_config(out, "tiny", matrix=True, **often)
    searched = replace(fake_config(out, "tiny", **often), search=SearchConfig(2, None, str(out.parent / "space.yaml")))
    return [matrix, searched, fake_config(out, "shared-a", **often), fake_config(out, "shared-b", **often)]


def watch(fault: Fault) -> None:
    """Note the phase and count events in this process, and let the fault happen."""

    def enter(phase: str) -> None:
        _, *counts = NUMBERS.unpack(shared)
        shared[:] = NUMBERS.pack(PHASES.index(phase), *counts)

    def event(*ignored: object) -> None:
        phase, *counts = NUMBERS.unpack(shared)
        counts[phase] += 1
        shared[:] = NUMBERS.pack(phase, *counts)
        if (fault.phase, fault.event) == (PHASES[phase], counts[phase]):
            os.kill(os.getpid(), fault.number)

    def audit(name: str, arguments: tuple[Any, ...]) -> None:
        written = name == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if name in FILE_EVENTS or written:
            event()

    def during(phase: Callable[..., str], function: Any, then: str) -> Any:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            enter(phase(*arguments))
            try:
                return function(*arguments, **options)
            finally:
                enter(then)

        return wrapped

    enter("opening")
    sys.addaudithook(audit)
    engine_fakes.kill_at = event
    wsolbench.runs.trained.fit = during(lambda *_: "training", wsolbench.runs.trained.fit, "opening")  # type: ignore[attr-defined]
    of_split = during(
        lambda _, name, *__: "selection" if name == "val" else "evaluation", Evaluator.__call__, "selection"
    )
    Evaluator.__call__ = of_split  # type: ignore[method-assign]
    write = during(lambda *_: "writing", wsolbench.runs.verdict.save_levels, "writing")  # and all that follows
    wsolbench.runs.verdict.save_levels = write  # type: ignore[attr-defined]
    here.run_job = during(lambda *_: "opening", here.run_job, "opening")  # type: ignore[attr-defined]


def warm_up() -> None:
    """What every child would otherwise do anew: imports, compilation, asking git."""
    with wsolbench.method.numerics.deterministic(torch.device("cpu")):
        prepare_scoring(Silent())
    source_commit()


def child(out: Path, fault: Fault) -> int:
    """The runs; 0 all done, 1 some failed, else why they were stopped. Failures go to OUT/../reasons.txt."""
    wsolbench.training.state.SAVE_SECONDS, wsolbench.training.state.SAVE_SHARE = 0.0, math.inf
    watch(fault)
    try:
        with caught():
            outcomes = wsolbench.launch.run_all(configs(out), reporter=Silent())
    except Stopped as stopped:
        return stopped.status
    reasons = [outcome.reason for outcome in outcomes if outcome.status == "failed"]
    with (out.parent / "reasons.txt").open("a") as file:
        file.writelines(f"{reason}\n" for reason in reasons)
    return 1 if reasons else 0


def fork(out: Path, fault: Fault) -> int:
    shared[:] = bytes(NUMBERS.size)
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            code = child(out, fault)
        except BaseException:  # noqa: BLE001 (the parent sees a number only)
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def attempt(out: Path, fault: Fault) -> Attempt:
    started = time.monotonic()
    pid = fork(out, fault)
    if fault.delay < math.inf:
        time.sleep(fault.delay)
        os.kill(pid, signal.SIGKILL)  # a child that is done has not been waited for, so the number is still its own
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    phase, *counts = NUMBERS.unpack(shared)
    return Attempt(code, PHASES[phase], dict(zip(PHASES, counts, strict=True)), time.monotonic() - started)


def until_done(base: Path, count: int, draw: Callable[[Counter[str]], Fault]) -> tuple[Counter[str], Counter[int], int]:
    """Runs in folders `<base>-1`, ... with a fault in each attempt until there were `count`: phases, codes, folders."""
    phases: Counter[str] = Counter()
    codes: Counter[int] = Counter()
    folders, done = 0, True
    while phases.total() < count or not done:
        folders += done
        out = base.with_name(f"{base.name}-{folders}")
        fault = draw(phases) if phases.total() < count else Fault()
        result = attempt(out, fault)
        done = result.code == 0
        if not done:
            phases[result.phase if result.code < 0 else fault.phase] += 1
            codes[result.code] += 1
            if result.code != {signal.SIGKILL: -signal.SIGKILL}.get(fault.number, 128 + fault.number):
                sys.exit(f"an attempt with {fault} ended with {result.code} in phase {result.phase}")
            if result.code > 0 and (left := temporary_files(out)):
                sys.exit(f"an attempt with {fault} left {left}")
    return phases, codes, folders


def main() -> None:
    base, kills, stops, seed = Path(sys.argv[1]), *map(int, sys.argv[2:])
    (base / "space.yaml").write_text(SPACE)
    warm_up()
    whole = attempt(base / "whole", Fault())
    assert whole.code == 0
    random_ = random.Random(seed)

    def at_event(number: int, phase: str) -> Fault:
        return Fault(number, phase, random_.randint(1, whole.events[phase]))

    def rarest(so_far: Counter[str]) -> str:
        return min(PHASES, key=lambda phase: so_far[phase])

    def kill(so_far: Counter[str]) -> Fault:
        if so_far.total() % 2:
            return Fault(delay=random_.uniform(0, whole.seconds))
        return at_event(signal.SIGKILL, rarest(so_far))

    def stop(so_far: Counter[str]) -> Fault:
        return at_event(STOPS[so_far.total() % len(STOPS)], rarest(so_far))

    killed, _, killed_folders = until_done(base / "killed", kills, kill)
    stopped, codes, stopped_folders = until_done(base / "stopped", stops, stop)
    both = [fork(base / "twice", Fault()) for _ in range(2)]
    twice = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in both]
    told = {
        "killed": {"phases": killed, "folders": killed_folders},
        "stopped": {"phases": stopped, "codes": codes, "folders": stopped_folders},
        "twice": {"codes": twice, "reasons": (base / "reasons.txt").read_text().splitlines()},
        "again": attempt(base / "twice", Fault()).code,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
