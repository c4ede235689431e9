"""The committed results from which the README's pictures are drawn still make them, without weights."""

from __future__ import annotations

import os
import runpy
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from wsolbench.report.gallery import Options
from wsolbench.report.write import write_report

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """`results/draw_report.py`, with its results unpacked in the working directory."""
    if not (ROOT / "results" / "draw_report.py").is_file():
        pytest.skip("results/ is not part of a source distribution")
    made = runpy.run_path(str(ROOT / "results" / "draw_report.py"))
    with tarfile.open(made["EXAMPLE"]) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WSOLBENCH_CACHE", os.fspath(tmp_path))
    return made


def test_the_page_of_the_committed_results_has_all_its_maps(script: dict[str, Any], tmp_path: Path) -> None:
    page = write_report([tmp_path / "results"], tmp_path / "r.html", Options(**script["OPTIONS"])).read_text()
    assert "No maps of" not in page
    assert page.count('<image class="map"') == 5 * 4 * script["OPTIONS"]["images"]


def test_the_terminal_shows_the_table_and_asks_no_other_host(script: dict[str, Any], tmp_path: Path) -> None:
    text = script["draw_terminal"](tmp_path / "terminal.svg").read_text(encoding="utf-8").replace("&#160;", " ")
    for expected in (script["COMMAND"], "GT-known", "63.7*", "as a page: wsolbench report results"):
        assert expected in text
    assert "url(http" not in text
    assert "@font-face" not in text


def test_pictures_are_small_enough_for_a_readme() -> None:
    results = ROOT / "results"
    if not (results / "report.png").is_file():
        pytest.skip("results/ is not part of a source distribution")
    with Image.open(results / "report.png") as picture:
        assert picture.width == 1280
    assert (results / "report.png").stat().st_size < 400_000
    assert (results / "example.tar.gz").stat().st_size < 1_500_000
