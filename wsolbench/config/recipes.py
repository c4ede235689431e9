"""Experiment files: training recipes as values only, each block saying which methods and backbones it is for.

recipes:
  - for: {methods: [sat], backbones: ["badges_vit*"]}   # names or globs; backbones may be left out
    backbone: badges_vit.s0                             # default, used when the user names none
    train: {lr: 5.0e-4}
    method: {area: 0.25}
    evaluate: {convention: sat}
  - for: {methods: [sat], recipe: paper}                # only with recipe=paper; without it: what the authors' code does
    train: {schedule: cosine}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from wsolbench.config.presets import CONF
from wsolbench.errors import UsageError, unknown


@dataclass
class Block:
    """Values for the methods (and, where given, backbones) whose names match."""

    methods: list[str]
    backbones: list[str] = field(default_factory=list)
    recipe: str | None = None
    backbone: str | None = None
    train: dict[str, Any] = field(default_factory=dict)
    method: dict[str, Any] = field(default_factory=dict)
    evaluate: dict[str, Any] = field(default_factory=dict)


@dataclass
class Recipes:
    """The blocks of one experiment file, in order."""

    name: str
    path: Path
    blocks: list[Block]
    variant: str | None = None  # which blocks that ask for a recipe are used

    def default_backbone(self, method: str) -> str | None:
        """The backbone that the last matching block names, if any."""
        named = [block.backbone for block in self.blocks if block.backbone and fits(method, block.methods)]
        return named[-1] if named else None

    def matching(self, method: str, backbone: str | None) -> Iterator[tuple[str, Block]]:
        """Blocks for a method on a backbone, each with where it stands."""
        for number, block in enumerate(self.blocks, 1):
            suits = not block.backbones or (backbone is not None and fits(backbone, block.backbones))
            if suits and block.recipe in (None, self.variant) and fits(method, block.methods):
                yield f"{self.path.name}, block {number}", block


def load_recipes(asked: str | None, dataset: str, methods: Sequence[str], variant: str | None = None) -> Recipes | None:
    """The experiment `asked` for (a name, a YAML file, or "none"), in the `variant` that `recipe=` names.

    None: the data set's own experiment, if there is one; as the authors' code does it, which is called "code".
    """
    recipes = _load(asked, dataset, methods)
    if variant is not None:
        if recipes is None:
            raise UsageError(f"recipe={variant} names a variant of an experiment: add experiment=NAME")
        known = {"code"} | {block.recipe for block in recipes.blocks if block.recipe}
        if variant not in known:
            raise unknown(f"recipe of experiment '{recipes.name}'", variant, known)
        recipes.variant = variant
    return recipes


def _load(asked: str | None, dataset: str, methods: Sequence[str]) -> Recipes | None:
    if asked == "none":
        return None
    files = {path.stem: path for path in sorted((CONF / "experiment").glob("*.yaml"))}
    if asked is None:
        return _read(dataset, files[dataset]) if dataset in files else None
    if asked.endswith((".yaml", ".yml")):
        if not Path(asked).is_file():
            raise UsageError(f"experiment file '{asked}' does not exist")
        recipes = _read(asked, Path(asked))
    elif asked in files:
        recipes = _read(asked, files[asked])
    else:
        raise unknown("experiment", asked, [*files, "none"])
    if not any(fits(method, block.methods) for method in methods for block in recipes.blocks):
        meant = sorted({pattern for block in recipes.blocks for pattern in block.methods})
        raise UsageError(f"experiment '{asked}' is for {', '.join(meant)}, none of which is asked for")
    return recipes


def _read(name: str, path: Path) -> Recipes:
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OmegaConfBaseException, YAMLError, OSError) as error:
        raise UsageError(f"experiment file '{path}' cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict) or [*content] != ["recipes"] or not isinstance(content["recipes"], list):
        raise UsageError(f"experiment file '{path}' must hold one list named 'recipes'")
    return Recipes(name, path, [_block(raw, f"{path}, block {n}") for n, raw in enumerate(content["recipes"], 1)])


def _block(raw: Any, where: str) -> Block:
    if not isinstance(raw, dict) or not isinstance(raw.get("for"), dict):
        raise UsageError(f"{where}: a block says whom it is for, e.g. for: {{methods: [sat]}}")
    for given, known in (
        (raw, ("for", "backbone", "train", "method", "evaluate")),
        (raw["for"], ("methods", "backbones", "recipe")),
    ):
        for key in given:
            if key not in known:
                raise unknown("key", str(key), known, f" ({where})")
    recipe = raw["for"].get("recipe")
    if recipe is not None and not isinstance(recipe, str):
        raise UsageError(f"{where}: 'recipe' is one name, e.g. paper")
    scope = {key: [value] if isinstance(value, str) else value for key, value in raw["for"].items()}
    if not scope.get("methods"):
        raise UsageError(f"{where}: 'for' names no methods; write methods: [\"*\"] for all")
    for key in ("train", "method", "evaluate"):
        if not isinstance(raw.get(key, {}), Mapping):
            raise UsageError(f"{where}: '{key}' holds values by key")
    return Block(
        scope["methods"],
        scope.get("backbones", []),
        recipe,
        raw.get("backbone"),
        cast(dict[str, Any], raw.get("train", {})),
        cast(dict[str, Any], raw.get("method", {})),
        cast(dict[str, Any], raw.get("evaluate", {})),
    )


def fits(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name is among names and globs.

    >>> fits("badges_vit.s0", ["badges_vit*"])
    True
    """
    return any(fnmatchcase(name, pattern) for pattern in patterns)
