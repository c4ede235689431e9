"""The tables of `leaderboard --matrix`: what stands beside what, and how far a method falls with less help."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from board_cases import make_record

from wsolbench.errors import UsageError
from wsolbench.leaderboard.formats import show
from wsolbench.leaderboard.groups import summarise
from wsolbench.leaderboard.selection import Selection
from wsolbench.leaderboard.tables.matrix import matrix_document
from wsolbench.leaderboard.tables.protocol_steps import fall, steps_of
from wsolbench.leaderboard.view import View, build
from wsolbench.record import Cell, RunRecord, to_json

CHOSEN = {  # checkpoint's selector, threshold's -> GT-known of seed 0
    ("test-oracle", "test-oracle"): 0.70,
    ("last", "test-oracle"): 0.65,
    ("last", "val-boxes"): 0.60,
    ("val-pseudo:segments", "val-pseudo:segments"): 0.30,
    ("class-accuracy", "otsu"): 0.40,
}


def matrix(method: str = "sat", *, seed: int = 0, lost: float = 0.0, **options: object) -> RunRecord:
    """Every seed is 10 points higher than the one before; `lost` is what the last step lacks besides."""
    cells = [
        Cell(
            "GT-known", value + 0.1 * seed - lost * (threshold == "otsu"), threshold_by=threshold, checkpoint_by=chosen
        )
        for (chosen, threshold), value in CHOSEN.items()
    ]
    return replace(make_record(method, [], seed=seed, protocol="matrix", **options), matrix=cells)  # type: ignore[arg-type]


def test_a_fall_is_that_of_each_seed_and_spreads_less_than_its_ends() -> None:
    [group] = summarise([matrix(seed=0), matrix(seed=1, lost=0.04)])
    fallen = fall(group.rows[0], "GT-known")
    assert fallen is not None
    assert (fallen.mean, fallen.std) == (pytest.approx(0.32), pytest.approx(0.04 / 2**0.5))
    text = show(matrix_document([matrix(seed=0), matrix(seed=1, lost=0.04)]), "markdown", None)
    assert text is not None
    assert (
        "| sat | 2 | GT-known | 75.0 ± 7.1 | 70.0 ± 7.1 | 65.0 ± 7.1 | 35.0 ± 7.1 | 43.0 ± 4.2 | 32.0 ± 2.8 |" in text
    )
    assert "realistic: pseudo-boxes of val chose both" in text


def test_without_both_ends_there_is_no_fall() -> None:
    record = matrix()
    record.matrix = [cell for cell in record.matrix if cell.threshold_by != "otsu"]
    assert [step.name for step in steps_of([record])] == ["paper†", "reference†", "full", "realistic"]
    assert len(matrix_document([record]).sheets) == 1
    assert len(matrix_document([matrix()]).sheets) == 2


def test_matrices_of_other_settings_are_other_rows_and_a_repeated_seed_counts_once() -> None:
    newer = matrix()
    newer.provenance["created"] = "2026-01-01"
    rows = matrix_document([matrix(), newer, matrix(area=0.3), matrix(area=0.3, seed=1)]).records
    assert {(row["method"], row["variant"], row["n"]) for row in rows} == {("sat", None, 1), ("sat", "area=0.3", 2)}


def test_runs_without_a_matrix_are_left_out() -> None:
    document = matrix_document([matrix(), make_record("cam", [], protocol="full")])
    assert {row["method"] for row in document.records} == {"sat"}
    assert not matrix_document([make_record("cam", [])]).sheets


def test_metrics_that_no_matrix_has_are_refused_and_patterns_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "sat"
    folder.mkdir(parents=True)
    cells = [Cell("PxAP", 0.5), Cell("Top-1 Loc", 0.5, threshold_by="val-boxes"), Cell("GT-known", 0.5)]
    (folder / "record.json").write_text(to_json(replace(matrix(), cells=cells)))

    def heads(*metrics: str) -> list[str]:
        document = build(tmp_path, View(Selection(metrics=metrics), matrix=True))
        return list(dict.fromkeys(head.name for head in document.sheets[0].heads[3:]))

    assert heads() == heads("GT-known") == ["GT-known"]
    assert heads("GT-*", "Top-1*") == ["GT-known", "Top-1 Loc"]
    with pytest.raises(UsageError, match=r"unknown metric 'PxAP' of protocol matrices.*Known: GT-known, Top-1 Loc"):
        heads("PxAP")
