"""How worker processes tell what becomes of their runs: through files, which outlive a worker that is killed.

A worker leaves, for the run of number N, `N.txt` (what it says, line by line), `N.pid` (while the run goes on) and `N.pkl`
(its outcome, whole or absent). The parent reads them every now and then; a file named `stop` asks workers to begin nothing
more. The same files serve processes on this machine and jobs on others that share a file system.
"""

from __future__ import annotations

import importlib
import io
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console

from wsolbench.config.schema import RunConfig
from wsolbench.errors import reason
from wsolbench.launch.here import carry_out, open_one
from wsolbench.launch.plan import Plan
from wsolbench.runs.engine import Outcome
from wsolbench.runs.opening import Session
from wsolbench.system.files import write_bytes
from wsolbench.system.progress import Advance, Reporter


@dataclass(frozen=True)
class Spool:
    """A folder that the parent and its workers see."""

    folder: Path

    def text(self, number: int) -> Path:
        return self.folder / f"{number:05d}.txt"

    def pid(self, number: int) -> Path:
        return self.folder / f"{number:05d}.pid"

    def outcome(self, number: int) -> Path:
        return self.folder / f"{number:05d}.pkl"

    @property
    def stop(self) -> Path:
        return self.folder / "stop"

    def running(self) -> dict[int, int]:
        """Runs that have begun and not ended, with the process that was at it; it may be dead."""
        found = {}
        for path in self.folder.glob("*.pid"):
            with suppress(OSError, ValueError):  # it ends, or begins, just now
                found[int(path.stem)] = int(path.read_text())
        return found

    def forget(self, number: int) -> None:
        """A run whose process is dead is not going on any more."""
        self.pid(number).unlink(missing_ok=True)


# --- in a worker -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """The runs of one group, to be carried out by one process; what has an outcome already is left alone."""

    spool: Spool
    runs: tuple[tuple[int, str, RunConfig], ...]  # number, title, configuration
    modules: tuple[str, ...]  # that register their plug-ins
    rerun: bool = False
    parent: int | None = None  # process without which nothing more begins; None: goes on by itself

    def __call__(self) -> None:
        """Carry them out, one after another. Never raises: what goes wrong is an outcome."""
        reporter = Reporter(Console(file=io.StringIO(), force_terminal=False))
        session = Session(reporter)
        for number, title, config in self.runs:
            if self.spool.outcome(number).exists():
                continue
            if self.spool.stop.exists() or self.parent not in (None, os.getppid()):
                return
            again = self.spool.text(number).exists()  # a worker has begun this run and died, or was sent away
            with self.spool.text(number).open("a", encoding="utf-8", buffering=1) as text:
                reporter.console.file = text
                write_bytes(self.spool.pid(number), str(os.getpid()).encode())
                try:
                    with _interruptible():
                        outcome = self._carry_out(config, session, title, again)
                except KeyboardInterrupt:  # after saving its state, and saying so
                    return
                finally:
                    self.spool.forget(number)
            write_bytes(self.spool.outcome(number), pickle.dumps(outcome))

    def _carry_out(self, config: RunConfig, session: Session, title: str, again: bool) -> Outcome:
        try:
            for module in self.modules:
                importlib.import_module(module)
            job = open_one(config, session)
            # taken up again, a run keeps what the worker before had saved of it
            rerun = self.rerun and not (again and not isinstance(job, Outcome) and not job.directory.is_done())
        except Exception as error:  # noqa: BLE001 (such as a data set that this machine does not see)
            return Outcome(config, None, "failed", reason(error))
        return carry_out(job, session, title, rerun=rerun)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C reach a run, and nothing between two runs. Where a thread carries it out, signals are the main thread's."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def tasks_of(
    plan: Plan, groups: list[list[int]], spool: Spool, modules: list[str], rerun: bool, parent: int | None = None
) -> list[Task]:
    """One task for each group, of its runs that have no outcome."""
    return [
        Task(
            spool,
            tuple((number, plan.title(number), plan.configs[number]) for number in plan.missing(group)),
            tuple(modules),
            rerun,
            parent,
        )
        for group in groups
    ]


# --- in the parent ---------------------------------------------------------------------------------------------------


class Follower:
    """Passes on what workers say, a whole line at a time, and collects outcomes. Read by one thread at a time."""

    def __init__(self, spool: Spool, plan: Plan, reporter: Reporter, advance: Advance) -> None:
        self.spool, self.plan, self.reporter, self.advance = spool, plan, reporter, advance
        self._read: dict[Path, int] = {}  # bytes of each text that were passed on
        self._lock = threading.Lock()

    def look(self) -> None:
        """Read what is new."""
        with self._lock:
            for number in self.plan.missing(self.plan.configs):
                ended = self.spool.outcome(number).exists()  # asked first: then its text is complete
                self.pass_on(self.spool.text(number))
                if ended:
                    self.plan.outcomes[number] = pickle.loads(self.spool.outcome(number).read_bytes())
                    self.advance(1)

    def pass_on(self, path: Path) -> None:
        """Say the new whole lines of a file."""
        try:
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                whole, newline, _ = file.read().rpartition(b"\n")
        except OSError:
            return
        self._read[path] = self._read.get(path, 0) + len(whole) + len(newline)
        for line in whole.decode(errors="replace").splitlines():
            self.reporter.message(line)


class Watch:
    """While entered, a thread calls `look` again and again, and once more at the end."""

    def __init__(self, look: Callable[[], None], seconds: float = 0.2) -> None:
        self._look, self._seconds = look, seconds
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._left.wait(self._seconds):
            self._look()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        self._thread.join()
        self._look()
