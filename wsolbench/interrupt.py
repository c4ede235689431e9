"""Ctrl-C between two steps instead of inside one, so that what is saved is whole."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class Interrupt:
    """While entered, the first Ctrl-C only raises a flag, to be asked after each step; the second one acts at once.

    In a thread other than the main one nothing is caught, since Python delivers signals to the main thread.

    >>> with Interrupt() as interrupt:
    ...     interrupt.requested
    False
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: Any = None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)


def leave_to_parent(worker: int) -> None:
    """Make a data-loading worker ignore Ctrl-C: the terminal sends it to all processes, the parent decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
