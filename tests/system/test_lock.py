"""Locks between real processes: who holds one is told, and a dead process holds none."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.system.lock import LOCK, locked

ROOT = Path(__file__).parents[2]
BEGIN = "import os, signal, subprocess, sys, time; from pathlib import Path; from wsolbench.system.lock import _held, locked\n"
BY = r"process \d+ on \S+ since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC"


def process(folder: Path, code: str) -> subprocess.Popen[str]:
    """A process that runs `code`, in which `folder` is the folder; to be read from and written to."""
    return subprocess.Popen(
        [sys.executable, "-c", f"{BEGIN}folder = Path(sys.argv[1])\n{code}", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def holder(folder: Path, then: str) -> subprocess.Popen[str]:
    """A process that is in the folder, and does something there."""
    made = process(folder, f"with locked(folder):\n    print('in', flush=True)\n    {then}")
    assert made.stdout is not None
    assert made.stdout.readline() == "in\n"
    return made


def test_who_is_in_is_told_and_since_when(tmp_path: Path) -> None:
    other = holder(tmp_path, "input()")
    said = rf"^run directory '{tmp_path}' is in use by {BY}$"
    with pytest.raises(WsolbenchError, match=said) as caught, locked(tmp_path):
        pass
    assert f"process {other.pid} on" in str(caught.value)
    other.communicate("\n")
    with locked(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_whoever_waits_says_for_whom(tmp_path: Path) -> None:
    other = holder(tmp_path, "time.sleep(0.5)")
    said: list[str] = []
    with locked(tmp_path, wait=True, say=said.append):
        assert other.wait(timeout=30) == 0
    (sentence,) = said
    assert re.fullmatch(rf"waiting for {BY}, which works in '{tmp_path}'", sentence)


def test_a_process_that_was_killed_leaves_no_lock_though_its_children_live(tmp_path: Path) -> None:
    """Forked children, such as data-loading processes, share open files; they live on for some seconds."""
    fork = (
        "ready, begun = os.pipe(); pid = os.fork()\n"
        "    if pid == 0: os.write(begun, b'.'); time.sleep(60)\n"
        "    os.read(ready, 1); print(pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    other = holder(tmp_path, fork)
    assert other.wait(timeout=30) == -signal.SIGKILL
    assert other.stdout is not None
    child = int(other.stdout.readline())
    try:
        assert (tmp_path / LOCK).is_file()
        os.kill(child, 0)
        with locked(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_child_that_was_given_the_lock_is_told_from_its_dead_parent(tmp_path: Path) -> None:
    give = (
        "child = subprocess.Popen(['sleep', '60'], pass_fds=list(_held), stdout=subprocess.DEVNULL)\n"
        "    print(child.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    other = holder(tmp_path, give)
    assert other.wait(timeout=30) == -signal.SIGKILL
    assert other.stdout is not None
    child = int(other.stdout.readline())
    try:
        said = rf"in use by a process that was started by process {other.pid} on .*, which is dead itself: wait until"
        with pytest.raises(WsolbenchError, match=said), locked(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_forked_child_neither_holds_the_lock_nor_frees_it(tmp_path: Path) -> None:
    with locked(tmp_path):
        pid = os.fork()
        if pid == 0:
            try:
                raise SystemExit  # leaves the block, as an error would
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        assert (tmp_path / LOCK).is_file()
        with pytest.raises(WsolbenchError, match=f"in use by process {os.getpid()} on"), locked(tmp_path):
            pass


def test_one_at_a_time(tmp_path: Path) -> None:
    """Three processes add to a number, which they read and write in two steps."""
    (tmp_path / "count").write_text("0")
    add = (
        "count = folder / 'count'\n"
        "for _ in range(200):\n"
        "    with locked(folder, wait=True):\n"
        "        count.write_text(str(int(count.read_text()) + 1))"
    )
    processes = [process(tmp_path, add) for _ in range(3)]
    assert [each.wait(timeout=120) for each in processes] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "600"
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_one_sentence(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(handle: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    said = (
        rf"lies on a file system without locks \({os.strerror(number)}\), .* write to another --out, or mount it with"
    )
    with pytest.raises(UsageError, match=said), locked(tmp_path):
        pass
