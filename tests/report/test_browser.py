"""The page in a real browser: it sorts, filters and searches, says nothing to the console, asks the network for nothing.

Needs Chromium with its driver and the extra `browser` (selenium, and axe-core's file): `make test` installs them where it can.
All of it is skipped, with the reason, where something is missing or Chromium does not start.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsers import NotThere, start
from report_cases import HOSTILE, write_case

from wsolbench.report.write import write_report

pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install '.[browser]'")
WebDriverWait = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait

AXE = ("axe_playwright_python", "axe_core_python")  # packages that carry axe.min.js (MPL 2.0), the newer first


def axe() -> str:
    for package in AXE:
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            return Path(folder, "axe.min.js").read_text(encoding="utf-8")
    pytest.skip("axe-core is not at hand: pip install '.[browser]'")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    before = os.environ.get("WSOLBENCH_CACHE")
    os.environ["WSOLBENCH_CACHE"] = str(folder / "cache")
    try:
        write_case(folder / "results", "corner", 0.5, config=True, training="none", backbone="-")
        write_case(folder / "results", "<img src=x onerror=alert(3)>", 0.3)
        for seed in (0, 1):
            write_case(folder / "results", "sat", 0.7, seed=seed)
        write_case(folder / "results", "sat", 0.6, protocol="1shot")
        return write_report([folder / "results"], folder / "report.html")
    finally:
        os.environ.pop("WSOLBENCH_CACHE") if before is None else os.environ.update(WSOLBENCH_CACHE=before)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    try:
        made = start(tmp_path_factory.mktemp("profile"))
    except NotThere as error:
        pytest.skip(str(error))
    yield made
    made.quit()


@pytest.fixture
def opened(browser: Any, page: Path) -> Any:
    browser.set_window_size(1280, 900)
    visit(browser, page)
    return browser


def visit(browser: Any, page: Path) -> None:
    """Open the page anew: going to where one is already need not wait for it."""
    browser.get("about:blank")
    browser.get(page.as_uri())
    ready = "return document.readyState === 'complete' && document.querySelector('.search input') !== null"
    WebDriverWait(browser, 30).until(lambda each: each.execute_script(ready))


def rows(browser: Any) -> list[str]:
    """First fields of the visible rows of the table that has most of them."""
    script = """return [...document.querySelectorAll('#leaderboard .board:not([hidden])')].map(
        board => [...board.querySelectorAll('tbody tr:not([hidden])')].map(row => row.cells[0].textContent))"""
    return max(browser.execute_script(script), key=len, default=[])


def press(browser: Any, selector: str) -> None:
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


def choose(browser: Any, axis: str, value: str) -> None:
    script = """const field = document.querySelector(`#filters select[name=${arguments[0]}]`);
        field.value = arguments[1]; field.dispatchEvent(new Event('change', { bubbles: true }))"""
    browser.execute_script(script, axis, value)


def search(browser: Any, text: str) -> list[str]:
    script = """const field = document.querySelector('.search input'); field.value = arguments[0];
        field.dispatchEvent(new Event('input', { bubbles: true }));
        return [...document.querySelectorAll('.results tbody tr')].map(row => row.cells[0].textContent)"""
    return list(browser.execute_script(script, text))


def test_a_click_on_a_title_sorts_both_ways_and_back(opened: Any) -> None:
    biggest = """const tables = [...document.querySelectorAll('#leaderboard table')];
        const table = tables.sort((a, b) => b.tBodies[0].rows.length - a.tBodies[0].rows.length)[0];
        const at = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent.startsWith('GT-known@val'));
        if (arguments[0]) table.tHead.rows[0].cells[at].firstElementChild.click();
        return [table.tHead.rows[0].cells[at].getAttribute('aria-sort'),
                [...table.tBodies[0].rows].map(row => Number(row.cells[at].dataset.value))]"""
    _, original = opened.execute_script(biggest, False)
    assert len(original) == 3
    assert opened.execute_script(biggest, True) == ["descending", sorted(original, reverse=True)]
    assert opened.execute_script(biggest, True) == ["ascending", sorted(original)]
    assert opened.execute_script(biggest, True) == ["none", original]


def test_filters_hide_rows_figures_and_tiles(opened: Any) -> None:
    assert len(rows(opened)) == 3
    choose(opened, "method", "sat")
    assert rows(opened) == ["sat"]
    visible = (
        "return [...document.querySelectorAll('.tile')].filter(each => !each.hidden).map(each => each.dataset.method)"
    )
    assert set(opened.execute_script(visible)) == {"sat"}
    choose(opened, "protocol", "1shot")
    boards = "return document.querySelectorAll('#leaderboard .board:not([hidden])').length"
    assert opened.execute_script(boards) == 1
    assert "rows" in opened.execute_script("return document.getElementById('counted').textContent")
    press(opened, "#filters button[type=reset]")
    opened.execute_async_script("setTimeout(arguments[0], 50)")
    assert len(rows(opened)) == 3


def test_the_search_knows_every_image_by_id_and_class(opened: Any) -> None:
    assert search(opened, "test/00042") == ["test/00042"]
    assert search(opened, "PLAIN & simple") == [
        f"test/{at:05}" + "</script><b>" * (at % 5 == 4) for at in range(3, 60, 4)
    ]
    assert search(opened, "no such image") == []
    assert "0 of 60 images" in opened.execute_script("return document.querySelector('.search output').textContent")
    search(opened, "test/00042")
    press(opened, ".results button")
    detail = opened.execute_script("return document.querySelector('.results .scroll .scroll').textContent")
    assert "<img src=x onerror=alert(3)>" in detail
    assert HOSTILE[3] in detail  # the predicted class of image 42: the one behind its own


def test_the_search_goes_by_id_alone_where_there_are_no_boxes(browser: Any, tmp_path: Path) -> None:
    write_case(tmp_path / "results", "sat", 0.7, boxes=False)
    visit(browser, write_report([tmp_path / "results"], tmp_path / "report.html"))
    assert search(browser, "test/00042") == ["test/00042"]
    cells = "return [...document.querySelectorAll('.results tbody td')].map(each => each.textContent)"
    assert browser.execute_script(cells)[1:4] == ["-", "-", "-"]
    assert browser.execute_script("return document.querySelector('.search select')") is None
    assert [each for each in browser.get_log("browser") if each["level"] == "SEVERE"] == []


def test_a_picture_is_found_from_the_search(opened: Any) -> None:
    id = opened.execute_script("return document.querySelector('.card .id').textContent")
    opened.execute_script("document.querySelector('.card').open = false")
    search(opened, id)
    press(opened, ".results a")
    assert opened.execute_script("return document.querySelector('.card').open")


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(opened: Any, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    search(opened, "test")
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_hostile_names_are_shown_and_do_nothing(opened: Any) -> None:
    text = opened.execute_script("return document.getElementById('gallery').innerText")
    search(opened, "onerror")
    found = opened.execute_script("return document.querySelector('.results').textContent")
    assert HOSTILE[1] in found
    assert any(name in text for name in HOSTILE)
    assert opened.execute_script("return document.querySelectorAll('img').length") == 0
    with pytest.raises(Exception, match="no such alert"):
        opened.switch_to.alert.accept()


def test_no_word_to_the_console_and_no_request(browser: Any, page: Path) -> None:
    browser.get_log("browser")
    browser.get_log("performance")
    visit(browser, page)
    search(browser, "test")
    choose(browser, "method", "sat")
    assert browser.get_log("browser") == []
    messages = [json.loads(each["message"])["message"] for each in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert {url for url in asked if not url.startswith(("data:", "about:"))} == {page.as_uri()}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Any, page: Path, scheme: str) -> None:
    source = axe()
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    visit(browser, page)
    search(browser, "test")
    press(browser, ".results button")
    browser.execute_script(source)
    found, passed = browser.execute_async_script(
        "const done = arguments[0]; axe.run().then(result => done([result.violations, result.passes.length]), error => done([String(error), 0]))"
    )
    assert passed > 15, found  # it did look
    serious = [
        (each["id"], each["nodes"][0]["html"][:200]) for each in found if each["impact"] in ("serious", "critical")
    ]
    assert serious == []
