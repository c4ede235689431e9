"""What all processes do at the same time, and come to one answer about: turns, values of the leader, values of all."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

from wsolbench.distributed.group import (
    LostProcess,
    OtherFailed,
    agreed,
    current,
    is_loss,
    is_main,
    leave_words,
    speaking,
    told,
)
from wsolbench.errors import reason

T = TypeVar("T")

PATIENCE = timedelta(minutes=2)  # of a process that has failed, for the others to come where it can tell them
FLAGS = 3  # questions that a turn can put


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
        if error is not None and (
            current() is None or not isinstance(error, Exception) or isinstance(error, LostProcess)
        ):
            return
        if error is not None and is_loss(error):
            raise told(error) from error
        if current() is None:
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
    return flag if current() is None else _any_of(False, flag)[1]


def _any_of(failed: bool, *flags: bool) -> list[bool]:
    import torch
    import torch.distributed as dist

    with speaking() as group:
        values = torch.tensor([failed, *flags], dtype=torch.int32)
        work = dist.all_reduce(values, dist.ReduceOp.MAX, group=group.control, async_op=True)
        assert work is not None
        # after a failure here the others may be stuck inside of their turn, in an operation that waits for this process
        work.wait(PATIENCE) if failed else work.wait()
        return [bool(value) for value in values.tolist()]


def _raise_first(error: Exception | None) -> None:
    """After a turn in which something went wrong: one's own error goes on, otherwise that of the first who has one."""
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
    if current() is None:
        return compute()
    with turn():
        found = compute() if is_main() else None
    return broadcast(found)  # type: ignore[return-value]


def gather(item: T, *, everywhere: bool = False) -> list[T]:
    """The items of all processes by rank, for the leader; nothing for the others, unless wanted `everywhere`."""
    if current() is None:
        return [item]
    import torch.distributed as dist

    with speaking() as group:
        found: list[Any] = [None] * group.world
        if everywhere:
            dist.all_gather_object(found, item, group=group.control)
            return found
        dist.gather_object(item, found if group.rank == 0 else None, dst=0, group=group.control)
        return found if group.rank == 0 else []


def broadcast(item: T) -> T:
    """The leader's item, everywhere; there must be a group."""
    import torch.distributed as dist

    with speaking() as group:
        held = [item]
        dist.broadcast_object_list(held, src=0, group=group.control)
        return held[0]
