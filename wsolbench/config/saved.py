"""`config.yaml`: a run written down, and read back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from wsolbench.config.check import checked
from wsolbench.config.schema import RunConfig
from wsolbench.errors import UsageError, first_line
from wsolbench.options import as_yaml, build_dataset_config, build_method_config


def to_yaml(config: RunConfig) -> str:
    """The run as plain YAML, the content of `config.yaml`."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def from_yaml(text: str, source: str = "config.yaml") -> RunConfig:
    """The run that `to_yaml` wrote; anything else is refused in one sentence that names `source`."""
    from wsolbench.registry import DATASETS, METHODS

    try:
        content = OmegaConf.create(text)
        if not isinstance(content, DictConfig) or not {"method", "dataset", "protocol"} <= {*content}:
            raise UsageError(f"'{source}' is not the config.yaml of a run: it has no method, dataset and protocol")
        config = cast(DictConfig, OmegaConf.merge(OmegaConf.structured(RunConfig), content))
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        raise UsageError(f"'{source}' is not the config.yaml of a run: {first_line(error)}") from error
    for owner, registry, build in (
        ("method", METHODS, build_method_config),
        ("dataset", DATASETS, build_dataset_config),
    ):
        values = cast(dict[str, Any], OmegaConf.to_container(config[owner], resolve=True))
        name = values.pop("name", None)
        if not isinstance(name, str):
            raise UsageError(f"'{source}' is not the config.yaml of a run: its {owner} has no name")
        config[owner] = {"name": name, **as_yaml(OmegaConf.structured(build(registry.get(name), name, values)))}
    return checked(config)


def repeat(
    path: str,
    *,
    device: str | None = None,
    root: str | None = None,
    out: str | None = None,
    track: str | None = None,
) -> RunConfig:
    """The run whose `config.yaml` lies at `path`, on this machine's device and paths where they are given."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"'{path}' cannot be read: {getattr(error, 'strerror', None) or error}") from error
    given: dict[str, Any] = {
        key: value
        for key, value in {"device": device, "root": root, "out": out, "track": track}.items()
        if value is not None
    }
    return dataclasses.replace(from_yaml(text, path), **given)
