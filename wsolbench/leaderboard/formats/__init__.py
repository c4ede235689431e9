"""One file per format; a format knows nothing of what a table is about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from wsolbench.errors import WsolbenchError, unknown
from wsolbench.leaderboard.tables.sheets import Document

if TYPE_CHECKING:
    from rich.console import Console

TEXTS = ("csv", "html", "latex", "markdown")
FORMATS = (*TEXTS, "table")  # the last one is printed, by `terminal.print_document`


def text(document: Document, format: str) -> str:
    """A document as the text of one of `TEXTS`.

    Raises:
        UsageError: there is no such format.
    """
    if format == "markdown":
        from wsolbench.leaderboard.formats.markdown import to_markdown

        return to_markdown(document)
    if format == "csv":
        from wsolbench.leaderboard.formats.tidy import to_csv

        return to_csv(document)
    if format == "latex":
        from wsolbench.leaderboard.formats.latex import to_latex

        return to_latex(document)
    if format == "html":
        from wsolbench.leaderboard.formats.html import to_html

        return to_html(document)
    raise unknown("format", format, FORMATS)


def show(document: Document, format: str = "table", console: Console | None = None) -> str | None:
    """What `format` asks for: "table" is printed and None returned, the `text` of any other is returned and not printed."""
    if format != "table":
        return text(document, format)
    from wsolbench.leaderboard.formats.terminal import print_document

    print_document(document, console)
    return None


def write(document: Document, folder: Path, command: str) -> list[Path]:
    """Write a document, with the `command` that made it, as .md and .csv named by its title (`leaderboard.md`).

    Raises:
        WsolbenchError: the folder cannot be written.
    """
    from wsolbench.system.files import write_text

    document, name = replace(document, command=command), document.title.lower().replace(" ", "-")
    folder = Path(folder)
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for suffix, format in (("md", "markdown"), ("csv", "csv")):
            path = folder / f"{name}.{suffix}"
            write_text(path, text(document, format))
            written.append(path)
    except OSError as error:
        raise WsolbenchError(f"the {name} could not be written to '{folder}': {error.strerror}") from error
    return written
