"""`wsolbench report`: from run directories to a page, top to bottom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.leaderboard.groups import summarise
from wsolbench.leaderboard.records import find_records
from wsolbench.record import RunRecord
from wsolbench.report.collect import galleries
from wsolbench.report.gallery import Options
from wsolbench.report.page import render
from wsolbench.system.files import write_text
from wsolbench.system.progress import Reporter


def write_report(
    runs: Sequence[Path], out: Path, options: Options | None = None, reporter: Reporter | None = None
) -> Path:
    """Write the page of run directories or folders of results to `out`, atomically.

    Raises:
        UsageError: a folder does not exist, or an image was asked for that no run has seen.
        WsolbenchError: there is no finished run, or the page cannot be written.
    """
    options, reporter = options or Options(), reporter or Reporter()
    found = read_runs(runs)
    groups = summarise(found.values())
    shown = galleries(groups, found, options, reporter)
    text = render(groups, found, shown, options.command)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, text)
    except OSError as error:
        raise WsolbenchError(f"the report could not be written to '{out}': {error.strerror}") from error
    return out


def read_runs(folders: Sequence[Path]) -> Mapping[Path, RunRecord]:
    """The records of run directories and of folders of results, each once, by run directory."""
    found: dict[Path, RunRecord] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"'{folder}' is no run directory and no folder of results; 'wsolbench run' makes some")
        found |= {path.resolve(): record for path, record in find_records(folder).items()}
    if not found:
        names = ", ".join(f"'{folder}'" for folder in folders)
        raise WsolbenchError(
            f"{names} holds no finished run (no record.json); 'wsolbench run --methods A,B' makes some"
        )
    return found
