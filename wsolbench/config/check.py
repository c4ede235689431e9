"""Values that no run can have, refused in one sentence before anything is computed."""

from __future__ import annotations

from typing import cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from wsolbench.config.schema import RunConfig
from wsolbench.config.selectors import parse_checkpoint, parse_search, parse_threshold
from wsolbench.conventions import get_convention
from wsolbench.errors import UsageError, first_line


def checked(config: DictConfig) -> RunConfig:
    """The typed run, after refusing values that no run can have."""
    try:
        run = cast(RunConfig, OmegaConf.to_object(config))
    except OmegaConfBaseException as error:
        raise UsageError(first_line(error)) from error
    for key, least in (
        ("train.epochs", 0),
        ("train.steps", 0),
        ("train.batch_size", 1),
        ("train.workers", 0),
        ("train.accumulate", 1),
        ("train.warmup_steps", 0),
        ("train.lr", 0),
        ("protocol.shots", 1),
        ("protocol.val_per_class", 1),
        ("protocol.select_every", 1),
        ("search.trials", 1),
        ("evaluate.batch_size", 1),
        ("evaluate.workers", 0),
        ("evaluate.threads", 1),
        ("seed", 0),
    ):
        value = OmegaConf.select(config, key)
        if value is not None and not value >= least:  # nan is not
            raise UsageError(f"{key}={value} is impossible: the least is {least}")
    get_convention(run.evaluate.convention)
    if not 0 < run.evaluate.interval < 1:
        raise UsageError(f"evaluate.interval={run.evaluate.interval} is impossible: it lies between 0 and 1")
    if run.protocol.fraction is not None and not 0 < run.protocol.fraction <= 1:
        raise UsageError(f"protocol.fraction={run.protocol.fraction} is impossible: it lies in (0, 1]")
    if run.protocol.fraction is not None and run.protocol.shots is not None:
        raise UsageError("protocol.shots and protocol.fraction contradict each other: give one of them")
    parse_checkpoint(run.protocol.checkpoint)
    parse_threshold(run.protocol.threshold)
    if run.search.by is not None:
        parse_search(run.search.by)
    if run.search.trials is None and (run.search.by, run.search.space) != (None, None):
        raise UsageError("search.by and search.space say how to search, but nothing is searched: add --search 8")
    return run
