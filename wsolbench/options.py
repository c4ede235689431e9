"""What the `Config` of a plug-in is: a small dataclass whose fields say whether they decide numbers; filled from the user's values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, field, fields
from pathlib import PurePath
from typing import Any, NamedTuple, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from wsolbench.errors import UsageError, first_line, unknown

# What a field says of itself, as `field(default=..., metadata=IDLE)`; joined by `|`. A field that says nothing decides.
IDLE = {"decides": "nothing"}  # a path, a speed: the same numbers whatever its value
YOUNG = {"decides": "unless default"}  # added when there were runs already: their hashes hold at the default
STATED = {"decides": "by what follows"}  # what follows from it (images, not who drew them) is in the identity itself


def idle(default: Any, *, least: float | None = None) -> Any:
    """An IDLE field, with the least value that is possible where there is one."""
    return field(default=default, metadata=IDLE | _bound(least))


def young(default: Any, *, least: float | None = None) -> Any:
    """A YOUNG field."""
    return field(default=default, metadata=YOUNG | _bound(least))


def bounded(default: Any, *, least: float) -> Any:
    """A field that decides, and is no less than `least` where it is given."""
    return field(default=default, metadata=_bound(least))


def _bound(least: float | None) -> dict[str, Any]:
    return {} if least is None else {"least": least}


def default_of(option: Field[Any]) -> Any:
    """The default of a dataclass's field; None where it has none, as no value equals it then."""
    if option.default_factory is not MISSING:
        return option.default_factory()
    return None if option.default is MISSING else option.default


def decides(option: Field[Any], value: Any, default: Any) -> bool:
    """Whether a field's value takes part in deciding numbers."""
    says = option.metadata.get("decides")
    return says is None or (says == YOUNG["decides"] and value != default)


def deciding(config: Any) -> dict[str, Any]:
    """The options of a plug-in that decide numbers: without IDLE fields, and without YOUNG ones that have their default.

    >>> from dataclasses import dataclass, field
    >>> @dataclass
    ... class Config:
    ...     proxy: bool = False
    ...     geometry: str = field(default="resize", metadata=YOUNG)
    ...     cache: str | None = field(default=None, metadata=IDLE)
    >>> deciding(Config(cache="pixels")), deciding(Config(geometry="centre-crop"))
    ({'proxy': False}, {'proxy': False, 'geometry': 'centre-crop'})
    """
    values = {option.name: (option, getattr(config, option.name)) for option in fields(config)}
    return {name: value for name, (option, value) in values.items() if decides(option, value, default_of(option))}


def deciding_text(config: Any) -> str:
    """`deciding` as text, in the form of a dataclass's `repr`."""
    return f"{type(config).__qualname__}({', '.join(f'{name}={value!r}' for name, value in deciding(config).items())})"


def as_yaml(config: DictConfig) -> dict[str, Any]:
    """Structured options as YAML can hold them: enums by name, paths as text."""
    return cast(dict[str, Any], _without_paths(OmegaConf.to_container(config, resolve=True, enum_to_str=True)))


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_paths(held) for key, held in value.items()}
    if isinstance(value, list):
        return [_without_paths(held) for held in value]
    return value.as_posix() if isinstance(value, PurePath) else value


def _filled(config_class: type[Any], owner: str, values: Mapping[str, Any]) -> Any:
    config = OmegaConf.structured(config_class)
    for key in values:
        if key not in config:
            raise unknown(f"option of {owner}", key, map(str, config))
    try:
        return OmegaConf.to_object(OmegaConf.merge(config, dict(values)))
    except OmegaConfBaseException as error:
        raise UsageError(f"option of {owner}: {first_line(error)}") from error


class Named(NamedTuple):
    """A plug-in that was chosen: its name, and the options given to it. Configurations hold {"name": ..., **options}."""

    name: str
    options: dict[str, Any]

    @classmethod
    def of(cls, chosen: Mapping[str, Any]) -> Named:
        """Take what a configuration holds apart.

        >>> Named.of({"name": "sat", "area": 0.2})
        Named(name='sat', options={'area': 0.2})
        """
        return cls(chosen["name"], {key: value for key, value in chosen.items() if key != "name"})


def build_method_config(cls: type[Any], name: str, values: Mapping[str, Any]) -> Any:
    """The method's Config with `values` set; unknown keys are errors with suggestions."""
    return _filled(cls.Config, f"method '{name}'", values)


def build_dataset_config(cls: type[Any], name: str, values: Mapping[str, Any]) -> Any:
    """The data set's Config with `values` set; unknown keys are errors with suggestions."""
    return _filled(cls.Config, f"data set '{name}'", values)
