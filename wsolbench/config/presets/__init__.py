"""Values that come with the harness, as YAML files: protocols, experiments (training recipes), search spaces.

The file of a protocol or a space begins with a comment of one line, its summary (`summary_of`): `wsolbench list` prints those
of protocols. It is no key, since every key of a protocol's file becomes one of the run's configuration.
"""

from __future__ import annotations

from pathlib import Path

CONF = Path(__file__).parent


def protocol_presets() -> dict[str, Path]:
    """Names of the preset protocols and their files; `<k>shot` and `<p>percent` are derived for any number."""
    return {path.stem: path for path in sorted((CONF / "protocol").glob("*.yaml"))}


def space_presets() -> dict[str, Path]:
    """Names of the spaces that come with the harness, and their files."""
    return {path.stem: path for path in sorted((CONF / "search").glob("*.yaml"))}


def summary_of(path: Path) -> str:
    """What the comment on the first line of a preset says of it."""
    with path.open(encoding="utf-8") as lines:
        return lines.readline().removeprefix("#").strip()
