"""The page as text: what it says, what it does not ask the network for, and how large it gets."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from report_cases import ERRORS, HOSTILE, image_id, write_case

from wsolbench.cli.main import main
from wsolbench.cli.report import invitation
from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.report.collect import read_outcomes
from wsolbench.report.gallery import Options
from wsolbench.report.write import write_report


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WSOLBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_case(tmp_path / "results", "corner", 0.5, config=True, training="none", backbone="-")
    for seed in (0, 1):
        write_case(tmp_path / "results", "sat", 0.7, seed=seed)
    return tmp_path / "results"


def test_a_page_of_a_folder_and_of_its_runs_shows_the_same(results: Path, tmp_path: Path) -> None:
    runs = [path.parent for path in sorted(results.rglob("record.json"))]
    pages = [write_report(asked, tmp_path / "r.html").read_text() for asked in ([results], runs, [results, *runs])]
    assert pages[0] == pages[1] == pages[2]
    assert "3 finished runs" in pages[0]


def test_every_section_is_there(results: Path, tmp_path: Path) -> None:
    page = write_report([results], tmp_path / "report.html").read_text()
    for name in ("leaderboard", "curves", "protocols", "errors", "gallery"):
        assert f'<section id="{name}"' in page
    assert page.count('<svg role="img" aria-label="') >= 4
    assert "MaxBoxAcc†" in page
    assert "box accuracy over thresholds" in page
    assert "No few-shot runs" in page
    assert "60 images" in page


def test_maps_are_computed_where_they_can_be_and_cached(results: Path, tmp_path: Path, cache: Path) -> None:
    page = write_report([results], tmp_path / "report.html").read_text()
    assert page.count('<image class="map"') == 24  # 6 of 4 kinds, of the one method that can be loaded
    assert "No maps of sat" in page
    (stored,) = (cache / "report").glob("*.npz")
    with np.load(stored) as file:
        maps = file["maps"]
    assert maps.shape == (24, 32, 32)
    assert maps[:, 0, 0].min() == 255
    shutil.rmtree(results / "runs" / "hostile" / "corner", ignore_errors=False)
    write_case(results, "corner", 0.5, training="none", backbone="-")  # nothing to load it from any more
    assert write_report([results], tmp_path / "report.html").read_text().count('<image class="map"') == 24
    stored.write_bytes(b"damaged")
    page = write_report([results], tmp_path / "report.html").read_text()
    assert '<image class="map"' not in page
    assert "No maps of corner" in page


def test_without_its_data_set_a_page_has_no_pictures_and_says_why(results: Path, tmp_path: Path) -> None:
    for path in results.rglob("record.json"):
        content = json.loads(path.read_text())
        content["provenance"]["data_revision"] = "of last year"
        path.write_text(json.dumps(content))
    page = write_report([results], tmp_path / "report.html").read_text()
    assert "There are no pictures: the data set at hand is revision 1, the runs saw of last year." in page
    assert '<details class="card"' not in page
    assert index_of(page)["ids"][0] == "test/00000"


def test_runs_without_outcomes_per_image_still_make_a_page(results: Path, tmp_path: Path) -> None:
    for name in ("images.csv.gz", "levels.npz"):
        for path in results.rglob(name):
            path.unlink()
    page = write_report([results], tmp_path / "report.html").read_text()
    assert "No outcomes per image are at hand" in page
    assert "there are no curves" in page
    assert "MaxBoxAcc†" in page


def test_asked_for_images_get_a_picture(results: Path, tmp_path: Path) -> None:
    page = write_report([results], tmp_path / "r.html", Options(images=0, ids=("test/00042",), maps=False)).read_text()
    assert page.count('<details class="card"') == 1
    assert index_of(page)["shown"] == [42]
    with pytest.raises(UsageError, match="none of these runs has such an image, did you mean 'test/00042'"):
        write_report([results], tmp_path / "r.html", Options(ids=("test/0042",)))


def test_wrong_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no run directory"):
        write_report([tmp_path / "nowhere"], tmp_path / "r.html")
    with pytest.raises(WsolbenchError, match="holds no finished run"):
        write_report([tmp_path], tmp_path / "r.html")


class Elements(HTMLParser):
    """All start tags with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_hostile_names_are_text_and_nothing_is_fetched(results: Path, tmp_path: Path) -> None:
    write_case(results, "<img src=x onerror=alert(3)>", 0.2)
    page = write_report([results], tmp_path / "report.html").read_text()
    elements = Elements()
    elements.feed(page)
    assert not [name for _, attributes in elements.found for name in attributes if name.startswith("on")]
    assert {tag for tag, _ in elements.found} & {"img", "link", "iframe", "object", "b"} <= {"b"}
    assert sum(tag == "script" for tag, _ in elements.found) == 2  # the index and the page's own
    for _, attributes in elements.found:
        for name in ("src", "href", "xlink:href", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/"))
    for name in HOSTILE[:2]:
        assert name not in page
    assert "{{ 7 * 7 }}" in page
    assert index_of(page)["classes"] == list(HOSTILE)
    assert not re.search(r"url\((?!#)|@import", page)


def index_of(page: str) -> dict[str, list[str]]:
    (text,) = re.findall(r'<script type="application/json" class="index">(.*?)</script>', page, re.DOTALL)
    return dict(json.loads(text))


def test_outcomes_of_older_runs_have_no_error_classes(results: Path) -> None:
    import gzip

    path = next(results.rglob("images.csv.gz"))
    now = read_outcomes(path, "test")
    assert now["id"][:2] == [image_id(0), image_id(1)]
    assert set(now["error_n"].tolist()) <= set(range(len(ERRORS)))
    with gzip.open(path, "rt") as file:
        lines = [",".join(line.rstrip("\n").split(",")[:11]) for line in file]
    with gzip.open(path, "wt") as file:
        file.write("\n".join(lines))
    old = read_outcomes(path, "test")
    assert (old["iou_n"] == now["iou_n"]).all()
    assert set(old["error_n"].tolist()) == {0, 255}


def test_run_ends_with_the_command_of_its_page(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    assert main(["report", str(results), "-o", str(out), "--no-maps", "--images", "1"]) == 0
    assert capsys.readouterr().out == f"{out} ({out.stat().st_size / 1e6:.1f} MB)\n"
    assert f"wsolbench report {results} -o {out} --images 1 --no-maps" in out.read_text()
    assert invitation("results", [Path("a"), Path("b")]).endswith("as a page: wsolbench report results")
    assert invitation("results", [Path("a b")]).splitlines() == [
        f"record: {Path('a b/record.json')}",
        "as a page: wsolbench report 'a b'",
    ]


IMAGES = int(os.environ.get("WSOLBENCH_REPORT_IMAGES", "10000"))  # 50,000 are ImageNet's, for docs/report.md


def test_thirty_runs_of_many_images_are_one_small_page(tmp_path: Path) -> None:
    """`WSOLBENCH_REPORT_IMAGES=50000 pytest -s ... -k thirty_runs` prints seconds and megabytes."""
    for at in range(10):
        more = {"config": True, "training": "none", "backbone": "-"} if at == 0 else {}
        folder = write_case(tmp_path / "results", f"m{at}" if at else "corner", 0.1 + 0.07 * at, images=IMAGES, **more)
        for seed in (1, 2):
            other = folder.with_name(f"s{seed}")
            shutil.copytree(folder, other)
            content = json.loads((folder / "record.json").read_text()) | {"seed": seed, "hash": f"{at}/{seed}"}
            (other / "record.json").write_text(json.dumps(content))
    started = time.perf_counter()
    page = write_report([tmp_path / "results"], tmp_path / "report.html")
    seconds, size = time.perf_counter() - started, page.stat().st_size / 1e6
    print(f"{seconds:.1f} s, {size:.1f} MB")
    assert size < 3 + 12 * IMAGES / 50_000
