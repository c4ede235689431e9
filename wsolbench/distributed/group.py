"""Several processes that work on one command, as `torchrun` starts them: how they meet, speak, agree and part.

The first process (rank 0) leads: it decides what is run, writes every file and speaks to the user. The others wait for what
it announces and take part in that (`wsolbench.launch.helpers`), so no list, file or clock is asked twice. What goes wrong in one
process inside of a `turn` is raised in all of them, at the same place. A process by itself has no group and pays nothing.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from wsolbench.errors import UsageError, WsolbenchError

if TYPE_CHECKING:  # torch is imported where a group is there: the command line asks for `processes` before that
    import torch
    from torch import nn

    from wsolbench.config.schema import RunConfig

T = TypeVar("T")

MEET = timedelta(minutes=10)  # for all processes to come up
WORK = timedelta(minutes=30)  # for a collective operation of a training step
WAIT = timedelta(days=7)  # for the leader, which may have long work of its own; a lost process is noticed at once
PATIENCE = timedelta(minutes=2)  # of a process that has failed, for the others to come where it can tell them
FLAGS = 3  # questions that a turn can put
LOST = "another process of this run has ended or cannot be reached; what was saved is kept, the same command resumes"
SIGNS = ("gloo", "connection closed", "connection reset", "broken pipe", "nccl", "socket timeout")


class LostProcess(WsolbenchError):
    """The processes cannot reach each other any more, so this command cannot go on."""


class CannotMeet(WsolbenchError):
    """The processes have not found each other."""


class OtherFailed(WsolbenchError):
    """What went wrong in another process."""


@dataclass(frozen=True)
class Task:
    """What the leader asks the others to take part in: training, or one pass of evaluation over a split."""

    config: RunConfig
    hash: str  # of the run, which all must come to
    split: str | None = None  # None: training
    by_convention: bool = False


class _Group:
    """The processes; `control` carries words, the default group tensors."""

    def __init__(self, rank: int, world: int, store: Any, control: Any) -> None:
        self.rank, self.world, self.store, self.control = rank, world, store, control
        self.is_broken = False

    def lose(self) -> None:
        """From now on nothing can be done together. The leader lets the others know that it has heard: it will speak."""
        self.is_broken = True
        if self.rank == 0:
            _try(lambda: self.store.set("heard", b"1"))


_group: _Group | None = None
_lost: _Group | None = None  # what became of it, if that went wrong


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
    _group = _Group(rank, world, store, control)
    try:
        yield
    finally:
        _part(_group)
        _group = None


def _part(group: _Group) -> None:
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
    from wsolbench.runs.directory import reason

    group = _group
    if group is None:
        return False
    group.lose()
    return _try(lambda: group.store.set("failed", f"process {group.rank}: {reason(error)}")) is None


@contextmanager
def _speaking() -> Iterator[_Group]:
    """Collective operations in the block: a loss is a `LostProcess`."""
    assert _group is not None
    if _group.is_broken:
        raise LostProcess(LOST)
    try:
        yield _group
    except RuntimeError as error:
        raise told(error) from error


# --- agreeing --------------------------------------------------------------------------------------------------------


class Turn:
    """What all processes do at the same time; see `turn`."""

    def __init__(self) -> None:
        self.answers: tuple[bool, ...] = (False,) * FLAGS
        self._asked: tuple[bool, ...] = ()

    def ask(self, *questions: bool) -> None:
        """Put up to three questions; `answers`, after the block, are true where any process asked with true."""
        self._asked = questions

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and (_group is None or not isinstance(error, Exception) or isinstance(error, LostProcess)):
            return
        if error is not None and is_loss(error):
            raise told(error) from error
        if _group is None:
            self.answers = self._padded()
            return
        try:
            failed, *answers = _any_of(error is not None, *self._padded())
        except LostProcess:
            if error is None:
                raise
            leave_words(error)  # which goes on: it is why the others did not come
            return
        self.answers = tuple(answers)
        if failed:
            _raise_first(error)

    def _padded(self) -> tuple[bool, ...]:
        return (*self._asked, *(False,) * (FLAGS - len(self._asked)))


def turn() -> Turn:
    """A block that every process goes through: what goes wrong inside, in any of them, is raised after it in all.

    >>> with turn() as each:
    ...     each.ask(True)
    >>> each.answers
    (True, False, False)
    """
    return Turn()


def any_of(flag: bool) -> bool:
    """The flag is up in any process."""
    return flag if _group is None else _any_of(False, flag)[1]


def _any_of(failed: bool, *flags: bool) -> list[bool]:
    import torch
    import torch.distributed as dist

    with _speaking() as group:
        values = torch.tensor([failed, *flags], dtype=torch.int32)
        work = dist.all_reduce(values, dist.ReduceOp.MAX, group=group.control, async_op=True)
        assert work is not None
        # after a failure here the others may be stuck inside of their turn, in an operation that waits for this process
        work.wait(PATIENCE) if failed else work.wait()
        return [bool(value) for value in values.tolist()]


def _raise_first(error: Exception | None) -> None:
    """After a turn in which something went wrong: one's own error goes on, otherwise that of the first who has one."""
    from wsolbench.runs.directory import reason

    own = None if error is None else (reason(error), "".join(traceback.format_exception(error)))
    everyone = gather(own, everywhere=True)
    if error is not None:
        agreed(error)  # on its way already
        return
    number, words = next((number, words) for number, words in enumerate(everyone) if words is not None)
    failure = OtherFailed(f"process {number}: {words[0]}")
    failure.add_note(words[1])
    raise agreed(failure)


def from_main(compute: Callable[[], T]) -> T:
    """What the leader computes, everywhere; an error of its is raised everywhere."""
    if _group is None:
        return compute()
    with turn():
        found = compute() if is_main() else None
    return _broadcast(found)  # type: ignore[return-value]


def gather(item: T, *, everywhere: bool = False) -> list[T]:
    """The items of all processes by rank, for the leader; nothing for the others, unless wanted `everywhere`."""
    if _group is None:
        return [item]
    import torch.distributed as dist

    with _speaking() as group:
        found: list[Any] = [None] * group.world
        if everywhere:
            dist.all_gather_object(found, item, group=group.control)
            return found
        dist.gather_object(item, found if group.rank == 0 else None, dst=0, group=group.control)
        return found if group.rank == 0 else []


def _broadcast(item: T) -> T:
    import torch.distributed as dist

    with _speaking() as group:
        held = [item]
        dist.broadcast_object_list(held, src=0, group=group.control)
        return held[0]


# --- leading and following -------------------------------------------------------------------------------------------


@contextmanager
def together(task: Task) -> Iterator[None]:
    """The leader's side of a task: what the block does, all processes do. Others are told by `receive`."""
    if _group is None or _group.rank != 0:
        yield
        return
    _broadcast(task)
    with in_step():
        with turn():  # the others have opened it
            pass
        yield


@contextmanager
def in_step() -> Iterator[None]:
    """A task in any process: after an error that the others do not know of, nothing can be done together any more."""
    assert _group is not None
    try:
        yield
    except BaseException as error:
        if is_loss(error):
            raise told(error) from error
        if not is_agreed(error) and not isinstance(error, LostProcess):
            leave_words(error)
        raise


def receive() -> Task | int:
    """The next task, or the exit status when there is none left."""
    return _broadcast(0)


def dismiss(status: int) -> None:
    """Tell the others that there is nothing left to do, and the exit status."""
    if _group is not None and not _group.is_broken:
        _broadcast(status)


def share_weights(module: nn.Module) -> None:
    """Give every process the leader's parameters and buffers."""
    if _group is None:
        return
    import torch
    import torch.distributed as dist

    with _speaking(), torch.no_grad():
        for value in module.state_dict().values():
            dist.broadcast(value, src=0)


def mean(values: torch.Tensor) -> torch.Tensor:
    """The mean of the processes' values, without gradients."""
    if _group is None:
        return values
    import torch.distributed as dist

    with _speaking() as group:
        total = values.detach().clone()
        dist.all_reduce(total)
        return total / group.world
