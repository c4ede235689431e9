"""Every example in a docstring runs and says what it says."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {"wsolbench": ROOT, "wsolbench_methods": ROOT / "methods", "wsolbench_datasets": ROOT / "datasets"}


def modules_with_examples() -> list[str]:
    found = []
    for package, source in SOURCES.items():
        for path in sorted((source / package).rglob("*.py")):
            if "\n    >>> " in path.read_text(encoding="utf-8") or "        >>> " in path.read_text(encoding="utf-8"):
                parts = path.relative_to(source).with_suffix("").parts
                found.append(".".join(part for part in parts if part != "__init__"))
    return found


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    module = import_module(name)
    # the names a reader of the page would have imported
    names = vars(module) | {each: import_module(each) for each in ("numpy", "torch")}
    names |= {"np": names["numpy"], "Path": Path}
    result = doctest.testmod(module, extraglobs=names)
    assert result.attempted
    assert not result.failed
