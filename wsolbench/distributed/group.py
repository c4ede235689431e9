"""The processes of a command: who is there, how they meet and part, and what is said when one is lost.

torch is imported where a group is there: the command line asks for `processes` before that.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from wsolbench.errors import UsageError, WsolbenchError, reason

MEET = timedelta(minutes=10)  # for all processes to come up
WORK = timedelta(minutes=30)  # for a collective operation of a training step
WAIT = timedelta(days=7)  # for the leader, which may have long work of its own; a lost process is noticed at once
LOST = "another process of this run has ended or cannot be reached; what was saved is kept, the same command resumes"
SIGNS = ("gloo", "connection closed", "connection reset", "broken pipe", "nccl", "socket timeout")


class LostProcess(WsolbenchError):
    """The processes cannot reach each other any more, so this command cannot go on."""


class CannotMeet(WsolbenchError):
    """The processes have not found each other."""


class OtherFailed(WsolbenchError):
    """What went wrong in another process."""


class Group:
    """The processes; `control` carries words, the default group tensors."""

    def __init__(self, rank: int, world: int, store: Any, control: Any) -> None:
        self.rank, self.world, self.store, self.control = rank, world, store, control
        self.is_broken = False

    def lose(self) -> None:
        """From now on nothing can be done together. The leader lets the others know that it has heard: it will speak."""
        self.is_broken = True
        if self.rank == 0:
            _try(lambda: self.store.set("heard", b"1"))


_group: Group | None = None
_lost: Group | None = None  # what became of it, if that went wrong


def current() -> Group | None:
    """The processes that work together; None: this one is alone."""
    return _group


# --- who is there ----------------------------------------------------------------------------------------------------


def processes() -> int:
    """How many processes were started to work together, by `torchrun` or whoever set WORLD_SIZE."""
    return max(1, int(os.environ.get("WORLD_SIZE") or 1))


def is_first() -> bool:
    """This process is the one that speaks, before any group is there."""
    return processes() == 1 or os.environ.get("RANK", "0") == "0"


def local_rank() -> int:
    """The number of this process on its machine, which is that of its GPU."""
    return int(os.environ.get("LOCAL_RANK") or os.environ.get("RANK") or 0)


def rank() -> int:
    """The number of this process; 0 leads."""
    return 0 if _group is None else _group.rank


def world() -> int:
    """How many processes work together."""
    return 1 if _group is None else _group.world


def is_main() -> bool:
    """This process leads, or is alone."""
    return rank() == 0


def apart() -> tuple[int, ...]:
    """What a seed takes up where processes must not draw the same; nothing in the leader, whose draws are one process's."""
    return () if is_main() else (rank(),)


def is_broken() -> bool:
    """The processes have lost each other or are out of step: nothing can be done together any more."""
    return _group is not None and _group.is_broken


@contextmanager
def joined() -> Iterator[None]:
    """Meet the other processes at the place that RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT name; part at the end.

    Tensors on CUDA devices go through nccl, all others through gloo.

    Raises:
        UsageError: the place is not named.
        CannotMeet: not all have come.
    """
    import torch
    import torch.distributed as dist

    global _group
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise UsageError(
            f"WORLD_SIZE is {processes()}, but {' and '.join(missing)} not set: start several processes with "
            "torchrun --nproc-per-node N -m wsolbench run ..."
        )
    try:
        store, rank, world = next(dist.rendezvous("env://", timeout=MEET))  # type: ignore[attr-defined]
        backend = "gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(min(local_rank(), torch.cuda.device_count() - 1))
            backend = "cpu:gloo,cuda:nccl"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=WORK)
        control = dist.new_group(backend="gloo", timeout=WAIT)
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise CannotMeet(
            f"process {os.environ['RANK']} of {processes()} could not meet the others at {place}: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    _group = Group(rank, world, store, control)
    try:
        yield
    finally:
        _part(_group)
        _group = None


def _part(group: Group) -> None:
    """Close the connections. After a loss they stay, see `leave`; the leader waits a moment for those who know of it."""
    global _lost
    import torch.distributed as dist

    if not group.is_broken:
        _try(dist.destroy_process_group)
        return
    _lost = group
    if group.rank > 0:
        _try(lambda: group.store.set(f"left/{group.rank}", b"1"))
    else:
        others = [f"left/{other}" for other in range(1, group.world)]
        _try(lambda: group.store.wait(others, timedelta(seconds=2)))


def leader_is_gone() -> bool:
    """After a loss: the leader has ended without a word, so another process has to speak."""
    group = _lost
    return group is not None and _try(lambda: group.store.wait(["heard"], timedelta(seconds=5))) is not None


def leave(status: int) -> int:
    """The exit status. After a loss the process ends here and now.

    Operations that will not come to an end would keep it from closing its connections, by which others notice.
    """
    if _lost is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _try(act: Callable[[], object]) -> Exception | None:
    """Do what is of use if it works out; a store may be gone with the process that held it."""
    try:
        act()
    except (RuntimeError, ValueError) as error:
        return error
    return None


# --- what goes wrong -------------------------------------------------------------------------------------------------


def agreed(error: BaseException) -> BaseException:
    """Mark an exception that every process raises at this same place, so that they stay together after it."""
    error.__dict__["is_agreed"] = True
    return error


def is_agreed(error: BaseException) -> bool:
    """Every process has raised it, or something in its place."""
    return bool(error.__dict__.get("is_agreed"))


def is_together(error: BaseException) -> bool:
    """After this error the processes are still together."""
    return is_agreed(error) and not is_broken()


def is_loss(error: BaseException) -> bool:
    """An operation failed because another process is gone, as far as torch's words tell."""
    import torch.distributed as dist

    if _group is None or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, dist.DistError) or any(sign in str(error).lower() for sign in SIGNS)


def told(error: BaseException) -> LostProcess:
    """A loss in words: those of the process that has left, if it left any."""
    group, words = _group, bytearray()
    assert group is not None
    group.lose()
    _try(lambda: words.extend(group.store.get("failed") if group.store.check(["failed"]) else b""))
    lost = LostProcess(words.decode(errors="replace") or LOST)
    lost.__cause__ = error
    return lost


def leave_words(error: BaseException) -> bool:
    """Say why this process leaves the others behind, before it does; tells whether that could be said."""
    group = _group
    if group is None:
        return False
    group.lose()
    return _try(lambda: group.store.set("failed", f"process {group.rank}: {reason(error)}")) is None


@contextmanager
def speaking() -> Iterator[Group]:
    """Collective operations in the block: a loss is a `LostProcess`."""
    assert _group is not None
    if _group.is_broken:
        raise LostProcess(LOST)
    try:
        yield _group
    except RuntimeError as error:
        raise told(error) from error
