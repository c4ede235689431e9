"""What a worker leaves behind, and what is read of it; in one process, since files do not mind."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_fakes import fake_config
from rich.console import Console

from wsolbench.launch import spool as spool_module
from wsolbench.launch.here import run_all
from wsolbench.launch.plan import Plan, make_plan
from wsolbench.launch.spool import Follower, Spool, Task, tasks_of
from wsolbench.runs.engine import Outcome
from wsolbench.runs.job import Job
from wsolbench.runs.opening import Session
from wsolbench.system.progress import Reporter, Silent


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """A task leaves Ctrl-C ignored, as a worker between two runs should."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def planned(folder: Path, *names: str, rerun: bool = False) -> tuple[Plan, Spool, Task]:
    plan = make_plan([fake_config(folder, name) for name in names], Session(), rerun=rerun)
    spool = Spool(folder / "spool")
    spool.folder.mkdir()
    (task,) = tasks_of(plan, plan.groups, spool, ["engine_fakes"], rerun)
    return plan, spool, task


def test_outcomes_and_words_come_through(tmp_path: Path) -> None:
    plan, spool, task = planned(tmp_path, "shared-a", "shared-b")
    text, steps = io.StringIO(), []
    follower = Follower(spool, plan, Reporter(Console(file=text)), lambda n, note=None: steps.append(n))
    task()
    follower.look()
    follower.look()
    assert [plan.outcomes[number].status for number in (0, 1)] == ["done", "done"]
    assert sum(steps) == 2
    assert [line.partition(" on ")[0] for line in text.getvalue().splitlines()] == ["[1/2] shared-a"] * 2 + [
        "[2/2] shared-b"
    ] * 2
    assert not spool.running()


def test_a_line_is_passed_on_when_it_is_whole(tmp_path: Path) -> None:
    text = io.StringIO()
    follower = Follower(Spool(tmp_path), Plan(0), Reporter(Console(file=text)), lambda n, note=None: None)
    path = tmp_path / "said.txt"
    path.write_text("one\ntw")
    follower.pass_on(path)
    assert text.getvalue() == "one\n"
    path.write_text("one\ntwo\n")
    follower.pass_on(path)
    assert text.getvalue() == "one\ntwo\n"


def test_rerun_forgets_what_was_there_once_and_not_what_a_dead_worker_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [outcome.status for outcome in run_all([fake_config(tmp_path, "shared-a")], reporter=Silent())] == ["done"]
    _, spool, task = planned(tmp_path, "shared-a", "shared-b", rerun=True)
    asked: list[tuple[str, bool]] = []

    def note(job: Job | Outcome, session: Session, title: str, *, rerun: bool) -> Outcome:
        asked.append((str(job).partition(" ")[0], rerun))
        return Outcome(job.config, None, "done")

    monkeypatch.setattr(spool_module, "carry_out", note)
    for number in (0, 1):
        spool.text(number).touch()  # a worker has begun both: of one there is still, or again, a record
    task()
    assert asked == [("shared-a", True), ("shared-b", False)]
    task()
    assert len(asked) == 2  # they have outcomes now


def test_nothing_begins_after_stop_or_without_the_parent(tmp_path: Path) -> None:
    plan, spool, task = planned(tmp_path, "centre")
    (orphan,) = tasks_of(plan, plan.groups, spool, [], False, parent=os.getpid())  # which is not our parent
    orphan()
    spool.stop.touch()
    task()
    assert not list(spool.folder.glob("*.pkl"))


def test_what_goes_wrong_before_the_run_is_an_outcome(tmp_path: Path) -> None:
    plan, spool, _ = planned(tmp_path, "centre")
    (task,) = tasks_of(plan, plan.groups, spool, ["no_such_module"], False)
    task()
    follower = Follower(spool, plan, Silent(), lambda n, note=None: None)
    follower.look()
    assert plan.outcomes[0].status == "failed"
    assert "no_such_module" in plan.outcomes[0].reason
