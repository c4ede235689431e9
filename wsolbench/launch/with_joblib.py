"""Several runs at a time, in processes of this machine, through joblib.

Every worker has a place of its own, which decides its CUDA device. A worker that is killed (by want of memory, say) takes
joblib's whole pool with it; the runs that were going on are then tried again, each alone, so that the one at fault is known
and the others come to an end.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from joblib import Parallel, cpu_count, delayed, parallel_config

from wsolbench.config.schema import RunConfig
from wsolbench.errors import UsageError
from wsolbench.launch.options import Joblib
from wsolbench.launch.plan import Plan, make_plan, modules_of
from wsolbench.launch.spool import Follower, Spool, Task, Watch, tasks_of
from wsolbench.runs.engine import Outcome
from wsolbench.runs.opening import Session
from wsolbench.system.interrupt import Interrupt
from wsolbench.system.progress import Reporter

TWO = 2  # processes of the smallest pool: joblib would do a single one's work itself. Of two, `pre_dispatch` lets one work


def run_all(
    launcher: Joblib, configs: Sequence[RunConfig], *, rerun: bool = False, reporter: Reporter | None = None
) -> list[Outcome]:
    """`wsolbench.launch.run_all` in `launcher.jobs` processes: the same outcomes, in the order of `configs`.

    Raises:
        UsageError: one of the configurations makes no sense, or devices that are not there; none was started.
        KeyboardInterrupt: after the states of the current runs were saved.
    """
    reporter = reporter or Reporter()
    devices = _devices(launcher, configs)
    with reporter.live():
        plan = make_plan(configs, Session(reporter), rerun=rerun)
        jobs = min(launcher.jobs or len(devices) or cpu_count(), max(1, len(plan.groups)))
        with (
            tempfile.TemporaryDirectory(prefix="wsolbench-") as folder,
            reporter.bar("runs", len(configs), unit="runs") as advance,
        ):
            advance(len(plan.outcomes))
            follower = Follower(Spool(Path(folder)), plan, reporter, advance)
            if plan.groups:
                _Pool(plan, follower, jobs, devices, rerun).run()
    return [plan.outcomes[number] for number in range(len(configs))]


class _Pool:
    """Workers and what they are given to do."""

    def __init__(self, plan: Plan, follower: Follower, jobs: int, devices: list[int], rerun: bool) -> None:
        self.plan, self.follower, self.spool, self.rerun = plan, follower, follower.spool, rerun
        self.jobs = jobs
        self.places = _Places(self.spool.folder, max(TWO, jobs), tuple(devices[:jobs]))
        self.modules = modules_of(plan.configs.values())
        self.interrupt = Interrupt()

    def run(self) -> None:
        """Give every run of the plan an outcome."""
        shown = f"{self.jobs} processes" if self.jobs > 1 else "1 process"
        on = [f"cuda:{self.places.device(place)}" for place in range(self.jobs) if self.places.devices]
        self.follower.reporter.message(f"launch=joblib: {shown}{' on ' + ', '.join(on) if on else ''}")
        with self.interrupt, Watch(self._look):
            waiting = self.plan.groups
            alone: list[list[int]] = []
            while waiting:
                broken = self._carry_out(waiting, self.jobs)
                lost = self._lost()
                left = [group for group in waiting if self.plan.missing(group)]
                suspects = [group for group in left if lost & {*group} or (broken is not None and not lost)]
                alone += suspects
                waiting = [group for group in left if group not in suspects]
            for group in alone:
                while missing := self.plan.missing(group):
                    broken = self._carry_out([group], 1)
                    if broken is not None:
                        self._give_up(sorted(self._lost()) or missing, broken)

    def _give_up(self, numbers: list[int], codes: str) -> None:
        """Runs whose worker was killed though nothing else was going on."""
        for number in numbers:
            outcome = self.plan.fail(
                number, f"its process was killed{codes}; what was saved of it is taken up next time"
            )
            self.follower.reporter.message(f"{self.plan.name(number)}: failed ({outcome.reason})")
            self.follower.advance(1)

    def _carry_out(self, groups: list[list[int]], jobs: int) -> str | None:
        """Let workers do what they can; if one was killed, how, as far as that is known.

        Raises:
            KeyboardInterrupt: once all of them have stopped.
        """
        threads = None if "OMP_NUM_THREADS" in os.environ else max(1, cpu_count() // self.jobs)
        codes = None
        try:
            with parallel_config("loky", inner_max_num_threads=threads):
                pool = Parallel(max(TWO, jobs), pre_dispatch=jobs, batch_size=1, return_as="generator_unordered")
                for _ in pool(delayed(_work)(task, self.places) for task in self._tasks(groups)):
                    pass
        except BrokenProcessPool as error:
            found = re.search(r"exit codes of the workers are \{(.*)\}", str(error))
            codes = f" (exit code {found[1]})" if found else ""
            self.follower.reporter.message(
                f"launch=joblib: a process was killed{codes}"
                + ("; what was going on is tried again, alone" * (jobs > 1))
            )
        finally:
            _end_workers()
        self.follower.look()
        if self.interrupt.requested:
            raise self.interrupt.stopped()
        return codes

    def _tasks(self, groups: list[list[int]]) -> Iterator[Task]:
        """Asked for one at a time, as workers become free."""
        for task in tasks_of(self.plan, groups, self.spool, self.modules, self.rerun, os.getpid()):
            if self.interrupt.requested:
                return
            yield task

    def _lost(self) -> set[int]:
        """The runs that were going on when their worker died."""
        lost = {*self.spool.running()}
        for number in lost:
            self.spool.forget(number)
        return {*self.plan.missing(lost)}

    def _look(self) -> None:
        """Pass on what workers say; and Ctrl-C to those at work, once: it reaches no worker by itself."""
        if self.interrupt.requested and not self.spool.stop.exists():
            self.spool.stop.touch()
            self.follower.reporter.message(
                "launch=joblib: stopping when the states are saved; Ctrl-C again ends at once"
            )
            for pid in self.spool.running().values():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGINT)
        self.follower.look()
        for path in sorted(self.spool.folder.glob("worker-*.log")):
            self.follower.pass_on(path)


# --- in a worker -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Places:
    """Each worker holds one place: a lock that the system frees when the worker ends, however it ends."""

    folder: Path
    count: int
    devices: tuple[int, ...]  # as torch numbers them in the parent; none: the run decides

    def device(self, place: int) -> int:
        return self.devices[place % len(self.devices)]

    def take(self) -> int:
        """The first free place; waits for one while a worker that was killed is still going."""
        while True:
            for place in range(self.count):
                handle = os.open(self.folder / f"place-{place}", os.O_RDWR | os.O_CREAT)
                try:
                    fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held until this process ends
                    return place
                except OSError:
                    os.close(handle)
            time.sleep(0.1)


_place: int | None = None  # of this process, if it is a worker


def _work(task: Task, places: _Places) -> None:
    """Settle in at the first task; then the task."""
    global _place
    if _place is None:
        os.setpgid(0, 0)  # the terminal sends Ctrl-C to its process group: the parent decides whom to pass it on to
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _place = places.take()
        if places.devices:  # by the environment, so that whatever asks for "the" device gets this one
            os.environ["CUDA_VISIBLE_DEVICES"] = _visible(places.device(_place))
        # what libraries print would tear the parent's bar
        log = os.open(places.folder / f"worker-{_place}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
    task()


def _visible(device: int) -> str:
    """What CUDA_VISIBLE_DEVICES must say to show that device of the parent alone."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    return shown.split(",")[device].strip() if shown else str(device)


# --- devices and the end ---------------------------------------------------------------------------------------------


def _devices(launcher: Joblib, configs: Sequence[RunConfig]) -> list[int]:
    """The CUDA devices that workers take in turn; none where the runs name their own or use no CUDA."""
    wanted = {config.device for config in configs}
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    given = launcher.devices
    if given is not None:
        if not wanted <= {"auto", "cuda"}:
            raise UsageError(f"launch.devices and --device {min(wanted)} contradict each other: leave out one of them")
        absent = [index for index in given if not 0 <= index < there]
        if absent or not given:
            known = f"cuda:0 to cuda:{there - 1}" if there else "no CUDA device"
            raise UsageError(f"launch.devices={given or '[]'}: torch finds {known} here")
        return given
    return list(range(there)) if wanted <= {"auto", "cuda"} else []


def _end_workers() -> None:
    """joblib keeps workers for a next call, which could want other devices."""
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)
