"""What data-loading processes send, and what is said when one of them dies."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from wsolbench.errors import MachineError, WsolbenchError
from wsolbench.system.interrupt import is_requested, stop_if_requested

CAUSES = {
    signal.SIGKILL: "as the system does when memory runs out",
    signal.SIGSEGV: "an error inside a library",
    signal.SIGBUS: "shared memory has run out: see 'df /dev/shm'",
}


def from_workers(loader: Any, option: str, waiting: Callable[[int], str]) -> Iterator[Any]:
    """Go through a `DataLoader`; an error that a worker met comes as a value, and is raised here as the sentence it was.

    Args:
        loader: with any number of workers.
        option: that says how many there are.
        waiting: describes item n, for when a worker dies and it does not come; it may have died at one that was loaded ahead.

    Raises:
        MachineError: a worker died. It is noticed where its item is awaited, not in the middle of a step.
    """
    batches = _iterator(loader)
    count = 0
    try:
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                if not str(error).startswith("DataLoader worker (pid"):
                    raise
                raise _death(batches, option, waiting(count)) from error
            if isinstance(batch, WsolbenchError):
                raise batch
            yield batch
            count += 1
    finally:
        # Let go here. The garbage collector would close the queues first; through them the workers are told to end, and
        # torch would wait 5 seconds for each of them in vain.
        del batches


def _death(batches: Any, option: str, awaited: str) -> MachineError:
    """What to say of a worker that died."""
    if is_requested():  # all processes were told to stop, and the worker was quicker
        stop_if_requested()
    return MachineError(
        f"a data-loading process died{_cause(batches)} while {awaited} or what follows was loaded; what was saved before is "
        f"kept: run the same command again, with fewer processes or none ({option}=0), which takes less memory"
    )


def _iterator(loader: Any) -> Any:
    """Begin, without torch's handler of SIGCHLD, which would raise an error wherever the main thread is at that moment."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    batches = iter(loader)
    if before is not None:
        signal.signal(signal.SIGCHLD, before)
    return batches


def _cause(batches: Any) -> str:
    """How it ended, where torch still knows its workers."""
    for worker in getattr(batches, "_workers", ()):
        code = worker.exitcode
        if code is not None and code < 0:
            number = signal.Signals(-code)
            return f" ({', '.join(filter(None, (f'killed by {number.name}', CAUSES.get(number))))})"
        if code:
            return f" (exit status {code})"
    return ""
