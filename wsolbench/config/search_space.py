"""What a hyper-parameter search may try: a space file per method, and the values of each trial.

space:
  - for: {methods: [sat], datasets: [badges], backbones: ["badges_vit*"]}   # names or globs; the latter two may be left out
    train: {lr: {log-uniform: [1.0e-5, 1.0]}, batch_size: {choice: [32, 64]}}
    method: {area: {uniform: [0, 1]}}

Later blocks win. Distributions: `uniform`, `log-uniform` (numbers between two bounds), `choice` (one of a list), `multiples`
(for milestones: s, 2s, 3s, ... within the training's epochs, where s is a whole number between two bounds).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from wsolbench.config.check import checked
from wsolbench.config.overrides import leaves
from wsolbench.config.presets import space_presets
from wsolbench.config.recipes import fits
from wsolbench.config.schema import RunConfig, TrainConfig
from wsolbench.errors import UsageError, first_line, unknown
from wsolbench.system.hashing import file_sha256, stable_seed

DISTRIBUTIONS = ("uniform", "log-uniform", "choice", "multiples")
SECTIONS = ("train", "method")
FALLBACK = "realistic"


@dataclass(frozen=True)
class Space:
    """What is searched for one method: dotted key (`train.lr`, `method.area`) -> {distribution: bounds or values}."""

    name: str
    sha256: str  # of the file
    distributions: dict[str, dict[str, list[Any]]]

    def draw(self, seed: int, method: str, trial: int, epochs: int) -> dict[str, Any]:
        """The values of a trial, from (seed, trial, key) alone, and the method where the key is its own.

        So all methods try the same learning rates, methods that share a classifier share its trials too, and a trial is
        the same whatever else is run.

        >>> space = Space("mine", "", {"train.lr": {"log-uniform": [1e-4, 1e-2]}})
        >>> space.draw(0, "sat", 1, 5) == space.draw(0, "cam", 1, 5) != space.draw(0, "cam", 2, 5)
        True
        """
        drawn = {}
        for key, distribution in sorted(self.distributions.items()):
            owner = (method,) if key.startswith("method.") else ()
            share = (stable_seed("search", seed, *owner, trial, key) >> 10) / 2**53  # in [0, 1), exactly
            drawn[key] = _at(*next(iter(distribution.items())), share, epochs)
        return drawn

    def without_training(self) -> Space:
        """What is left to search where nothing is trained."""
        kept = {key: each for key, each in self.distributions.items() if not key.startswith("train.")}
        return Space(self.name, self.sha256, kept)


# --- spaces ----------------------------------------------------------------------------------------------------------


def load_space(asked: str | None, dataset: str, method: str, backbone: str | None) -> Space:
    """The space `asked` for (a name or a YAML file) of a method; None: the data set's own, else the realistic protocol's.

    Raises:
        UsageError: there is none of that name, or it holds a key or a distribution that does not exist.
    """
    presets = space_presets()
    if asked is None:
        asked = dataset if dataset in presets else FALLBACK
    if asked.endswith((".yaml", ".yml")):
        path = Path(asked)
    elif asked in presets:
        path = presets[asked]
    else:
        raise unknown("search space", asked, presets, " (or a .yaml file)")
    sha256 = file_sha256(path)
    distributions: dict[str, dict[str, list[Any]]] = {}
    for number, block in enumerate(_blocks(path), 1):
        where = f"{path}, block {number}"
        if _is_for(block, where, {"methods": method, "backbones": backbone, "datasets": dataset}):
            distributions |= _distributions(block, where, method)
    return Space(asked, sha256, distributions)


def with_values(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """The run with the values of a trial.

    >>> run = RunConfig({"name": "sat"}, {"name": "badges"})
    >>> with_values(run, {"train.lr": 0.5, "method.area": 0.3}).method
    {'name': 'sat', 'area': 0.3}
    """
    content = cast(DictConfig, OmegaConf.structured(config))
    try:
        for key, value in values.items():
            OmegaConf.update(content, key, value, merge=False, force_add=key.startswith("method."))
    except OmegaConfBaseException as error:
        raise UsageError(f"the search tries {key}={value}, which cannot be: {first_line(error)}") from error
    return checked(content)


def _at(kind: str, bounds: list[Any], share: float, epochs: int) -> Any:
    """The value at a share in [0, 1) of a distribution; numbers are rounded so that a file repeats them on any machine."""
    if kind == "choice":
        return bounds[int(share * len(bounds))]
    low, high = bounds
    if kind == "multiples":
        size = low + int(share * (high - low + 1))
        return list(range(size, epochs + 1, size))
    if kind == "log-uniform":
        return float(f"{math.exp(math.log(low) + share * (math.log(high) - math.log(low))):.4g}")
    return float(f"{low + share * (high - low):.4g}")


def _blocks(path: Path) -> list[dict[str, Any]]:
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OmegaConfBaseException, YAMLError, OSError, UnicodeDecodeError) as error:
        raise UsageError(f"search space '{path}' cannot be read: {first_line(error)}") from error
    if not isinstance(content, dict) or [*content] != ["space"] or not isinstance(content["space"], list):
        raise UsageError(f"search space '{path}' must hold one list named 'space'")
    return cast(list[dict[str, Any]], content["space"])


def _is_for(block: Any, where: str, names: Mapping[str, str | None]) -> bool:
    """Whether a block is for the method, backbone and data set called `names`."""
    scope = block.get("for") if isinstance(block, dict) else None
    if not isinstance(scope, dict) or not scope.get("methods"):
        raise UsageError(f"{where}: a block says whom it is for, e.g. for: {{methods: [sat]}}")
    for given, known in ((block, ("for", *SECTIONS)), (scope, tuple(names))):
        for key in given:
            if key not in known:
                raise unknown("key", str(key), known, f" ({where})")
    patterns = {key: [value] if isinstance(value, str) else value for key, value in scope.items()}
    return all(fits(names[key] or "-", held) for key, held in patterns.items())


def _distributions(block: Mapping[str, Any], where: str, method: str) -> dict[str, dict[str, list[Any]]]:
    from wsolbench.registry import METHODS

    known = leaves(TrainConfig, "train.") | leaves(METHODS.get(method).Config, "method.")
    found: dict[str, dict[str, list[Any]]] = {}
    for section in SECTIONS:
        values = block.get(section) or {}
        if not isinstance(values, Mapping):
            raise UsageError(f"{where}: '{section}' holds distributions by key")
        for key, distribution in values.items():
            if f"{section}.{key}" not in known:
                siblings = [each for each in known if each.startswith(f"{section}.")]
                raise unknown(f"key of '{method}' to search", f"{section}.{key}", siblings, f" ({where})")
            found[f"{section}.{key}"] = _distribution(f"{section}.{key}", distribution, where)
    return found


def _distribution(key: str, given: Any, where: str) -> dict[str, list[Any]]:
    """One {kind: bounds}, or a `UsageError`."""
    if not isinstance(given, dict) or len(given) != 1:
        raise UsageError(f"{where}: {key} takes one distribution, e.g. {{uniform: [0, 1]}}")
    ((kind, bounds),) = given.items()
    if kind not in DISTRIBUTIONS:
        raise unknown(f"distribution of {key}", str(kind), DISTRIBUTIONS, f" ({where})")
    if not isinstance(bounds, list) or not bounds:
        raise UsageError(f"{where}: {key}: '{kind}' takes a list, e.g. {{{kind}: [1, 2]}}")
    if kind == "choice":
        return {kind: bounds}
    types = (int,) if kind == "multiples" else (int, float)
    is_pair = len(bounds) == 2 and all(type(bound) in types and math.isfinite(bound) for bound in bounds)
    least = {"multiples": 1, "log-uniform": 5e-324}.get(kind, -math.inf)
    if not is_pair or not least <= bounds[0] <= bounds[1]:
        raise UsageError(
            f"{where}: {key}: '{kind}' takes two {'whole ' if kind == 'multiples' else ''}numbers, the smaller first"
            + ("" if kind == "uniform" else ", above 0")
        )
    return {kind: bounds}
