"""Values that no run can have, refused in one sentence before anything is computed."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from wsolbench.config.schema import ProtocolConfig, RunConfig
from wsolbench.config.selectors import parse_checkpoint, parse_search, parse_threshold
from wsolbench.conventions import get_convention
from wsolbench.errors import UsageError, first_line


def checked(config: DictConfig) -> RunConfig:
    """The typed run, after refusing values that no run can have."""
    try:
        run = cast(RunConfig, OmegaConf.to_object(config))
    except OmegaConfBaseException as error:
        raise UsageError(first_line(error)) from error
    check_run(run)
    return run


def check_run(run: RunConfig) -> None:
    """Refuse values that no run can have; their least values stand in the schema.

    Raises:
        UsageError: one of them, in one sentence.
    """
    _check_least(run)
    get_convention(run.evaluate.convention)
    if not 0 < run.evaluate.interval < 1:
        raise UsageError(f"evaluate.interval={run.evaluate.interval} is impossible: it lies between 0 and 1")
    check_protocol(run.protocol)
    if run.search.by is not None:
        parse_search(run.search.by)
    if run.search.trials is None and (run.search.by, run.search.space) != (None, None):
        raise UsageError("search.by and search.space say how to search, but nothing is searched: add --search 8")


def check_protocol(protocol: ProtocolConfig) -> None:
    """The part of `check_run` that is about the protocol."""
    _check_least(protocol, "protocol.")
    if protocol.fraction is not None and not 0 < protocol.fraction <= 1:
        raise UsageError(f"protocol.fraction={protocol.fraction} is impossible: it lies in (0, 1]")
    if protocol.fraction is not None and protocol.shots is not None:
        raise UsageError("protocol.shots and protocol.fraction contradict each other: give one of them")
    parse_checkpoint(protocol.checkpoint)
    parse_threshold(protocol.threshold)


def _check_least(config: Any, prefix: str = "") -> None:
    for option in fields(config):
        value, least = getattr(config, option.name), option.metadata.get("least")
        if is_dataclass(value):
            _check_least(value, f"{prefix}{option.name}.")
        elif least is not None and value is not None and not value >= least:  # nan is not
            raise UsageError(f"{prefix}{option.name}={value} is impossible: the least is {least}")
