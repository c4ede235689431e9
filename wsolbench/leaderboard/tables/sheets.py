"""Tables before they have a format: sheets of fields with marks, and a legend; `wsolbench.leaderboard.formats` writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

Mark: TypeAlias = Literal["best", "second", "tied"]


class Head(NamedTuple):
    """A column's title in two parts, which a terminal sets below each other."""

    name: str
    detail: str = ""
    key: str = ""  # what a narrow terminal drops it by: see `Document.dispensable`
    kind: Literal["text", "value", "cost"] = "value"

    def __str__(self) -> str:
        return self.name + self.detail if self.detail.startswith("@") else f"{self.name} {self.detail}".strip()


@dataclass(frozen=True)
class Field:
    """One field of a table. `detail` follows in weaker type: the spread of a mean."""

    text: str
    detail: str = ""
    marks: frozenset[Mark] = frozenset()


NOTHING = Field("-")


@dataclass(frozen=True)
class Line:
    """One row of a table; a muted one is there for reference."""

    fields: tuple[Field, ...]
    muted: bool = False


@dataclass(frozen=True)
class Sheet:
    """One table with its title and what stands below it, a sentence each."""

    title: str  # parts are parted by " | "
    heads: tuple[Head, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Signs:
    """How a format shows marks, for the legend; None: it does not."""

    best: str = "*"
    second: str | None = None
    tied: str = "≈"
    dropped: tuple[str, ...] = ()  # keys of the columns that found no room


@dataclass(frozen=True)
class Document:
    """Everything a verb has to show, for any format.

    `records` is the same as tidy rows, in full precision, for CSV; `dispensable` are the keys of columns in the order in
    which a narrow terminal may drop them, `early` of which go before values move to a second line.
    """

    title: str
    sheets: tuple[Sheet, ...]
    legend: Callable[[Signs], Sequence[str]]
    records: Sequence[Mapping[str, Any]]
    command: str | None = None
    empty: str = "No finished runs."
    dispensable: tuple[str, ...] = ()
    early: int = 0
