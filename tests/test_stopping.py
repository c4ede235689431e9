"""Signals and --max-time, as a program and as its caller see them."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import engine_fakes
import pytest
import torch
from engine_fakes import fake_config
from run_files import assert_same_files, temporary_files

from wsolbench import interrupt
from wsolbench.cli import main
from wsolbench.engine import run
from wsolbench.errors import UsageError
from wsolbench.interrupt import SAME, Interrupt, Stopped, caught, leave_to_parent, limited, parse_time
from wsolbench.launch import run_all
from wsolbench.progress import Silent

ROOT = Path(__file__).parent.parent


def send(number: int) -> None:
    os.kill(os.getpid(), number)


# --- the flag --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"])
def test_a_signal_waits_for_the_end_of_a_step(name: str) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with Interrupt() as asked:
        assert not asked.requested
        send(number)
        assert asked.requested
        stopped = asked.stopped()
    assert isinstance(stopped, KeyboardInterrupt)
    assert pickle.loads(pickle.dumps(stopped)).status == stopped.status
    assert stopped.status == 128 + number
    assert stopped.why == ("interrupted" if name == "SIGINT" else f"stopped by {name}")
    assert signal.getsignal(number) is before
    with Interrupt() as asked:
        assert not asked.requested


def test_a_second_signal_acts_at_once_unless_it_is_the_first_sent_twice() -> None:
    """A terminal sends Ctrl-C to all processes, and torchrun then sends it to its own."""
    with Interrupt() as asked:
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        assert asked.requested
        time.sleep(SAME + 0.05)
        with pytest.raises(Stopped, match="stopped by SIGTERM"):
            send(signal.SIGTERM)


def test_sigterm_after_the_warning_that_precedes_it_is_the_first_request() -> None:
    with Interrupt() as asked:
        send(signal.SIGUSR1)
        time.sleep(SAME + 0.05)
        send(signal.SIGTERM)
        assert asked.stopped().status == 143


def test_where_nobody_asks_a_signal_ends_the_program_where_it_is() -> None:
    with caught():
        with Interrupt():
            pass
        with pytest.raises(Stopped, match="stopped by SIGHUP"):
            send(signal.SIGHUP)


def test_a_request_that_came_too_late_for_one_loop_is_known_to_the_next() -> None:
    with caught():
        with Interrupt():
            send(signal.SIGTERM)
        with Interrupt() as asked:
            assert asked.requested


def test_what_others_handle_or_ignore_stays_theirs() -> None:
    """nohup ignores SIGHUP, and must go on doing so; submitit handles what SLURM sends."""
    got: list[int] = []

    def handler(number: int, frame: Any) -> None:
        got.append(number)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN), signal.signal(signal.SIGUSR1, handler)
    try:
        with Interrupt() as asked:
            send(signal.SIGHUP)
            send(signal.SIGUSR1)
            assert not asked.requested
        assert got == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGHUP, before[0])
        signal.signal(signal.SIGUSR1, before[1])


def in_child(act: Callable[[], object]) -> int:
    """The exit code of a forked child that does something; it touches no tensor."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_child_does_as_the_system_does() -> None:
    """A signal to a forked child is none to the parent, and the parent's handler does not keep it alive."""
    with Interrupt() as asked:
        assert in_child(lambda: send(signal.SIGTERM)) == -signal.SIGTERM
        assert not asked.requested


def test_a_worker_leaves_the_first_signal_to_its_parent() -> None:
    def twice() -> None:
        leave_to_parent(0)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
            send(number)
        assert signal.alarm(0) > 0  # it would end by itself
        send(signal.SIGTERM)

    assert in_child(twice) == -signal.SIGTERM


# --- --max-time ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200), ("90m", 5400), ("45s", 45), ("1h30m", 5400), ("1:30:00", 5400), ("0.5s", 0.5)]
)
def test_times(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "10", "soon", "-5m", "1:75:00", "5m2h", "inf"])
def test_wrong_times_are_one_sentence(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="expected a time such as 2h"):
        parse_time(text)
    assert main(["run", "--methods", "cam", f"--max-time={text}"]) == 2
    assert capsys.readouterr().err == (
        f"wsolbench: --max-time '{text}': expected a time such as 2h, 90m, 45s, 1h30m or 1:30:00\n"
    )


def test_where_nobody_asks_the_time_ends_the_program() -> None:
    started, before = time.monotonic(), signal.getsignal(signal.SIGALRM)
    with caught(), limited("0.2s"), pytest.raises(Stopped, match=r"stopped for --max-time 0.2s"):
        time.sleep(30)
    assert time.monotonic() - started < 10
    assert signal.getsignal(signal.SIGALRM) is before


def test_the_limit_leaves_time_for_saving(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of 10 s may be followed by saving of as long: with less than twice that left, none is begun."""
    now = [0.0]
    monkeypatch.setattr(interrupt, "time", SimpleNamespace(monotonic=lambda: now[0]))  # a busy machine's sleep is long
    with caught(), limited("100s"), Interrupt() as asked:
        while not asked.requested:
            now[0] += 10
    assert now[0] == 80
    assert asked.stopped().status == 75


def test_a_timer_that_was_there_before_goes_on() -> None:
    before = signal.getitimer(signal.ITIMER_REAL)
    with caught(), limited("1000s"):
        assert 999 < signal.getitimer(signal.ITIMER_REAL)[0] <= 1000
    after = signal.getitimer(signal.ITIMER_REAL)
    assert after[0] <= before[0]
    assert (after[0] > 0) == (before[0] > 0)


def test_a_run_whose_time_is_up_is_saved_and_goes_on_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the step in which it ran out; the second run of the list is not begun. What a run is does not depend on it."""

    def five_steps(name: str, count: int) -> None:
        if count == 4:
            monkeypatch.setattr(interrupt._process, "deadline", time.monotonic())

    configs = [fake_config(tmp_path / "limited", "tiny", seed) for seed in (0, 1)]
    with monkeypatch.context() as patched, caught(), limited("1h"):
        patched.setattr(engine_fakes, "kill_at", five_steps)
        with pytest.raises(Stopped) as stopped:
            run_all(configs, reporter=Silent())
    assert stopped.value.status == 75
    (state,) = (tmp_path / "limited").rglob("state.pt")
    assert torch.load(state, weights_only=True)["step"] == 5
    assert not temporary_files(tmp_path / "limited")
    run(configs[0])
    run(fake_config(tmp_path / "whole", "tiny"))
    assert_same_files(tmp_path / "limited", tmp_path / "whole")


# --- the program -----------------------------------------------------------------------------------------------------

RUN = ["run", "--methods", "cam", "train.epochs=1000", "--out"]


def start(*words: str) -> subprocess.Popen[str]:
    paths = [str(ROOT), str(ROOT / "methods"), str(ROOT / "datasets")]
    return subprocess.Popen(
        [sys.executable, "-m", "wsolbench", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )


def has_worker(pid: int) -> bool:
    """The process has a child that loads data: any but git, which is asked for the commit before training."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(OSError):
            if "git" not in Path(f"/proc/{child}/comm").read_text():
                return True
    return False


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="sees processes as Linux shows them")
def test_sigterm_to_all_its_processes_ends_the_program_with_one_sentence(tmp_path: Path) -> None:
    """As SLURM sends it: to the data-loading process too, which must not die before its parent has finished its step."""
    words = [*RUN[:-1], "train.workers=1", *RUN[-1:], str(tmp_path)]
    program = start(*words)
    assert program.stderr is not None
    first = program.stderr.readline()
    assert first.endswith("running\n"), first
    while not has_worker(program.pid) and program.poll() is None:
        time.sleep(0.05)
    time.sleep(0.3)
    os.killpg(program.pid, signal.SIGTERM)
    out, error = program.communicate(timeout=120)
    assert program.returncode == 143
    assert out == ""
    said, empty, last = error.splitlines()
    assert "stopped by SIGTERM, its state is saved in" in said
    assert empty == ""
    assert last == (
        "wsolbench: stopped by SIGTERM; what was done is saved, resume with the same command: "
        f"wsolbench {' '.join(words)}"
    )
    assert len(list(tmp_path.rglob("state.pt"))) == 1
    assert not temporary_files(tmp_path)
    assert not list(tmp_path.rglob(".lock"))


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="sees what is loaded as Linux shows it")
def test_ctrl_c_while_the_program_begins(tmp_path: Path) -> None:
    """While torch and others are imported: no traceback from inside of them."""
    program = start(*RUN, str(tmp_path))
    deadline = time.monotonic() + 60
    while "libtorch" not in Path(f"/proc/{program.pid}/maps").read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    program.send_signal(signal.SIGINT)
    out, error = program.communicate(timeout=120)
    assert program.returncode == 130
    assert (out, error.splitlines()[0]) == ("", "")
    assert error.splitlines()[1].startswith("wsolbench: interrupted; what was done is saved")
    assert len(error.splitlines()) == 2


def test_rerun_is_not_advised_for_resuming(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It would forget what was just saved."""

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("wsolbench.cli._dispatch", interrupted)
    assert main(["run", "--methods", "cam", "--rerun"]) == 130
    assert capsys.readouterr().err == (
        "\nwsolbench: interrupted; what was done is saved, resume what had begun without --rerun: "
        "wsolbench run --methods cam\n"
    )
