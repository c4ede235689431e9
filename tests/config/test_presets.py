"""The files of presets: what `wsolbench list` says of each stands on its first line."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsolbench.config.presets import protocol_presets, space_presets, summary_of


@pytest.mark.parametrize("path", [*protocol_presets().values(), *space_presets().values()], ids=lambda path: path.stem)
def test_every_preset_begins_with_its_summary(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert summary_of(path) == first[2:].strip() != ""
