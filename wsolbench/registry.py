"""Names to classes, lazily: listing reads source with `ast` and imports nothing, `get` imports the one file it needs.

A plug-in names a module or package in the entry-point groups `wsolbench.methods` / `wsolbench.datasets`; every
`@register_method("literal-name")` found in its source is offered. Built-ins take the same road. A name that ends in a
colon is a prefix: `gradcam-pkg:` answers for `gradcam-pkg:EigenCAM`, which the class builds with `adapt("EigenCAM")`.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from wsolbench.errors import UsageError, WsolbenchError, unknown

T = TypeVar("T", bound=type)


@dataclass(frozen=True)
class Entry:
    """Where a registered name lives, as read from source."""

    name: str
    module: str
    class_name: str
    summary: str  # first line of the class docstring
    path: Path
    line: int


class Registry:
    """One kind of plug-in. `kind` is "method" or "dataset"."""

    def __init__(self, kind: str, builtin: str) -> None:
        self.kind = kind
        self.title = {"dataset": "data set"}.get(kind, kind)
        self.group = f"wsolbench.{kind}s"
        self.builtin = builtin
        self._entries: dict[str, Entry] | None = None
        self._classes: dict[str, type] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Class decorator: offer the class under `name` (a literal, so that listing can read it without importing)."""

        def decorate(cls: T) -> T:
            taken = self._classes.get(name)
            if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
                raise UsageError(
                    f"{self.title} '{name}' is registered twice: by {taken.__module__}.{taken.__qualname__} "
                    f"and by {cls.__module__}.{cls.__qualname__}"
                )
            self._classes[name] = cls
            cls.registered_name = name  # type: ignore[attr-defined]
            return cls

        return decorate

    def names(self) -> list[str]:
        """All offered names, sorted."""
        return sorted(self.entries())

    def entries(self) -> dict[str, Entry]:
        """All offered names with where they live; nothing is imported."""
        if self._entries is None:
            found: dict[str, Entry] = {}
            for module in self._plugin_modules():
                for entry in _scan(module, f"register_{self.kind}"):
                    other = found.setdefault(entry.name, entry)
                    if other.path.resolve() != entry.path.resolve() or other.line != entry.line:
                        raise UsageError(
                            f"{self.title} '{entry.name}' is registered twice: {other.path}:{other.line} "
                            f"and {entry.path}:{entry.line}; uninstall one or rename it"
                        )
            self._entries = found
        return self._entries

    def get(self, name: str) -> type[Any]:
        """Import and return the class registered under `name` (or under its prefix, bound as `adapted`)."""
        prefix, colon, rest = name.partition(":")
        if colon and f"{prefix}:" in self.entries():
            if not rest:
                raise UsageError(f"'{name}' is a family of {self.title}s: say which one, as {name}NAME")
            adapter: Any = self._registered(f"{prefix}:")
            adapted: type[Any] = adapter.adapt(rest)
            return adapted
        return self._registered(name)

    def canonical(self, name: str) -> str:
        """The one spelling of a name: an adapter may accept several (`gradcam-pkg:eigencam`), and says which it means."""
        if ":" not in name:
            return name
        meant: str = getattr(self.get(name), "registered_name", name)
        return name if meant.endswith(":") else meant

    def _registered(self, name: str) -> type[Any]:
        if name in self._classes:
            return self._classes[name]
        entry = self.entries().get(name)
        if entry is None:
            raise unknown(self.title, name, self.entries())
        return self._load(entry)

    def _load(self, entry: Entry) -> type[Any]:
        try:
            importlib.import_module(entry.module)
        except ModuleNotFoundError as error:
            raise WsolbenchError(
                f"{self.title} '{entry.name}' ({entry.path}) needs the package '{error.name}', which is not installed"
            ) from error
        return self._classes[entry.name]

    def _plugin_modules(self) -> list[str]:
        """Module names of all plug-ins, built-ins first; a bare checkout's source roots are put on the path."""
        if importlib.util.find_spec(self.builtin) is None:
            root = Path(__file__).resolve().parent.parent / self.group.removeprefix("wsolbench.")
            if (root / self.builtin).is_dir():
                sys.path.append(str(root))
        modules = [self.builtin, *(point.module for point in entry_points(group=self.group))]
        return list(dict.fromkeys(modules))  # an installed copy announces the built-ins once more


def _scan(module: str, decorator: str) -> list[Entry]:
    """Registrations in a module or in the files of a package, found in source."""
    spec = _find(module)
    if spec is None:
        raise UsageError(
            f"plug-in module '{module}' is announced by an installed package but cannot be found; "
            "install that package again, or uninstall it"
        )
    if spec.submodule_search_locations:
        files = [
            (".".join((module, *_parts(path.relative_to(folder)))), path)
            for folder in spec.submodule_search_locations
            for path in sorted(Path(folder).rglob("*.py"))
        ]
    else:
        files = [(module, Path(spec.origin or ""))]
    return [entry for name, path in files for entry in _scan_file(name, path, decorator)]


def _parts(path: Path) -> tuple[str, ...]:
    """The names under which a file of a package is imported.

    >>> _parts(Path("badges/dataset.py")), _parts(Path("badges/__init__.py"))
    (('badges', 'dataset'), ('badges',))
    """
    parts = path.with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def _find(module: str) -> ModuleSpec | None:
    """Find a module without importing its parents (`find_spec("a.b")` would run a/__init__.py)."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    for depth, _ in enumerate(rest, 2):
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(".".join(module.split(".")[:depth]), spec.submodule_search_locations)
    return spec


def _scan_file(module: str, path: Path, decorator: str) -> list[Entry]:
    source = path.read_text(encoding="utf-8")
    if decorator not in source:
        return []
    try:
        tree = ast.parse(source, str(path))
    except SyntaxError as error:
        raise WsolbenchError(f"{path}:{error.lineno}: {error.msg}; nothing in this file can be registered") from error
    entries = []
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        for call in node.decorator_list:
            if not isinstance(call, ast.Call) or _called_name(call.func) != decorator:
                continue
            name = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
            if not isinstance(name, str):
                raise UsageError(f"{path}:{call.lineno}: @{decorator} needs its name as a literal: it is read, not run")
            summary = (ast.get_docstring(node) or "").split("\n")[0]
            entries.append(Entry(name, module, node.name, summary, path, node.lineno))
    return entries


def _called_name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


METHODS = Registry("method", "wsolbench_methods")
DATASETS = Registry("dataset", "wsolbench_datasets")
register_method = METHODS.register
register_dataset = DATASETS.register


def list_methods() -> list[str]:
    """Names of all methods that can be created."""
    return METHODS.names()


def list_datasets() -> list[str]:
    """Names of all data sets that can be created."""
    return DATASETS.names()


def slug(name: str) -> str:
    """A name as a folder: no separators, no colon.

    >>> slug("gradcam-pkg:EigenCAM")
    'gradcam-pkg-EigenCAM'
    """
    return "".join(character if character.isalnum() or character in "-_." else "-" for character in name).lstrip(".")
