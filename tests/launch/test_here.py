"""Many runs: what fails is marked, what is finished stays, and a quiet terminal gets plain lines."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from engine_fakes import Raises, fake_config
from rich.console import Console

from wsolbench.errors import UsageError
from wsolbench.launch.here import run_all
from wsolbench.runs.engine import Outcome
from wsolbench.system.progress import Reporter, Silent
from wsolbench.types import Prediction


def statuses(outcomes: list[Outcome]) -> list[str]:
    return [outcome.status for outcome in outcomes]


def test_a_method_that_raises_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = [fake_config(tmp_path, name) for name in ("centre", "raises", "tiny")]
    outcomes = run_all(configs, reporter=Silent())
    assert statuses(outcomes) == ["done", "failed", "done"]
    failed = outcomes[1]
    assert failed.reason == "ZeroDivisionError: the map is empty"
    assert failed.record is None
    assert failed.directory is not None
    content = json.loads((failed.directory / "failed.json").read_text())
    assert content["reason"] == failed.reason
    assert "localize" in content["details"]
    assert not (failed.directory / "record.json").exists()

    def mended(self: Raises, images_BCHW: object, labels_B: object = None) -> Prediction:
        import torch

        return Prediction(None, torch.rand(len(images_BCHW), 4, 4))  # type: ignore[arg-type]

    monkeypatch.setattr(Raises, "localize", mended)
    assert statuses(run_all(configs, reporter=Silent())) == ["skipped", "done", "skipped"]
    assert not (failed.directory / "failed.json").exists()


def test_a_wrong_request_stops_before_anything_is_started(tmp_path: Path) -> None:
    configs = [fake_config(tmp_path, "centre"), fake_config(tmp_path, "tyni")]
    with pytest.raises(UsageError, match="unknown method 'tyni'"):
        run_all(configs, reporter=Silent())
    assert not list(tmp_path.rglob("config.yaml"))


def test_output_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        run_all([fake_config(tmp_path / "file", "centre")], reporter=Silent())


def test_a_directory_that_is_in_use_fails_that_run_only(tmp_path: Path) -> None:
    first = run_all([fake_config(tmp_path, "centre")], reporter=Silent())[0]
    assert first.directory is not None
    import fcntl

    with (first.directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        outcomes = run_all([fake_config(tmp_path, "centre"), fake_config(tmp_path, "tiny")], reporter=Silent())
    assert statuses(outcomes) == ["failed", "done"]
    assert "is in use by" in outcomes[0].reason


def test_without_a_terminal_there_are_plain_lines(tmp_path: Path) -> None:
    text = io.StringIO()
    run_all([fake_config(tmp_path, "tiny"), fake_config(tmp_path, "raises")], reporter=Reporter(Console(file=text)))
    lines = text.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0] == "[1/2] tiny on fake-data (-, full, seed 0): running"
    assert lines[1].startswith("[1/2] tiny on fake-data (-, full, seed 0): done in ")
    assert "GT-known@val " in lines[1]
    assert lines[3] == "[2/2] raises on fake-data (-, full, seed 0): failed (ZeroDivisionError: the map is empty)"
    assert "\x1b" not in text.getvalue()


def test_on_a_terminal_bars_show_rate_and_loss(tmp_path: Path) -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120)
    run_all([fake_config(tmp_path, "tiny", steps=400)], reporter=Reporter(console))
    assert "steps/s" in text.getvalue()
    assert "loss " in text.getvalue()
