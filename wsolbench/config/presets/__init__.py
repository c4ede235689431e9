"""Values that come with the harness, as YAML files: protocols, experiments (training recipes), search spaces."""

from __future__ import annotations

from pathlib import Path

CONF = Path(__file__).parent


def protocol_presets() -> dict[str, Path]:
    """Names of the preset protocols and their files; `<k>shot` and `<p>percent` are derived for any number."""
    return {path.stem: path for path in sorted((CONF / "protocol").glob("*.yaml"))}


def space_presets() -> dict[str, Path]:
    """Names of the spaces that come with the harness, and their files."""
    return {path.stem: path for path in sorted((CONF / "search").glob("*.yaml"))}
