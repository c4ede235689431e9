"""Draws the pictures of the README from committed results: the report's page and what a run ends with on a terminal.

    python results/draw_report.py              needs Chromium with its driver (make browser) and the extra `browser`
    python results/draw_report.py --pack DIR   takes the runs below DIR (an --out of `wsolbench run`) as those results

`results/example.tar.gz` holds what is kept of five short runs (records, outcomes, outcomes per image; no weights) and the maps
of the images shown, which the page finds as its cache. `results/README.md` states the command that made the runs.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import io
import os
import re
import sys
import tarfile
import tempfile
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.text import Text

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE / "example.tar.gz"
KEPT = ("record.json", "levels.npz", "images.csv.gz", "config.yaml")
COMMAND = "wsolbench run --methods cam,gradcam,tscam,sat,attention --backbone badges_vit.s0 train.epochs=5"
OPTIONS: dict[str, Any] = {"images": 3}
WIDTH = 1280  # of the page, in pixels
COLUMNS = 112  # of the terminal


def main() -> None:
    """Draw both pictures, or pack the results that they show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", metavar="DIR", type=Path)
    asked = parser.parse_args().pack
    if asked is not None:
        pack(asked)
        return
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        with tarfile.open(EXAMPLE) as archive:
            archive.extractall(".", filter="data")
        os.environ["WSOLBENCH_CACHE"] = folder
        print(draw_terminal(HERE / "terminal.svg"))
        print(draw_page(Path(folder), HERE / "report.png"))


def pack(out: Path) -> None:
    """Write the archive: the same runs give the same bytes. Where they lay (`out`, which decides nothing) is "results"."""
    from wsolbench.report.gallery import Options
    from wsolbench.report.write import write_report

    with tempfile.TemporaryDirectory() as folder:
        os.environ["WSOLBENCH_CACHE"] = folder
        write_report([out], Path(folder, "page.html"), Options(**OPTIONS))
        runs = [path.parent for path in (out / "runs").rglob("record.json")]
        files = {f"results/{path.relative_to(out)}": path for run in runs for path in map(run.joinpath, KEPT)}
        files |= {f"report/{path.name}": path for path in Path(folder, "report").glob("*.npz")}
        packed = io.BytesIO()
        with (
            gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=0) as compressed,
            tarfile.open(fileobj=compressed, mode="w") as archive,
        ):
            for name, path in sorted(files.items()):
                content = path.read_bytes()
                if path.suffix in (".json", ".yaml"):
                    content = content.replace(str(out).encode(), b"results")
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        EXAMPLE.write_bytes(packed.getvalue())
    print(f"{EXAMPLE} ({EXAMPLE.stat().st_size / 1e3:.0f} kB)")


def draw_terminal(path: Path) -> Path:
    """What `wsolbench run` prints at its end, by the functions that print it."""
    from rich._export_format import CONSOLE_SVG_FORMAT

    from wsolbench.cli.report import invitation
    from wsolbench.leaderboard.records import find_records
    from wsolbench.leaderboard.view import render

    found = find_records(Path("results"))
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text(f"$ {COMMAND}", style="bold"), soft_wrap=True)
    console.print(f"{len(found)} runs: {len(found)} done", highlight=False)
    render(found.values(), console=console)
    console.print(invitation("results", list(found)), highlight=False)
    own_fonts = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)  # ask no other host
    path.write_text(
        console.export_svg(title="wsolbench", code_format=own_fonts, unique_id="wsolbench"), encoding="utf-8"
    )
    return path


def draw_page(folder: Path, path: Path) -> Path:
    """The page's top and two rows of its gallery, as Chromium shows them."""
    sys.path.insert(0, str(HERE.parent / "tests" / "support"))
    from browsers import start

    from wsolbench.report.gallery import Options
    from wsolbench.report.write import write_report

    page = write_report([Path("results")], folder / "report.html", Options(**OPTIONS))
    browser = start(folder / "profile")
    try:
        metrics = {"width": WIDTH, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get(page.as_uri())
        browser.execute_script("document.querySelector('header pre')?.remove()")
        place = "const box = document.querySelector(arguments[0]).getBoundingClientRect(); return [box.top, box.bottom]"
        cards = browser.execute_script(
            "return [...document.querySelectorAll('h4')].find(each => each.textContent === 'Most disagreeing').nextElementSibling.id"
        )
        tops = [browser.execute_script(place, at)[0] for at in ("body", "#gallery", f"#{cards}")]
        ends = [browser.execute_script(place, at)[1] for at in ("#curves .drawing", ".gallery .legend")]
        last = browser.execute_script(place, f"#{cards} + .card")[1]
        cuts = [(tops[0], ends[0] + 8), (tops[1], ends[1] + 8), (tops[2], last + 8)]
        pieces = [_shot(browser, top, bottom) for top, bottom in cuts]
    finally:
        browser.quit()
    whole = Image.fromarray(np.concatenate(pieces))
    whole.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)  # a third of the bytes
    return path


def _shot(browser: Any, top: float, bottom: float) -> Any:
    clip = {"x": 0, "y": top, "width": WIDTH, "height": bottom - top, "scale": 1}
    shot = browser.execute_cdp_cmd(
        "Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True, "clip": clip}
    )
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB"))


if __name__ == "__main__":
    main()
