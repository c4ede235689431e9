"""The hyper-parameter search that a run asks for: by whom, among how many trials, of what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wsolbench.config.naming import search_part
from wsolbench.config.schema import RunConfig
from wsolbench.config.search_space import Space, load_space
from wsolbench.config.selectors import LAST, PSEUDO, Selector, parse_search
from wsolbench.errors import UsageError


@dataclass(frozen=True)
class Search:
    """How a run's hyper-parameters are chosen: by whom, among how many trials, of what."""

    trials: int
    by: Selector
    space: Space
    part: str  # of the protocol's name

    def identity(self, identity: dict[str, Any]) -> dict[str, Any]:
        """A run's identity where the search decides: the values it replaces, or has found, are no part of it."""
        config = dict(identity["config"])
        for key in self.space.distributions:
            section, _, name = key.partition(".")
            config[section] = {each: value for each, value in config[section].items() if each != name}
        search = {"trials": self.trials, "by": str(self.by), "space": self.space.distributions}
        return {**identity, "config": config, "search": search}


@dataclass(frozen=True)
class Found:
    """What a search chose and how. Configuration and ledger hold it as plain values, under these names."""

    trials: int
    by: str
    space: str
    space_sha256: str
    distributions: dict[str, dict[str, list[Any]]]
    chosen: int | None  # number of the trial; None: there was nothing to search
    values: dict[str, Any]  # of the chosen trial, by dotted key
    failed: int
    tried: list[dict[str, Any]]  # trial, values, score (None: failed), failed (why)
    defaults: str  # where the values that are not searched come from
    test_selected: bool
    annotations: list[dict[str, Any]]  # what was looked at


def found_of(config: RunConfig) -> Found | None:
    """What the search of a run has found; None: it asks for none, or has not had it."""
    return None if config.search.found is None else Found(**config.search.found)


def open_search(
    config: RunConfig,
    backbone: str | None,
    checkpoint: Selector,
    there: Mapping[str | None, bool],
    has_boxes: bool,
    *,
    trains: bool,
) -> Search:
    """The search that a run asks for, or that it came from.

    Args:
        config: of the run; `search.trials` is given.
        backbone: resolved.
        checkpoint: the protocol's selector, which chooses among the trials too unless another is asked for.
        there: which annotations exist, by what a selector looks at.
        has_boxes: of the data set.
        trains: whether anything is trained; if not, the training's settings are not searched.

    Raises:
        UsageError: the selector would look at what is not there; space or key unknown.
    """
    asked, found = config.search, found_of(config)
    assert asked.trials is not None
    default = checkpoint if checkpoint.name != LAST else Selector("val-boxes")
    by = default if asked.by is None else parse_search(asked.by)
    if by.name == default.name == PSEUDO:  # whose boxes: the protocol says
        by = default
    if not there[by.looks_at] or (by.looks_at is not None and not has_boxes):
        name = config.dataset["name"]
        what = "test boxes" if by.looks_at == "test" else "pseudo-boxes of val" if by.name == PSEUDO else "boxes of val"
        raise UsageError(
            f"the search would choose among its trials by '{by}', but there are no {what} for data set '{name}'; take "
            "--search-by class-accuracy, which looks at labels only"
        )
    if found is not None:
        space = Space(found.space, found.space_sha256, found.distributions)
    else:
        space = load_space(asked.space, config.dataset["name"], config.method["name"], backbone)
        space = space if trains else space.without_training()
    return Search(asked.trials, by, space, search_part(asked.trials, None if by == default else str(by)))
