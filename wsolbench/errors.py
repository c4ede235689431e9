"""Errors whose text is meant for the user: the command line prints them as one sentence, without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class WsolbenchError(Exception):
    """Something the user can mend; the message says what was asked, what exists and the nearest match."""


class UsageError(WsolbenchError):
    """The request itself is wrong (unknown name, key or device): exit status 2, nothing was started."""


class MachineError(WsolbenchError):
    """Not the run's fault but the machine's: no room on the disk, a process that was killed. Mended, the same command goes on."""


class BadImage(WsolbenchError):
    """An image file that cannot be used: absent, damaged, or not the one that was annotated.

    >>> print(BadImage("birds/a.jpg", "cannot be decoded: image file is truncated"))
    image 'birds/a.jpg' cannot be decoded: image file is truncated
    """

    def __init__(self, path: str | Path, why: str) -> None:
        super().__init__(str(path), why)  # both in `args`, so that a worker process can send it to its parent
        self.path, self.why = Path(path), why

    def __str__(self) -> str:
        return f"image '{self.args[0]}' {self.why}"


def unknown(kind: str, asked: str, known: Iterable[str], where: str = "") -> UsageError:
    """Build the error for a name that does not exist.

    >>> print(unknown("method", "satt", ["sat", "cam"]))
    unknown method 'satt', did you mean 'sat'? Known: cam, sat
    """
    names = sorted(known)
    near = difflib.get_close_matches(asked, names, n=1)
    hint = f", did you mean '{near[0]}'?" if near else "."
    listing = f" Known: {', '.join(names)}" if names else ""
    return UsageError(f"unknown {kind} '{asked}'{where}{hint}{listing}")


def reason(error: BaseException) -> str:
    """An error as one sentence: its own text where it is meant for users, else with its type in front."""
    text = " ".join(str(error).split())
    return text if isinstance(error, WsolbenchError) and text else f"{type(error).__name__}: {text}".rstrip(": ")


def first_line(error: Exception) -> str:
    """What another library's error says, without the lines that explain the library."""
    return str(error).strip().splitlines()[0]
