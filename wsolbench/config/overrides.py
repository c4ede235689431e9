"""`key=value` from the command line: Hydra's grammar in, checked choices out. A choice of several values is a sweep."""

from __future__ import annotations

import difflib
import functools
import types
import typing
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

from wsolbench.errors import UsageError

PATH_KEYS = {"root", "out", "checkpoint", "experiment", "data.subset", "search.space", "protocol.pseudo_boxes"}


@dataclass(frozen=True)
class Choice:
    """One `key=value` as written (`text`) and the values it stands for; more than one is a sweep."""

    key: str
    values: tuple[Any, ...]
    text: str


def names_in(text: str | None) -> list[str]:
    """The names of a comma list, each once.

    >>> names_in("sat, tscam,,sat")
    ['sat', 'tscam']
    """
    return list(dict.fromkeys(name.strip() for name in (text or "").split(",") if name.strip()))


def integers_in(text: str, flag: str, least: int) -> list[int]:
    """The values of a flag's comma list or range(start,stop).

    >>> integers_in("range(0,3)", "--seeds", least=0)
    [0, 1, 2]
    """
    values = parse_overrides([f"{flag.strip('-')}={text}"])[flag.strip("-")].values
    if not all(type(value) is int and value >= least for value in values):
        raise UsageError(f"{flag} {text}: expected whole numbers from {least}, e.g. {flag} {least},{least + 1}")
    return list(values)


def parse_overrides(texts: Iterable[str]) -> dict[str, Choice]:
    """Choices by key, in the order given.

    >>> parse_overrides(["train.lr=1e-3,3e-3", "seed=range(0,3)"])["seed"].values
    (0, 1, 2)
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import OverrideType, QuotedString
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    choices: dict[str, Choice] = {}
    for text in texts:
        if "=" not in text:
            raise UsageError(f"'{text}' is neither a flag nor key=value; join lists with commas and no spaces")
        try:
            override = parser.parse_override(text)
            key = override.key_or_group
            if override.type is not OverrideType.CHANGE or override.package is not None:
                raise UsageError(f"'{text}': write plain key=value; every option exists already")
            if not override.is_sweep_override():
                values: tuple[Any, ...] = (override.value(),)
            elif override.is_discrete_sweep():
                values = tuple(v.text if isinstance(v, QuotedString) else v for v in override.sweep_iterator())
            else:
                raise UsageError(f"'{text}': sweep over a comma list or range(start,stop)")
        except HydraException as error:
            reason = " ".join(str(error).splitlines()[:1]).rstrip(".")
            raise UsageError(
                f"'{text}' cannot be read ({reason}); quote special characters: key='\"value\"'"
            ) from error
        if not values:
            raise UsageError(f"'{text}' stands for no value at all")
        if key in choices:
            raise UsageError(f"'{key}' is given twice: '{choices[key].text}' and '{text}'; sweep with a comma list")
        choices[key] = Choice(key, values, text)
    return choices


def leaves(config_class: type[Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of a (nested) dataclass with their type hints.

    >>> from wsolbench.config import TrainConfig
    >>> leaves(TrainConfig, "train.")["train.lr"]
    <class 'float'>
    """
    found: dict[str, Any] = {}
    for name, hint in _hints(typing.cast(Hashable, config_class)).items():
        if is_dataclass(hint):
            found |= leaves(typing.cast(type[Any], hint), f"{prefix}{name}.")
        else:
            found[prefix + name] = hint
    return found


@functools.cache
def _hints(config_class: Hashable) -> dict[str, Any]:
    """Resolving annotations is what costs: composing a sweep asks for the same few classes thousands of times."""
    return typing.get_type_hints(config_class)


def refuse_sweep_of_lists_and_paths(choice: Choice, hint: Any) -> None:
    """A comma in a path or a list is ambiguous: sweeping them is refused with the way to write one value."""
    options = list(typing.get_args(hint)) if isinstance(hint, types.UnionType) else [hint]
    is_list = any(part in (list, tuple) or typing.get_origin(part) in (list, tuple) for part in options)
    if len(choice.values) > 1:
        value = choice.text.partition("=")[2]
        if is_list:
            raise UsageError(
                f"'{choice.text}' would sweep a list: write one list as {choice.key}=[{value.strip('[]')}]"
            )
        if Path in options or choice.key in PATH_KEYS:
            raise UsageError(
                f"'{choice.text}' would sweep a path: write one path with commas as {choice.key}=\"'{value}'\""
            )
    elif is_list and choice.values[0] is not None and not isinstance(choice.values[0], list):
        raise UsageError(f"'{choice.text}': {choice.key} is a list, write {choice.key}=[{choice.values[0]}]")


def unknown_key(choice: Choice, known: Sequence[str]) -> UsageError:
    """The error for a key that does not exist, with the nearest of all known dotted keys."""
    asked = choice.key.rpartition(".")[2]
    last_parts = {key.rpartition(".")[2]: key for key in reversed(known)}
    near = (
        [last_parts[asked]] if asked in last_parts else difflib.get_close_matches(choice.key, known, n=1, cutoff=0.7)
    ) or [last_parts[part] for part in difflib.get_close_matches(asked, list(last_parts), n=1)]
    hint = f", did you mean '{near[0]}'?" if near else "."
    section = choice.key.partition(".")[0] + "."
    siblings = [key for key in known if key.startswith(section)] or [key for key in known if "." not in key]
    return UsageError(f"unknown key '{choice.key}'{hint} Known here: {', '.join(siblings)}")
