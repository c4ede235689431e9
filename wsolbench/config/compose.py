"""From a command line to runs: flags say what, `key=value` says how; Hydra composes, recipes fill in, sweeps multiply."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from wsolbench.config.check import checked
from wsolbench.config.naming import changed_name
from wsolbench.config.overrides import Choice, leaves, parse_overrides, refuse_sweep_of_lists_and_paths, unknown_key
from wsolbench.config.protocol import compose_protocol
from wsolbench.config.recipes import Recipes, load_recipes
from wsolbench.config.schema import RunConfig
from wsolbench.errors import UsageError, first_line, unknown
from wsolbench.options import as_yaml

# Keys that a flag sets too: giving both is an error, so that no run depends on which one wins.
FLAG_OF = {
    "seed": "--seeds",
    "backbone": "--backbone",
    "device": "--device",
    "root": "--root",
    "out": "--out",
    "search.trials": "--search",
    "search.by": "--search-by",
    "track": "--track",
}
Plugins = dict[str, dict[str, tuple[Any, str]]]  # "method" and "dataset" -> option -> value, who says so
SECTIONS = ("method", "dataset", "protocol", "train", "evaluate", "data", "search")


def expand(
    methods: Sequence[str],
    *,
    dataset: str = "badges",
    backbone: str | None = None,
    protocol: str = "full",
    seeds: Sequence[int] | None = None,
    overrides: Sequence[str] = (),
    device: str | None = None,
    root: str | None = None,
    out: str | None = None,
    search: int | None = None,
    search_by: str | None = None,
    track: str | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> list[RunConfig]:
    """Compose one `RunConfig` per point of methods x backbones x protocols x sweeps x seeds, without repetitions.

    All methods of one point come before the next, so that the first comparison is complete early.

    Args:
        backbone: name or comma list; None: the recipe's, else the method's default.
        protocol: preset, `<k>shot` or `<k>shot+preset`, or a comma list of those.
        overrides: `key=value` in Hydra's grammar; they win over recipes, which win over defaults.
        search: trials of the hyper-parameter search of every run; None: no search.
        search_by: who chooses among them, see `wsolbench.config.selectors.parse_search`.
        track: where the runs can be watched, see `wsolbench.runs.track`; None: nowhere.
        say: is told to which methods a `method.key=value` applies.

    Raises:
        UsageError: unknown names or keys, values of a wrong type, contradictions.
    """
    from wsolbench.registry import DATASETS, METHODS

    if not methods:
        raise UsageError(f"no method asked for. Known: {', '.join(METHODS.names())}")
    classes = {METHODS.canonical(name): METHODS.get(name) for name in methods}
    dataset_class = DATASETS.get(dataset)
    choices = parse_overrides(overrides)
    flags: dict[str, object] = {"seed": seeds, "backbone": backbone, "device": device, "root": root, "out": out}
    flags |= {"search.trials": search, "search.by": search_by, "track": track}
    _refuse_twice(flags, choices)
    _check_keys(choices, classes, dataset_class.Config)
    _announce(choices, classes, say)

    seed_values = choices.pop("seed").values if "seed" in choices else tuple([0] if seeds is None else seeds)
    backbones = choices.pop("backbone").values if "backbone" in choices else _split(backbone) or (None,)
    experiment, variant = (choices.pop(key).values[0] if key in choices else None for key in ("experiment", "recipe"))
    recipes = load_recipes(experiment, dataset, list(classes), variant)
    protocols = _split(protocol) or (protocol,)
    fixed = {key: value for key, value in flags.items() if key not in ("seed", "backbone") and value is not None}

    runs = []
    sweep = [[(choice, value) for value in choice.values] for choice in choices.values()]
    for name, point, seed, asked in itertools.product(protocols, itertools.product(*sweep), seed_values, backbones):
        for method in classes:
            run = _compose(method, dataset, asked, name, recipes, point, {**fixed, "seed": seed})
            if run not in runs:  # e.g. a baseline without a network, once per backbone asked for
                runs.append(run)
    return runs


def dataset_options(dataset: str, overrides: Sequence[str]) -> dict[str, Any]:
    """The options of a data set that `dataset.key=value` set, one value each, for verbs that open it without a run.

    >>> dataset_options("badges", ["dataset.clutter=0"])
    {'clutter': 0}
    """
    from wsolbench.registry import DATASETS

    known = leaves(DATASETS.get(dataset).Config, "dataset.")
    choices = parse_overrides(overrides)
    for choice in choices.values():
        if choice.key not in known:
            raise unknown_key(choice, sorted(known))
        if len(choice.values) > 1:
            raise UsageError(f"'{choice.text}' is a sweep: a data set is opened with one value of {choice.key}")
    return {key.removeprefix("dataset."): choice.values[0] for key, choice in choices.items()}


def _compose(
    method: str,
    dataset: str,
    backbone: str | None,
    protocol: str,
    recipes: Recipes | None,
    point: Sequence[tuple[Choice, Any]],
    top: Mapping[str, Any],
) -> RunConfig:
    """One run: dataclass defaults < recipe < protocol preset < the user's values."""
    from wsolbench.registry import DATASETS, METHODS

    method_class = METHODS.get(method)
    if method_class.default_backbone is None:
        backbone = None
    elif backbone is None:
        backbone = (recipes.default_backbone(method) if recipes else None) or method_class.default_backbone
    config = compose_protocol(protocol)
    plugins: Plugins = {"method": {}, "dataset": {}}
    used = recipes is not None and _from_recipes(config, plugins, recipes, method, backbone)
    _from_user(config, plugins, point, method)
    for key, value in top.items():
        _set(config, key, value, FLAG_OF[key])
    config.backbone = backbone
    config.experiment = recipes.name if recipes and used else None
    config.recipe = recipes.variant if recipes and used else None
    config.method = _filled(method, method_class, plugins["method"])
    config.dataset = _filled(dataset, DATASETS.get(dataset), plugins["dataset"])
    run = checked(config)
    if run.search.trials is not None:
        _refuse_searched(run, point)
    return run


def _from_recipes(config: DictConfig, plugins: Plugins, recipes: Recipes, method: str, backbone: str | None) -> bool:
    """Set what the recipe's blocks say of a method on a backbone; whether any of them does."""
    used = False
    for where, block in recipes.matching(method, backbone):
        used = True
        plugins["method"] |= {key: (value, where) for key, value in block.method.items()}
        for section, values in (("train", block.train), ("evaluate", block.evaluate)):
            for key, value in values.items():
                _set(config, f"{section}.{key}", value, where)
    return used


def _from_user(config: DictConfig, plugins: Plugins, point: Sequence[tuple[Choice, Any]], method: str) -> None:
    """Set what the user says; a protocol that is changed so gets a name of its own."""
    from wsolbench.registry import METHODS, slug

    changes = []
    for choice, value in sorted(point, key=lambda pair: not pair[0].key.startswith("method.")):
        section, _, rest = choice.key.partition(".")
        if section == "method":
            if rest in leaves(METHODS.get(method).Config):
                plugins["method"][rest] = (value, choice.text)
        elif section == "dataset":
            plugins["dataset"][rest] = (value, choice.text)
        elif section in SECTIONS or not rest:
            _set(config, choice.key, value, choice.text)
            if section == "protocol" and rest not in ("name", "pseudo_boxes"):  # whose boxes: `open_job` says
                changes.append(f"{rest}={value}")
        elif section == slug(method):  # sat.area=0.3: after method.*, so that the closer aim wins
            plugins["method"][rest] = (value, choice.text)
    if changes and not any(choice.key == "protocol.name" for choice, _ in point):
        config.protocol.name = changed_name(config.protocol.name, changes)


def _filled(name: str, cls: type[Any], values: Mapping[str, tuple[Any, str]]) -> dict[str, Any]:
    """A plug-in with its options, as a configuration holds it."""
    filled = OmegaConf.structured(cls.Config)
    for key, (value, source) in values.items():
        _set(filled, key, value, source)
    try:
        OmegaConf.to_object(filled)  # runs the dataclass's own checks now, not in the middle of a sweep
        return {"name": name, **as_yaml(filled)}
    except OmegaConfBaseException as error:
        raise UsageError(f"options of '{name}': {first_line(error)}") from error


def _refuse_searched(run: RunConfig, point: Sequence[tuple[Choice, Any]]) -> None:
    """A value that the user gives cannot be one that is searched."""
    from wsolbench.config.search_space import load_space
    from wsolbench.registry import slug

    space = load_space(run.search.space, run.dataset["name"], run.method["name"], run.backbone)
    for choice, _ in point:
        section, _, rest = choice.key.partition(".")
        key = f"method.{rest}" if section == slug(run.method["name"]) else choice.key
        if key in space.distributions:
            raise UsageError(
                f"'{choice.text}' contradicts the search, which tries values of {key} (space '{space.name}'): leave it out, "
                "or give a space without it, search.space=FILE.yaml"
            )


def _refuse_twice(flags: Mapping[str, object], choices: Mapping[str, Choice]) -> None:
    for key, value in flags.items():
        if value is not None and key in choices:
            raise UsageError(f"{FLAG_OF[key]} and '{choices[key].text}' contradict each other: give one of them")


def _check_keys(choices: Mapping[str, Choice], classes: Mapping[str, type[Any]], dataset_config: type[Any]) -> None:
    """Every key exists, is aimed at something asked for, and is not a sweep of a list or a path."""
    from wsolbench.registry import METHODS, slug

    known = {key: hint for key, hint in leaves(RunConfig).items() if key not in ("method", "dataset")}
    known.pop("search.found")  # is what a search writes
    known |= leaves(dataset_config, "dataset.")
    for prefix in ("method", *map(slug, classes)):
        for name, cls in classes.items():
            if prefix in ("method", slug(name)):
                known |= leaves(cls.Config, f"{prefix}.")
    for choice in choices.values():
        section, _, rest = choice.key.partition(".")
        if not rest and section in SECTIONS:
            flag = {"method": "--methods", "dataset": "--dataset", "protocol": "--protocol"}.get(section)
            more = f", use {flag} NAME" if flag else f"; set one of its keys, {section}.KEY=value"
            raise UsageError(f"'{choice.text}': '{section}' is a section{more}")
        if choice.key not in known:
            absent = {slug(name): name for name in METHODS.names() if name not in classes}
            if section in absent:
                raise UsageError(
                    f"'{choice.text}' is for method '{absent[section]}', which is not among --methods {','.join(classes)}"
                )
            raise unknown_key(choice, sorted(known))
        refuse_sweep_of_lists_and_paths(choice, known[choice.key])
        if choice.key == "recipe" and len(choice.values) > 1:
            raise UsageError(f"'{choice.text}': a command takes one recipe")
        if choice.key in ("experiment", "recipe", "backbone") and not all(
            isinstance(value, str) for value in choice.values
        ):
            raise UsageError(f"'{choice.text}': {choice.key} is a name")


def _announce(choices: Mapping[str, Choice], classes: Mapping[str, type[Any]], say: Callable[[str], None]) -> None:
    """Say to which of several methods each `method.key=value` applies."""
    for choice in choices.values():
        section, _, rest = choice.key.partition(".")
        if section == "method" and len(classes) > 1:
            having = [name for name, cls in classes.items() if rest in leaves(cls.Config)]
            without = [name for name in classes if name not in having]
            say(f"{choice.text} applies to {', '.join(having)}" + (f"; not to {', '.join(without)}" if without else ""))


def _set(config: DictConfig, key: str, value: Any, source: str) -> None:
    """Set a dotted key that must exist to a value of its type; the error names `source`."""
    try:
        if key not in leaves(cast(type[Any], OmegaConf.get_type(config))):
            raise unknown("key", key, leaves(cast(type[Any], OmegaConf.get_type(config))), f" ({source})")
        OmegaConf.update(config, key, value, merge=False)
    except OmegaConfBaseException as error:
        raise UsageError(f"'{source}': {first_line(error)}") from error


def _split(text: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))
