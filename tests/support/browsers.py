"""Chromium without a window: for the tests of the report's page and for pictures of it (results/draw_report.py)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",  # a container's root cannot have one
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


class NotThere(Exception):
    """There is no Chromium with its driver, or it does not start; the text says which."""


def chromium() -> str:
    """The browser's path."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if (found := shutil.which(name)) is not None:
            return found
    raise NotThere("no Chromium on this machine: make browser, or apt-get install chromium chromium-driver")


def start(profile: Path) -> Any:
    """A selenium driver of a new Chromium with an empty folder `profile` for what it keeps.

    Raises:
        NotThere: it is missing or does not start.
    """
    from selenium import webdriver
    from selenium.common.exceptions import WebDriverException

    binary, driver = chromium(), shutil.which("chromedriver")
    if driver is None:
        raise NotThere("no driver of Chromium on this machine: make browser, or apt-get install chromium-driver")
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    try:
        made = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        made.set_page_load_timeout(60)
        made.set_script_timeout(60)
    except (WebDriverException, OSError) as error:
        reason = (getattr(error, "msg", None) or str(error)).splitlines()
        raise NotThere(f"Chromium is here but does not start: {reason[0] if reason else error!r}") from error
    return made
