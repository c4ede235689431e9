"""Run directories: whose they are, one process at a time, whole files."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from enum import Enum
from pathlib import Path

import pytest
import torch
from engine_fakes import fake_config

from wsolbench.errors import UsageError, WsolbenchError, reason
from wsolbench.launch.here import run_all
from wsolbench.runs.directory import OURS, RunDirectory, run_path
from wsolbench.system.environment import environment
from wsolbench.system.files import write_json, write_text
from wsolbench.system.hashing import digest, plain
from wsolbench.system.progress import Silent


def directory(tmp_path: Path, hash: str = "a" * 64) -> RunDirectory:
    return RunDirectory(tmp_path / "run", hash)


def test_path_holds_what_a_reader_looks_for() -> None:
    path = run_path("results", "badges", "gradcam-pkg:EigenCAM", "-", "5shot", 3, "0123456789abcdef")
    assert path == Path("results/runs/badges/gradcam-pkg-EigenCAM/-/5shot/s3-01234567")


def test_plain_holds_enums_by_value() -> None:
    class Colour(Enum):
        red = "r"

    assert plain({"a": (Colour.red, Path("x"), None, 1.5)}) == {"a": ["r", "x", None, 1.5]}
    assert digest({"a": 1}) != digest({"a": 2})


def test_two_processes_cannot_be_in_one_directory(tmp_path: Path) -> None:
    first, second = directory(tmp_path), directory(tmp_path)
    with (
        first.locked(),
        pytest.raises(WsolbenchError, match=f"in use by process {os.getpid()} on "),
        second.locked(),
    ):
        pass
    with second.locked():
        pass
    assert not list((tmp_path / "run").iterdir())


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    code = (
        "import fcntl, os, sys; handle = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT); "
        "fcntl.flock(handle, fcntl.LOCK_EX); os.write(handle, b'process 1'); os.kill(os.getpid(), 9)"
    )
    run = directory(tmp_path)
    run.path.mkdir()
    assert subprocess.run([sys.executable, "-c", code, str(run / ".lock")], check=False).returncode == -9
    assert (run / ".lock").is_file()
    with run.locked():
        run.begin("seed: 0\n", {})


def test_a_lock_on_a_removed_file_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = directory(tmp_path), directory(tmp_path)
    first.path.mkdir()
    whole, calls = fcntl.flock, []

    def flock(handle: int, how: int) -> None:
        if not calls:  # the former owner leaves after this process opened the file and before it locks it
            (first / ".lock").unlink()
        calls.append(how)
        whole(handle, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with first.locked():
        assert len(calls) == 2
        with pytest.raises(WsolbenchError, match="in use by"), second.locked():
            pass


def test_a_half_written_directory_of_the_same_run_is_taken_up(tmp_path: Path) -> None:
    run = directory(tmp_path)
    with run.locked():
        run.begin("seed: 0\n", {})
        write_text(run / "train.jsonl", "{}\n")
    with run.locked():
        run.begin("seed: 0\n", {})
    assert (run / "train.jsonl").is_file()


def test_a_directory_of_another_hash_is_refused(tmp_path: Path) -> None:
    with directory(tmp_path).locked():
        directory(tmp_path).begin("seed: 0\n", {})
    with pytest.raises(WsolbenchError, match="belongs to another run"):
        directory(tmp_path, "b" * 64).begin("seed: 0\n", {})


def test_a_foreign_directory_is_refused_and_left_alone(tmp_path: Path) -> None:
    run = directory(tmp_path)
    run.path.mkdir()
    (run / "thesis.tex").write_text("years of work")
    with run.locked(), pytest.raises(WsolbenchError, match=r"holds 'thesis.tex' but no config.yaml"):
        run.begin("seed: 0\n", {})
    run.clear()
    assert [path.name for path in run.path.iterdir()] == ["thesis.tex"]


def test_clear_removes_the_mark_of_being_done_first() -> None:
    assert OURS[0] == "record.json"


def test_finish_leaves_no_trace_of_being_unfinished(tmp_path: Path) -> None:
    run = directory(tmp_path)
    with run.locked():
        run.begin("seed: 0\n", {})
        run.fail(ValueError("no"), "")
        run.partial.mkdir()
        write_text(run / "state.pt", "")
        assert not run.is_done()
        run.finish("{}")
        assert run.is_done()
    assert sorted(path.name for path in run.path.iterdir()) == ["config.yaml", "env.json", "record.json"]


def test_a_run_that_was_killed_after_it_was_done_is_tidied_by_whoever_finds_it_done(tmp_path: Path) -> None:
    """Between the mark of being done and the removal of what only an unfinished run needs."""
    (outcome,) = run_all([fake_config(tmp_path, "centre")], reporter=Silent())
    assert outcome.directory is not None
    whole = sorted(path.name for path in outcome.directory.iterdir())
    for name in ("state.pt", "state.pt.tmp", "levels.npz.tmp", "best-x.safetensors.tmp", "failed.json", ".lock"):
        (outcome.directory / name).write_text("")
    (outcome.directory / "partial").mkdir()
    (outcome.directory / "notes.tmp").write_text("not ours")
    (outcome,) = run_all([fake_config(tmp_path, "centre")], reporter=Silent())
    assert outcome.status == "skipped"
    assert outcome.directory is not None
    assert sorted(path.name for path in outcome.directory.iterdir()) == sorted([*whole, "notes.tmp"])


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_output_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"), directory(tmp_path / "file").locked():
        pass


def test_reasons_are_one_line() -> None:
    assert reason(WsolbenchError("no such\nthing")) == "no such thing"
    assert reason(KeyError("a")) == "KeyError: 'a'"
    assert reason(MemoryError()) == "MemoryError"


def test_environment_names_versions_and_commit() -> None:
    about = environment(torch.device("cpu"))
    assert about["device"] == "cpu"
    assert {"python", "torch", "numpy"} <= about["versions"].keys()
    assert about["commit"] is None or len(about["commit"]) == 40
