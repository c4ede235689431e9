"""The records of finished runs below a folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from wsolbench.errors import WsolbenchError
from wsolbench.record import RunRecord, read_record


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def load_records(results: Path, on_skip: Callable[[str], None] = _warn) -> list[RunRecord]:
    """Read every `record.json` below `results/runs`, or below the folder itself where it has no `runs`.

    A file that cannot be shown is named to `on_skip` in one sentence and left out. Shared classifiers are no runs.

    Raises:
        WsolbenchError: the folder does not exist.
    """
    return list(find_records(results, on_skip).values())


def find_records(results: Path, on_skip: Callable[[str], None] = _warn) -> dict[Path, RunRecord]:
    """Read records as `load_records` does, by the run directory they lie in."""
    results = Path(results)
    if not results.exists():
        raise WsolbenchError(f"there is no results folder '{results}'; `wsolbench run` makes one")
    base = results / "runs" if (results / "runs").is_dir() else results
    paths = [base] if base.is_file() else sorted(base.rglob("record.json"))
    records = {}
    for path in paths:
        if "_classifiers" in path.relative_to(base).parts:
            continue
        try:
            records[path.parent] = read_record(path)
        except WsolbenchError as error:
            on_skip(f"{error}; it is left out")
    return records
