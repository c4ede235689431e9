from __future__ import annotations

from pathlib import Path

import pytest

from wsolbench.errors import UsageError
from wsolbench.profile.accuracy import draw, panels, scores, speed_label
from wsolbench.profile.rows import Measurement
from wsolbench.profile.work import LOCALIZE, TRAIN

ROOT = Path(__file__).resolve().parents[2]


def line(method: str, batch: int, speed: float, dtype: str = "fp32", status: str = "ok") -> Measurement:
    made = Measurement(method, "badges_vit.s0", LOCALIZE, batch, "64x64", dtype=dtype, status=status)
    return Measurement(**{**vars(made), "images_per_second": speed if status == "ok" else None})


LINES = [
    line("sat", 1, 10),
    line("cam", 1, 20),
    line("sat", 16, 100),
    line("cam", 16, 200),
    line("cam", 16, 999, dtype="bf16"),
    line("sat", 64, 300),
    line("cam", 64, 0, status="out of memory"),
    Measurement("sat", "badges_vit.s0", TRAIN, 16, "64x64", images_per_second=5.0),
]
HEADER = "dataset,backbone,protocol,method,variant,GT-known@val mean\n"


def leaderboard(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "leaderboard.csv").write_text(text)
    return folder


def test_methods_are_joined_at_the_largest_batch_size_all_ran_at(tmp_path: Path) -> None:
    rows = "badges,badges_vit.s0,full,sat,,0.63\nbadges,badges_vit.s0,full,cam,area=2,0.33\nbadges,-,full,center-box,,0.2\n"
    other = "badges,badges_vit.s0,1shot,sat,,0.1\ncub,badges_vit.s0,full,sat,,0.9\nbadges,badges_cnn,full,cam,,0.1\n"
    found = scores(leaderboard(tmp_path, HEADER + rows + other), "badges")
    (panel,) = panels(LINES, found)
    assert panel.title == "badges_vit.s0, full"
    assert panel.points == {"sat": (100, pytest.approx(63)), "cam (area=2)": (200, pytest.approx(33))}
    assert speed_label(LINES) == "images/s, forward and map\nbatch 16, fp32"


def test_the_committed_leaderboard_can_be_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = leaderboard(tmp_path / "results", (ROOT / "results" / "leaderboard.csv").read_text(encoding="utf-8"))
    path = draw(LINES, folder, "badges", tmp_path / "p.csv")
    assert path == tmp_path / "p-accuracy.png"
    assert path.stat().st_size > 5000
    assert str(path) in capsys.readouterr().out


def test_runs_come_before_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wsolbench.leaderboard import groups as board

    leaderboard(tmp_path, HEADER + "badges,badges_vit.s0,full,sat,,0.63\n")
    (tmp_path / "runs").mkdir()
    assert [score.value for score in scores(tmp_path, "badges")] == [0.63]  # there is no run yet
    column = board.Column("GT-known@val", "GT-known", False)
    row = board.Row("sat", "", "badges_vit.s0", (0,), False, False, {column: board.spread_of([0.5])}, {}, ())
    group = board.Group("badges", "", "badges_vit.s0", "full", (column,), (row,))
    monkeypatch.setattr(board, "summarise", lambda records: [group])
    assert [score.value for score in scores(tmp_path, "badges")] == [0.5]


def test_nothing_to_join_is_told_to_those_who_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert draw(LINES, leaderboard(tmp_path, HEADER), "badges", tmp_path / "p.csv") is None
    assert "no method of badges's leaderboard under protocol full was measured" in capsys.readouterr().err
    assert draw(LINES, tmp_path, None, tmp_path / "p.csv") is None
    assert "not the data set's" in capsys.readouterr().err
    assert draw(LINES, None, None, tmp_path / "p.csv") is None
    assert capsys.readouterr().err == ""


def test_a_file_that_is_no_leaderboard_is_one_sentence(tmp_path: Path) -> None:
    leaderboard(tmp_path, "dataset,backbone,protocol,method,variant\nbadges,b,full,sat,\n")
    with pytest.raises(UsageError, match="is no leaderboard with a column 'GT-known@val mean'"):
        scores(tmp_path, "badges")
