"""What a folder of results holds, without times: two runs of one command are compared file by file."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from wsolbench.record import comparable, read_record

TIMED = {"images_per_second", "seconds", "created"}  # keys whose values are times


def contents(out: Path) -> dict[str, Any]:
    """Content by path: bytes, and of text what is no time."""
    return {str(path.relative_to(out)): _content(path, out) for path in sorted(out.rglob("*")) if path.is_file()}


def assert_same_files(out: Path, whole: Path) -> None:
    """Nothing differs, nothing is missing, and no *.tmp, .lock or state.pt is left."""
    found, expected = contents(out), contents(whole)
    assert any(name.endswith("record.json") for name in expected)
    assert found.keys() == expected.keys()
    for name, content in expected.items():
        assert found[name] == content, f"{name} of {out.name}"


def temporary_files(out: Path) -> list[Path]:
    """What a writer has left behind."""
    return [path for path in out.rglob("*") if path.suffix == ".tmp" or path.name.endswith(".part")]


def _content(path: Path, out: Path) -> Any:
    if path.name == "record.json":
        return comparable(read_record(path))
    if path.name == "config.yaml":
        return path.read_text().replace(str(out), "OUT")
    if path.suffix == ".json":
        return _without_times(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [_without_times(json.loads(line)) for line in path.read_text().splitlines()]
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def _without_times(value: Any) -> Any:
    return {key: item for key, item in value.items() if key not in TIMED} if isinstance(value, dict) else value
