"""What a verb says of itself, and the parser that is built from it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from wsolbench.errors import UsageError

MAX_TIME = (
    "save and stop by then, with exit status 75; the same command goes on: 2h, 90m, 45s, 1:30:00 (default: never)"
)


@dataclass(frozen=True)
class Verb:
    """One verb. Its file holds its flags and what carries it out, and imports nothing heavy before that."""

    name: str
    summary: str
    example: str  # works offline, on a laptop
    add_flags: Callable[[argparse.ArgumentParser], None]
    carry_out: Callable[[argparse.Namespace, list[str]], int]
    """Given the flags and the words that are none; returns the exit status."""
    takes_overrides: bool = False
    """Words `key=value` may stand beside the flags."""
    in_several_processes: bool = False
    """May be started by torchrun."""
    keeps: bool = False
    """Stopped, it has kept what was done, and the same command goes on."""
    verbs: tuple[Verb, ...] = ()  # below it


class Parser(argparse.ArgumentParser):
    """argparse whose complaints are `UsageError`s and whose flags are never abbreviated."""

    def __init__(self, *, example: str = "", description: str = "", prog: str | None = None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=f"example (works offline, on a laptop):\n  {example}" if example else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see '{self.prog} --help'")


def add_verbs(parser: argparse.ArgumentParser, verbs: Iterable[Verb]) -> None:
    """Give a parser its verbs, with the verbs below them."""
    among: Any = parser.add_subparsers(title="verbs", metavar="VERB", parser_class=Parser)
    for verb in verbs:
        made = among.add_parser(verb.name, help=verb.summary, description=verb.summary, example=verb.example)
        made.set_defaults(verb=verb, parser=made)
        verb.add_flags(made)
        if verb.verbs:
            add_verbs(made, verb.verbs)


def parsers_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of a parser's verbs, by name."""
    return {
        name: verb
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for name, verb in action.choices.items()
    }


def no_flags(parser: argparse.ArgumentParser) -> None:
    """For a verb that has other verbs alone."""


def print_text(text: str | None) -> None:
    """Print a text, if there is any, with one line end."""
    if text is not None:
        print(text, end="" if text.endswith("\n") else "\n")
