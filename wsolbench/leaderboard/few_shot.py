"""Few-shot results of finished runs, by budget: equal optimizer steps, or equal epochs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeAlias

from wsolbench.leaderboard.groups import summarise
from wsolbench.record import ELSEWHERE, RunRecord

BUDGETS = ("equal steps", "equal epochs")
FEW = re.compile(r"(?:(\d+)shot|full|matrix)(\+budget=epochs)?$")  # a matrix is a full run, and more

Points: TypeAlias = dict[tuple[str, str], dict[int, list[float]]]
"""Method (with what tells its settings apart) and backbone -> training images per class, 0 for all of them -> percent of each seed."""


def few_shot_points(records: Iterable[RunRecord], column: str = "GT-known@val") -> dict[str, Points]:
    """Per budget what runs of `full` (or `matrix`, whichever has more seeds) and `<k>shot` reached.

    Left out: methods that train nothing, points of fewer seeds than the others of a method, methods with one point.
    """
    budgets: dict[str, Points] = {name: {} for name in BUDGETS}
    for group in summarise(record for record in records if FEW.fullmatch(record.protocol)):
        found = FEW.fullmatch(group.protocol)
        assert found is not None
        for row in group.own_rows:
            values = [100 * cell.value for record in row.records for cell in record.cells if cell.column == column]
            if not values or row.records[0].ledger.training in ("none", ELSEWHERE):
                continue
            shots = int(found[1] or 0)
            for name, points in budgets.items():
                if not shots or (name == "equal epochs") == bool(found[2]):
                    known = points.setdefault((row.label, row.backbone), {})
                    if len(values) > len(known.get(shots, [])):
                        known[shots] = values
    whole = {name: {key: _whole(values) for key, values in points.items()} for name, points in budgets.items()}
    return {name: {key: values for key, values in points.items() if len(values) > 1} for name, points in whole.items()}


def _whole(values: dict[int, list[float]]) -> dict[int, list[float]]:
    """The points that all seeds reached: of a mean over fewer one could not tell method from luck."""
    seeds = max(map(len, values.values()))
    return {shots: found for shots, found in values.items() if len(found) == seeds}
