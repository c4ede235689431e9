"""Tidy CSV in full precision."""

from __future__ import annotations

from wsolbench.leaderboard.tables.sheets import Document


def to_csv(document: Document) -> str:
    """One line per record (fractions, seconds), and the command that made the numbers where it is known."""
    import pandas as pd

    extra = {"command": document.command} if document.command else {}
    # As objects: a missing value must not turn a column of integers into floats.
    return pd.DataFrame([{**record, **extra} for record in document.records], dtype=object).to_csv(
        index=False, lineterminator="\n"
    )
