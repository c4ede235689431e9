"""Progress on a terminal (rate, loss, time left), one-line messages elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class Advance(Protocol):
    """Move a bar on by n units; a note replaces the one shown behind it."""

    def __call__(self, n: int, note: str | None = None) -> None: ...


class _Rate(ProgressColumn):
    """Units a second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{_plain(task.speed)} {task.fields['unit']}/s", style="cyan")


def _plain(speed: float) -> str:
    """A rate without digits nobody reads; slow work keeps two.

    >>> _plain(1234.5), _plain(0.123)
    ('1234', '0.12')
    """
    return f"{speed:.0f}" if speed >= 10 else f"{speed:.2g}"


class Reporter:
    """Tells the user how far things are; goes to standard error, so that results can be piped.

    Args:
        console: where to write; a console that is no terminal gets plain lines and no bars.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(file=sys.stderr)
        self._bars: Progress | None = None
        if self.console.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                _Rate(),
                TextColumn("{task.fields[note]}", style="green"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )

    def live(self) -> AbstractContextManager[object]:
        """The context in which bars are drawn."""
        return nullcontext() if self._bars is None else self._bars

    def message(self, text: str) -> None:
        """Print one line, above the bars if there are any."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def bar(self, title: str, total: int, *, done: int = 0, unit: str = "images") -> Iterator[Advance]:
        """Draw a bar while the block runs; the yielded function moves it on by n units and may set a note."""
        bars = self._bars
        if bars is None:
            yield _ignore
            return
        task = bars.add_task(title, total=total, completed=done, unit=unit, note="")

        def advance(n: int, note: str | None = None) -> None:
            bars.update(task, advance=n)
            if note is not None:
                bars.update(task, note=note)

        try:
            yield advance
        finally:
            bars.remove_task(task)


def _ignore(n: int, note: str | None = None) -> None:
    """Where there is no terminal, nothing moves."""


class Silent(Reporter):
    """Says nothing: the default where the engine is used as a library."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True, force_terminal=False))
