"""The terminal: as many columns as it holds, and a word about those it does not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from wsolbench.leaderboard.tables.sheets import Document, Field, Head, Sheet, Signs

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_NARROW = 21  # longer texts wrap where values stand in two lines


def print_document(document: Document, console: Console | None = None) -> None:
    """Print one table per sheet, in as many columns as the terminal holds, and say what it does not hold."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.text import Text

    if console is None:
        console = Console()
        if not console.is_terminal and "COLUMNS" not in os.environ:
            console = Console(width=200)  # a file or a log has no edge to wrap at
    if not document.sheets:
        console.print(document.empty)
        return
    dropped: tuple[str, ...] = ()
    wide = console.options.update(width=10_000)
    # values move to a second line before a column goes, but what is of least interest goes before that
    steps = [(False, count) for count in sorted({0, document.early})]
    steps += [(True, count) for count in range(document.early, len(document.dispensable) + 1)]
    for two_lines, count in steps:
        dropped = document.dispensable[:count]
        tables = [_table(sheet, dropped, two_lines) for sheet in document.sheets]
        if all(Measurement.get(console, wide, table).maximum <= console.width for table in tables):
            break
    missing = dict.fromkeys(str(head) for sheet in document.sheets for head in sheet.heads if head.key in dropped)
    for sheet, table in zip(document.sheets, tables, strict=True):
        console.print()
        console.print(Text(sheet.title, style="bold"))
        console.print(table)
        for note in sheet.notes:
            console.print(Text(f"{note}.", style="dim"))
    console.print()
    console.print(Text(" ".join(document.legend(Signs(dropped=dropped))), style="dim"))
    if missing:
        console.print(
            Text(f"Not shown for want of width: {', '.join(missing)} (--format markdown or csv has all).", style="dim")
        )


def _table(sheet: Sheet, dropped: Sequence[str], two_lines: bool) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    kept = [index for index, head in enumerate(sheet.heads) if not (head.key and head.key in dropped)]
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False, header_style="")
    for index in kept:
        head = sheet.heads[index]
        if head.kind == "text":
            table.add_column(str(head), overflow="fold", max_width=_NARROW if two_lines else None)
        elif head.kind == "value":
            table.add_column(_title(head), no_wrap=True)
        else:
            table.add_column(str(head), justify="right", no_wrap=True)
    for line in sheet.lines:
        style = "dim" if line.muted else ""
        fields = [_field(line.fields[index], sheet.heads[index], two_lines) for index in kept]
        if isinstance(fields[0], str):
            fields[0] = Text(fields[0], style=style)
        table.add_row(*fields, style=style)
    return table


def _title(head: Head) -> Text:
    from rich.text import Text

    name, detail = head.name, head.detail
    if name == "MaxBoxAccV2†":  # the widest title would set the width
        name, detail = "MaxBoxAcc", f"V2† {detail}"
    return Text(f"{name}\n{detail}".rstrip())


def _field(field: Field, head: Head, two_lines: bool) -> Text | str:
    from rich.text import Text

    if head.kind != "value":
        return Text(field.text)
    best = "best" in field.marks
    sign = "*" if best else Signs.tied if "tied" in field.marks else " "
    text = Text(f"{field.text:>5}{sign}" if field.text != "-" else "    -", style="bold" if best else "")
    if field.detail:
        text.append("\n" + field.detail.replace(", ", ",") if two_lines else f" {field.detail}", style="not bold dim")
    return text
