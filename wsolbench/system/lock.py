"""One process at a time in a folder: a lock of the operating system, which frees it when its owner dies."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from wsolbench.errors import UsageError, WsolbenchError

LOCK = ".lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)

_held: set[int] = set()  # open lock files of this process


@contextmanager
def locked(
    folder: Path, *, wait: bool = False, say: Callable[[str], None] | None = None, kind: str = "run directory"
) -> Iterator[None]:
    """Keep other processes out of a folder, which is made if need be.

    The file `.lock` says who is in. One that a dead process left behind keeps nobody out: the system has freed its lock, on
    whichever host it ran. Forked children do not hold it: the folder is free as soon as its owner is gone.

    Args:
        folder: to be alone in.
        wait: until the other process has left, rather than raise an error.
        say: is told whom it waits for.
        kind: what the folder is called in errors.

    Raises:
        WsolbenchError: another process is in.
        UsageError: the folder cannot be written, or its file system has no locks.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _acquire(folder, wait, say, kind)
    except OSError as error:
        if error.errno in NO_LOCKS:
            raise UsageError(
                f"{kind} '{folder}' lies on a file system without locks ({error.strerror}), where two processes could "
                "not be kept apart: write to another --out, or mount it with flock"
            ) from error
        raise UsageError(f"{kind} '{folder}' cannot be written: {error.strerror or error}") from error
    _held.add(handle)
    try:
        yield
    finally:
        if handle in _held:  # else this is a forked child
            _held.discard(handle)
            try:
                with suppress(OSError):
                    (folder / LOCK).unlink(missing_ok=True)
            finally:
                os.close(handle)  # frees the lock


def _acquire(folder: Path, wait: bool, say: Callable[[str], None] | None, kind: str) -> int:
    path = folder / LOCK
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            taken = _take(handle)
            if not taken and _is_dead(_read(handle)):
                time.sleep(0.2)  # a child has yet to let go of it, or the successor to sign
                taken = _take(handle)
            if not taken and not wait:
                raise WsolbenchError(f"{kind} '{folder}' is in use by {_owner(handle)}")
            if not taken:
                if say is not None:
                    say(f"waiting for {_owner(handle)}, which works in '{folder}'")
                fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_there(path, handle):
                _sign(handle)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _take(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_there(path: Path, handle: int) -> bool:
    """The former owner removes the file when it leaves: a lock on a removed file keeps nobody out."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _sign(handle: int) -> None:
    """Say who holds it; for others to read, so a full disk is no reason to stop."""
    with suppress(OSError):
        os.truncate(handle, 0)
        since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()} since {since}\n".encode(), 0)


def _owner(handle: int) -> str:
    """Who holds a lock, as far as the file tells."""
    text = _read(handle)
    if _is_dead(text):
        return (
            f"a process that was started by {text}, which is dead itself: wait until its children are gone, or end them"
        )
    return text or "another process"


def _read(handle: int) -> str:
    return os.pread(handle, 200, 0).decode(errors="replace").strip()


def _is_dead(text: str) -> bool:
    """The text names a process of this host that is no more."""
    found = re.match(r"process (\d+) on (\S+)", text)
    if not found or found[2] != socket.gethostname():
        return False
    try:
        os.kill(int(found[1]), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False  # it is another user's
    return False


def _let_go() -> None:
    """Forked children have a copy of every open file, and with it a share in its lock."""
    for handle in _held:
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
