"""Errors whose text is meant for the user: the command line prints them as one sentence, without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class WsolbenchError(Exception):
    """Something the user can mend; the message says what was asked, what exists and the nearest match."""


class UsageError(WsolbenchError):
    """The request itself is wrong (unknown name, key or device): exit status 2, nothing was started."""


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
