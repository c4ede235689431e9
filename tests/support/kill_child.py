"""Runs that are killed at random moments until they are done: `kill_child.py OUT KILLS SEED`, prints what happened as JSON.

One process imports torch once and forks a child for every attempt; it touches no tensor itself, so forking is safe. Half of
the children are killed by this process after a random part of the time that an undisturbed one takes; the other half kill
themselves at a random event of a random phase: a loss, a batch, or an operation on files, between any two of which a run must
be safe.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import random
import resource
import signal
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import engine_fakes
import torch
from engine_fakes import fake_config

import wsolbench.engine
import wsolbench.fit
import wsolbench.launch
import wsolbench.training
from wsolbench.config import RunConfig, SearchConfig
from wsolbench.metrics import label_rank  # noqa: F401 (imported here, once, instead of in every child)
from wsolbench.outcomes import prepare_scoring
from wsolbench.progress import Silent
from wsolbench.rundir import source_commit
from wsolbench.snapshots import Evaluator

PHASES = ("opening", "training", "selection", "evaluation", "writing")
SPACE = 'space: [{for: {methods: ["*"]}, train: {lr: {log-uniform: [1.0e-3, 0.1]}}}]'
FILE_EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}
NUMBERS = struct.Struct(f"{1 + len(PHASES)}q")  # the phase, and the events of each
shared = mmap.mmap(-1, NUMBERS.size)  # written by the child, read here once it is dead


def configs(out: Path, space: Path) -> list[RunConfig]:
    """A training that all selectors choose from, a search, and a classifier that two methods share."""
    often: dict[str, Any] = {"save_every": 0.0}
    matrix = fake_config(out, "tiny", matrix=True, **often)
    searched = replace(fake_config(out, "tiny", **often), search=SearchConfig(2, None, str(space)))
    return [matrix, searched, fake_config(out, "shared-a", **often), fake_config(out, "shared-b", **often)]


def watch(kill_at: tuple[str, int] | None) -> None:
    """Note the phase and count events in this process; kill it at event number n, from 1, of a phase."""

    def enter(phase: str) -> None:
        _, *counts = NUMBERS.unpack(shared)
        shared[:] = NUMBERS.pack(PHASES.index(phase), *counts)

    def event(*ignored: object) -> None:
        phase, *counts = NUMBERS.unpack(shared)
        counts[phase] += 1
        shared[:] = NUMBERS.pack(phase, *counts)
        if kill_at == (PHASES[phase], counts[phase]):
            os.kill(os.getpid(), signal.SIGKILL)

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
    wsolbench.training.fit = during(lambda *_: "training", wsolbench.training.fit, "opening")  # type: ignore[attr-defined]
    of_split = during(
        lambda _, name, *__: "selection" if name == "val" else "evaluation", Evaluator.__call__, "selection"
    )
    Evaluator.__call__ = of_split  # type: ignore[method-assign]
    write = during(lambda *_: "writing", wsolbench.engine.save_levels, "writing")  # and all that follows
    wsolbench.engine.save_levels = write  # type: ignore[attr-defined]
    wsolbench.launch.run_job = during(lambda *_: "opening", wsolbench.launch.run_job, "opening")  # type: ignore[attr-defined]


def warm_up() -> None:
    """What every child would otherwise do anew: imports, compilation, asking git."""
    with wsolbench.engine._deterministic(torch.device("cpu")):
        prepare_scoring(Silent())
    source_commit()


def attempt(
    out: Path, space: Path, kill_at: tuple[str, int] | None = None, delay: float = math.inf
) -> tuple[int, str, dict[str, int], float]:
    """One child; its exit code (-9 killed), the phase and the numbers of events it came to, and how long it took."""
    shared[:] = bytes(NUMBERS.size)
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            wsolbench.fit.SAVE_SECONDS, wsolbench.fit.SAVE_SHARE = 0.0, math.inf
            watch(kill_at)
            outcomes = wsolbench.launch.run_all(configs(out, space), reporter=Silent())
            code = 0 if all(outcome.status != "failed" for outcome in outcomes) else 1
            for outcome in outcomes:
                if outcome.status == "failed":
                    print(outcome.reason, file=sys.stderr)
        finally:
            os._exit(code)
    if delay < math.inf:
        time.sleep(delay)
        os.kill(pid, signal.SIGKILL)  # a child that is done is waited for below, so the number is still its own
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    phase, *counts = NUMBERS.unpack(shared)
    return code, PHASES[phase], dict(zip(PHASES, counts, strict=True)), time.monotonic() - started


def main() -> None:
    base, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    space = base / "space.yaml"
    space.write_text(SPACE)
    draw = random.Random(seed)
    warm_up()
    code, _, events, seconds = attempt(base / "whole", space)
    assert code == 0
    found: Counter[str] = Counter()
    folders, attempts, done = 0, 0, True
    while found.total() < kills or not done:
        folders += done
        kill_at, delay = None, math.inf
        if found.total() < kills and attempts % 2:
            delay = draw.uniform(0, seconds)
        elif found.total() < kills:
            chosen = draw.choice(PHASES)
            kill_at = chosen, draw.randint(1, events[chosen])
        code, phase, *_ = attempt(base / f"killed-{folders}", space, kill_at, delay)
        attempts += 1
        done = code == 0
        if code == -signal.SIGKILL:
            found[phase] += 1
        elif code != 0:
            sys.exit(f"an attempt ended with {code} in phase {phase}")
    print(
        json.dumps(
            {
                "kills": found,
                "folders": folders,
                "events": events,
                "seconds": seconds,
                "cpu": resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime,
            }
        )
    )


if __name__ == "__main__":
    main()
