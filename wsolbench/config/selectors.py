"""Who chooses the checkpoint, the threshold and the hyper-parameters, as it is written: `name` or `name:argument`.

E.g. `val-boxes`, `val-pseudo:rpn`, `fixed:0.2`, `test-oracle:sat`. How each of them chooses: `wsolbench.protocols.select`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from wsolbench.conventions import CONVENTIONS, get_convention
from wsolbench.errors import UsageError, unknown

PSEUDO = "val-pseudo"  # val's outcomes against pseudo-boxes, where outcomes are kept by name
LAST = "last"

Choice = Literal["checkpoint", "threshold"]


@dataclass(frozen=True)
class Kind:
    """A row of the table of selectors: what it chooses, what it looks at for that, what may stand behind its colon."""

    name: str
    chooses: tuple[Choice, ...]
    looks_at: str | None = None
    """The annotation it needs: "val", "test" (boxes), "val-pseudo" (pseudo-boxes of val); None: labels or nothing."""
    argument: Literal["", "source", "threshold", "thresholds"] = ""
    """A maker of pseudo-boxes, or one threshold (which must be there) or several: numbers, or a convention's."""
    supervision: int = 0
    """How much it is told: selectors stand in this order in tables, the least first."""


# A new selector is a row here and a function in `wsolbench.protocols.select`; all else follows from these.
KINDS = (
    Kind(LAST, ("checkpoint",)),
    Kind("class-accuracy", ("checkpoint",), supervision=1),
    Kind("otsu", ("threshold",)),
    Kind("fixed", ("threshold",), argument="threshold"),
    Kind("val-boxes", ("checkpoint", "threshold"), "val", supervision=3),
    Kind(PSEUDO, ("checkpoint", "threshold"), PSEUDO, argument="source", supervision=2),
    Kind("test-oracle", ("checkpoint", "threshold"), "test", argument="thresholds", supervision=4),
)
_BY_NAME = {kind.name: kind for kind in KINDS}
# "val" or "test" -> who chooses by its boxes
SELECTOR_OF = {kind.looks_at: kind.name for kind in KINDS if kind.looks_at}


def kinds_of(choice: Choice) -> tuple[Kind, ...]:
    """The selectors that choose a checkpoint, or a threshold.

    >>> [kind.name for kind in kinds_of("threshold")]
    ['otsu', 'fixed', 'val-boxes', 'val-pseudo', 'test-oracle']
    """
    return tuple(kind for kind in KINDS if choice in kind.chooses)


def names_by_supervision(choice: Choice) -> tuple[str, ...]:
    """Names of those that stand by themselves, the least supervised first: the axes of a protocol matrix.

    >>> names_by_supervision("checkpoint")
    ('last', 'class-accuracy', 'val-pseudo', 'val-boxes', 'test-oracle')
    """
    free = [kind for kind in kinds_of(choice) if kind.argument != "threshold"]
    return tuple(kind.name for kind in sorted(free, key=lambda kind: kind.supervision))


class Settings(NamedTuple):
    """What a selector is told beside the outcomes."""

    interval: float = 0.01  # spacing of the thresholds among which is chosen
    candidates: tuple[float, ...] = ()  # chosen among these instead


@dataclass(frozen=True)
class Selector:
    """`name[:argument]`, taken apart."""

    name: str
    argument: str = ""

    def __str__(self) -> str:
        return f"{self.name}:{self.argument}" if self.argument else self.name

    @property
    def kind(self) -> Kind:
        """Its row in the table."""
        return _BY_NAME[self.name]

    @property
    def looks_at(self) -> str | None:
        """The annotation it needs, see `Kind.looks_at`."""
        return self.kind.looks_at

    def settings(self, dataset: str, backbone: str, interval: float) -> Settings:
        """What the argument means on a data set: thresholds of a convention differ between them."""
        if self.kind.argument not in ("threshold", "thresholds") or not self.argument:
            return Settings(interval)
        if self.argument in CONVENTIONS:
            return Settings(interval, get_convention(self.argument).thresholds_for(dataset, backbone))
        return Settings(interval, tuple(map(float, self.argument.split("/"))))


def parse_checkpoint(text: str) -> Selector:
    """`last`, `class-accuracy`, `val-boxes`, `val-pseudo[:SOURCE]`, `test-oracle[:CONVENTION | :t/t/...]`.

    Raises:
        UsageError: there is none of that name, or it takes no such argument.

    >>> parse_checkpoint("test-oracle:sat")
    Selector(name='test-oracle', argument='sat')
    """
    return _parse("protocol.checkpoint", text, kinds_of("checkpoint"))


def parse_threshold(text: str) -> Selector:
    """`val-boxes`, `val-pseudo[:SOURCE]`, `test-oracle[:CONVENTION | :t/t/...]`, `otsu`, `fixed:t` or `fixed:CONVENTION`.

    Raises:
        UsageError: there is none of that name, or it takes no such argument.

    >>> parse_threshold("fixed:0.2").settings("cub", "-", 0.01).candidates
    (0.2,)
    """
    return _parse("protocol.threshold", text, kinds_of("threshold"))


def parse_search(text: str) -> Selector:
    """Who chooses among the trials of a search: as `parse_checkpoint`, but for `last`.

    >>> parse_search("val-boxes")
    Selector(name='val-boxes', argument='')
    """
    return _parse("search.by", text, [kind for kind in kinds_of("checkpoint") if kind.name != LAST])


def _parse(key: str, text: str, known: Sequence[Kind]) -> Selector:
    name, _, argument = text.partition(":")
    kind = next((kind for kind in known if kind.name == name), None)
    if kind is None:
        raise unknown(key, text, [kind.name for kind in known])
    if argument and not kind.argument:
        raise UsageError(f"{key}={text}: '{name}' takes no argument")
    if argument and kind.argument != "source" and argument not in CONVENTIONS:
        _check_thresholds(key, text, argument)
    selector = Selector(name, argument)
    if kind.argument == "threshold" and len(selector.settings("", "-", 0.01).candidates) != 1:
        raise UsageError(
            f"{key}={text}: expected one threshold, e.g. fixed:0.2, or a convention with a fixed one, fixed:tscam"
        )
    return selector


def _check_thresholds(key: str, text: str, argument: str) -> None:
    try:
        values = list(map(float, argument.split("/")))
    except ValueError:
        raise UsageError(
            f"{key}={text}: '{argument}' is neither a threshold (several: 0.3/0.4) nor a convention: {', '.join(CONVENTIONS)}"
        ) from None
    if not all(0 <= value < 1 for value in values):
        raise UsageError(f"{key}={text}: thresholds lie in [0, 1)")
