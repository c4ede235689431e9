"""Which keys of a configuration make a run that run. Hashes (`wsolbench.runs.opening`) and rows of a leaderboard go by it alike.

Every field says it itself: those of `wsolbench.config.schema` and those of a plug-in's `Config`, see `wsolbench.options`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import Field, fields, is_dataclass
from functools import cache
from typing import Any, cast, get_type_hints

from wsolbench.config.schema import RunConfig
from wsolbench.options import IDLE, YOUNG, Named, decides, deciding, default_of
from wsolbench.system.hashing import plain


def deciding_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration, as plain values, without what cannot change a number; sections and keys may be missing.

    >>> deciding_values({"seed": 1, "out": "results", "train": {"lr": 0.1, "workers": 4}, "protocol": {"matrix": False}})
    {'seed': 1, 'train': {'lr': 0.1}, 'protocol': {}}
    """
    return deciding_of(RunConfig, config)


def deciding_run(config: RunConfig) -> dict[str, Any]:
    """`deciding_values` of a run."""
    return deciding_values(plain(config))


def deciding_of(schema: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`deciding_values` of a dataclass whose fields may be sections; keys that it does not know decide."""
    kept = {}
    for name, value in values.items():
        option, section = _fields_of(cast(Hashable, schema)).get(name, (None, None))
        if option is None or decides(option, value, plain(default_of(option))):
            of_section = section is not None and isinstance(value, Mapping)
            kept[name] = deciding_of(section, value) if of_section and section is not None else value
    return kept


def plugin_identity(
    build: Callable[[type[Any], str, Mapping[str, Any]], Any], cls: type[Any], chosen: Mapping[str, Any]
) -> dict[str, Any]:
    """A plug-in's name and deciding options, with defaults filled in: a default that is spelled out is the same run.

    Args:
        build: `wsolbench.options.build_method_config` or `build_dataset_config`.
        cls: the plug-in.
        chosen: {"name": ..., option: value, ...}.
    """
    name, options = Named.of(chosen)
    return {"name": name, **plain(deciding(build(cls, name, options)))}


def idle_keys(schema: type[Any] = RunConfig) -> list[str]:
    """Dotted keys that decide nothing."""
    return [name for name, option in _dotted(schema).items() if option.metadata.get("decides") == IDLE["decides"]]


def young_keys(schema: type[Any] = RunConfig) -> dict[str, Any]:
    """Dotted keys that older runs do not know, and the plain default at which their hashes hold."""
    young = YOUNG["decides"]
    return {
        name: plain(default_of(option))
        for name, option in _dotted(schema).items()
        if option.metadata.get("decides") == young
    }


def _dotted(schema: type[Any]) -> dict[str, Field[Any]]:
    found: dict[str, Field[Any]] = {}
    for name, (option, section) in _fields_of(cast(Hashable, schema)).items():
        found[name] = option
        if section is not None:
            found |= {f"{name}.{key}": inner for key, inner in _dotted(section).items()}
    return found


@cache
def _fields_of(schema: Any) -> dict[str, tuple[Field[Any], type[Any] | None]]:
    """Fields by name, each with the dataclass of its section where it is one."""
    hints = get_type_hints(schema)
    return {
        option.name: (option, hints[option.name] if is_dataclass(hints[option.name]) else None)
        for option in fields(schema)
    }
