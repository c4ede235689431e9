"""Leading and following: what the first process announces, the others take part in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from wsolbench.distributed.agreeing import broadcast, turn
from wsolbench.distributed.group import LostProcess, current, is_agreed, is_loss, leave_words, told


@contextmanager
def together(task: object) -> Iterator[None]:
    """The leader's side of a task: what the block does, all processes do. Others are told by `receive`."""
    group = current()
    if group is None or group.rank != 0:
        yield
        return
    broadcast(task)
    with in_step():
        with turn():  # the others have opened it
            pass
        yield


@contextmanager
def in_step() -> Iterator[None]:
    """A task in any process: after an error that the others do not know of, nothing can be done together any more."""
    assert current() is not None
    try:
        yield
    except BaseException as error:
        if is_loss(error):
            raise told(error) from error
        if not is_agreed(error) and not isinstance(error, LostProcess):
            leave_words(error)
        raise


def receive() -> Any:
    """What the leader announces next: a task as it was given to `together`, or the exit status when there is none left."""
    return broadcast(0)


def dismiss(status: int) -> None:
    """Tell the others that there is nothing left to do, and the exit status."""
    group = current()
    if group is not None and not group.is_broken:
        broadcast(status)
