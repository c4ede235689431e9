"""Being asked to stop, by a signal or because the time is up: answered between two steps, so that what is saved is whole.

Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 (sent by SLURM ahead of the end, if asked to) and the end of `--max-time` raise one flag
of the process. Inside an `Interrupt` it is asked for after each step; elsewhere the first signal ends the program where it is,
which loses nothing that was saved: files are whole or absent. A second signal acts at once, a third ends the process as the
system does.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any, Self

from wsolbench.errors import UsageError

TIME_IS_UP = 75  # exit status after --max-time: "try again later" in sysexits.h, so that a script can tell it
SAME = 0.5  # seconds within which a second signal is the first once more: a terminal and a launcher may both send it
LEAST_MARGIN = 2.0  # seconds, or a twentieth of the limit where that is less
GRACE = 30  # seconds a data-loading process outlives SIGTERM: the parent, which gets it too, finishes its step first

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
_WARNINGS = tuple(
    getattr(signal, name) for name in ("SIGUSR1", "SIGALRM") if hasattr(signal, name)
)  # the end will come


class Stopped(KeyboardInterrupt):
    """The process was asked to stop; what it had finished is saved. `status` is the exit status that says why."""

    def __init__(self, why: str = "interrupted", status: int = 128 + signal.SIGINT) -> None:
        super().__init__(why, status)  # both in `args`, so that another process can be sent it
        self.why, self.status = why, status

    def __str__(self) -> str:
        return self.why


@dataclass
class _Process:
    """What this process was asked; there is one."""

    request: Stopped | None = None  # never raised itself
    number: int = 0  # the signal that asked
    at: float = 0.0  # when it came
    raised: bool = False  # the request was acted upon
    inside: int = 0  # how many `Interrupt`s are entered
    limit: str = ""  # --max-time as it was given
    seconds: float = 0.0
    deadline: float = float("inf")
    caught_in: int | None = None  # process whose signals are caught
    before: dict[int, Any] = field(default_factory=dict)  # handlers to be put back


_process = _Process()


class Interrupt:
    """While entered, the first request to stop only raises a flag, to be asked after each step; a second one acts at once.

    In a thread other than the main one no signal is caught, since Python delivers them to the main thread.

    >>> with Interrupt() as interrupt:
    ...     interrupt.requested
    False
    """

    def __init__(self) -> None:
        self._catching: Any = None
        self._asked_at: float | None = None
        self._longest = 0.0  # seconds between two questions: a step, and saving where it fell between them

    @property
    def requested(self) -> bool:
        """Whether to save and stop now. Where time is limited, a little early: saving takes time too."""
        now = time.monotonic()
        if self._asked_at is not None:
            self._longest = max(self._longest, now - self._asked_at)
        self._asked_at = now
        margin = min(LEAST_MARGIN, _process.seconds / 20) + 2 * self._longest
        if _process.request is None and now > _process.deadline - margin:
            _process.request = _time_is_up()
        return _process.request is not None

    def stopped(self) -> Stopped:
        """What to raise once everything is saved."""
        return _stopped()

    def __enter__(self) -> Self:
        if _in_main_thread():
            self._catching = caught()
            self._catching.__enter__()
            _process.inside += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._catching is not None:
            _process.inside -= 1
            self._catching.__exit__(None, None, None)


@contextmanager
def caught() -> Iterator[None]:
    """Catch the signals that ask to stop: the command line does so from its first line to its last.

    Outside of an `Interrupt` they raise `Stopped` where the program is. A signal that something else handles or ignores
    (nohup, a job manager's library) stays with it.
    """
    global _process
    if _process.caught_in == os.getpid() or not _in_main_thread():
        yield
        return
    _process = _Process(caught_in=os.getpid())  # what was asked of an earlier call is answered
    own = (signal.SIG_DFL, signal.default_int_handler)
    try:
        for number in _SIGNALS:
            if signal.getsignal(number) in own:
                _process.before[number] = signal.signal(number, _on_signal)
        yield
    finally:
        for number, handler in _process.before.items():
            signal.signal(number, handler)
        _process.caught_in = None


@contextmanager
def limited(text: str | None) -> Iterator[None]:
    """Ask to stop when this time is up, as a signal would; None: never. In the main thread, inside `caught`.

    Raises:
        UsageError: the text is no time.
    """
    if text is None:
        yield
        return
    _process.limit, _process.seconds = text, parse_time(text)
    started = time.monotonic()
    _process.deadline = started + _process.seconds
    # the alarm is for whatever asks nobody, such as opening the data
    handler = signal.signal(signal.SIGALRM, _on_signal)
    left, again = signal.setitimer(signal.ITIMER_REAL, _process.seconds)
    try:
        yield
    finally:
        _process.deadline = float("inf")
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, left - (time.monotonic() - started)), again)


def stop_if_requested() -> None:
    """Raise `Stopped` if that was asked for: between two things of which nothing needs saving."""
    with Interrupt() as interrupt:
        if interrupt.requested:
            raise interrupt.stopped()


def request_of(error: KeyboardInterrupt) -> Stopped:
    """Why the program ends, whoever raised the error."""
    return error if isinstance(error, Stopped) else _stopped()


def is_requested() -> bool:
    """Whether this process was asked to stop."""
    return _process.request is not None


def parse_time(text: str) -> float:
    """Seconds of `2h`, `90m`, `45s`, `1h30m` or `1:30:00`.

    Raises:
        UsageError: it is none of these, or no time at all.

    >>> parse_time("1h30m"), parse_time("1:30:00"), parse_time("45s")
    (5400.0, 5400.0, 45.0)
    """
    number = r"(\d+(?:\.\d+)?)"
    found = re.fullmatch(rf"(?:{number}h)?(?:{number}m)?(?:{number}s)?|(\d+):([0-5]\d):([0-5]\d)", text.strip())
    parts = [float(part or 0) for part in found.groups()] if found else [0.0]
    seconds = sum(part * unit for part, unit in zip(parts, (3600, 60, 1) * 2, strict=False))
    if seconds <= 0:
        raise UsageError(f"--max-time '{text}': expected a time such as 2h, 90m, 45s, 1h30m or 1:30:00")
    return seconds


# --- signals ---------------------------------------------------------------------------------------------------------


def leave_to_parent(worker: int) -> None:
    """Make a data-loading worker leave signals to its parent: the terminal or SLURM send them to all processes.

    SIGTERM, which the parent itself sends to a worker that hangs, still ends it: after a while, or when it comes again.
    """
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, _end_later)


def _end_later(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    signal.alarm(GRACE)


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _process.caught_in != os.getpid():  # a forked child that has not said what it does with signals
        _as_the_system_does(number)
        return
    now = time.monotonic()
    if _process.request is None or (_process.number in _WARNINGS and number not in _WARNINGS):
        _process.request, _process.number, _process.at = _reason(number), number, now
        if not (_process.inside or _process.raised):
            _raise()
    elif number in _WARNINGS or now - _process.at < SAME:
        return
    elif not _process.raised:
        _raise()
    else:
        _as_the_system_does(number)


def _raise() -> None:
    _process.raised, _process.at = True, time.monotonic()
    raise _stopped()


def _stopped() -> Stopped:
    """A new one each time: an error that was raised keeps the frames it went through, and with them their tensors."""
    return Stopped(_process.request.why, _process.request.status) if _process.request else Stopped()


def _as_the_system_does(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _reason(number: int) -> Stopped:
    if number == signal.SIGINT:
        return Stopped()
    if number == getattr(signal, "SIGALRM", None):
        return _time_is_up()
    return Stopped(f"stopped by {signal.Signals(number).name}", 128 + number)


def _time_is_up() -> Stopped:
    return Stopped(f"stopped for --max-time {_process.limit}", TIME_IS_UP)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
