"""`wsolbench list`: what exists and where it lives, read from files; neither torch nor a plug-in is imported."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Callable
from pathlib import Path

from wsolbench.cli.parser import Verb
from wsolbench.config.presets import protocol_presets, summary_of
from wsolbench.errors import unknown
from wsolbench.registry import DATASETS, METHODS, Registry

PACKAGE = Path(__file__).parent.parent


def list_section(section: str) -> list[tuple[str, str, str]]:
    """Rows (name, one-line summary, where it lives) of a section of `SECTIONS`."""
    return SECTIONS[section]()


def _plugins(registry: Registry) -> list[tuple[str, str, str]]:
    return [
        (f"{name}<name>" if name.endswith(":") else name, entry.summary, f"{_short(entry.path)}:{entry.line}")
        for name, entry in sorted(registry.entries().items())
    ]


def _protocols() -> list[tuple[str, str, str]]:
    rows = [(name, summary_of(path), _short(path)) for name, path in protocol_presets().items()]
    derived = "k training images per class for any k, e.g. 5shot; else as full, or as PRESET in 5shot+PRESET"
    return [*rows, ("<k>shot", derived, _short(PACKAGE / "config" / "compose.py"))]


def _backbones() -> list[tuple[str, str, str]]:
    rows = [
        (path.stem, f"embedded, {path.stat().st_size / 2**20:.1f} MB of weights", _short(path))
        for path in sorted((PACKAGE / "backbones").rglob("*.safetensors"))
    ]
    rows += _reference_networks()
    return [*rows, ("<timm name>", "any timm model, e.g. deit_small_patch16_224, resnet50", "timm.list_models()")]


def _reference_networks() -> list[tuple[str, str, str]]:
    """The functions `wsol_*` that timm's registry is given, read from source."""
    return [
        (node.name, (ast.get_docstring(node) or "").split("\n")[0], f"{_short(path)}:{node.lineno}")
        for path in sorted((PACKAGE / "backbones").glob("wsol_*.py"))
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("wsol_")
    ]


def _short(path: Path) -> str:
    """The path as seen from here where that is shorter."""
    path = path.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


SECTIONS: dict[str, Callable[[], list[tuple[str, str, str]]]] = {
    "methods": lambda: _plugins(METHODS),
    "datasets": lambda: _plugins(DATASETS),
    "protocols": _protocols,
    "backbones": _backbones,
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare what the verb takes."""
    parser.add_argument("what", nargs="?", metavar="KIND", help=f"{', '.join(SECTIONS)} (default: all)")


def print_list(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Print one section, or all of them."""
    if arguments.what is not None and arguments.what not in SECTIONS:
        raise unknown("kind", arguments.what, SECTIONS)
    for number, kind in enumerate([arguments.what] if arguments.what else SECTIONS):
        rows = list_section(kind)
        if arguments.what is None:
            print("\n" * (number > 0) + kind)
        name_width, summary_width = (max((len(row[i]) for row in rows), default=0) for i in (0, 1))
        for name, summary, where in rows:
            print(f"  {name:{name_width}}  {summary:{summary_width}}  {where}")
    return 0


VERB = Verb("list", "Say what exists, and where it lives.", "wsolbench list methods", add_flags, print_list)
