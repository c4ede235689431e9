"""Runs in several processes: what they leave is what one process leaves, whatever becomes of a worker."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from engine_fakes import fake_config
from rich.console import Console

from wsolbench.config.schema import RunConfig
from wsolbench.errors import UsageError
from wsolbench.launch.here import run_all
from wsolbench.launch.options import Joblib
from wsolbench.launch.plan import make_plan
from wsolbench.launch.start import run_by
from wsolbench.launch.with_joblib import _devices, _Places, _visible
from wsolbench.record import comparable
from wsolbench.runs.engine import Outcome
from wsolbench.runs.opening import Session
from wsolbench.system.progress import Reporter, Silent

ROOT = Path(__file__).parents[2]


def side_by_side(configs: list[RunConfig], **options: bool) -> tuple[list[Outcome], list[str]]:
    """Outcomes of two workers, and what was said."""
    text = io.StringIO()
    outcomes = run_by(Joblib(jobs=2), configs, reporter=Reporter(Console(file=text)), **options)
    return outcomes, text.getvalue().splitlines()


@pytest.mark.slow
def test_two_processes_leave_what_one_leaves(tmp_path: Path) -> None:
    names = ["tiny", "shared-a", "raises", "shared-b", "centre"]
    whole = run_all([fake_config(tmp_path / "here", name) for name in names], reporter=Silent())
    configs = [fake_config(tmp_path / "joblib", name) for name in names]
    assert [outcome.status for outcome in run_all(configs[4:], reporter=Silent())] == ["done"]
    outcomes, lines = side_by_side(configs)

    assert [outcome.status for outcome in outcomes] == ["done", "done", "failed", "done", "skipped"]
    assert [outcome.config.method["name"] for outcome in outcomes] == names
    for ours, theirs in zip(outcomes, whole, strict=True):
        assert (ours.reason == theirs.reason) or ours.status == "skipped"
        if ours.record is None or theirs.record is None:
            continue
        assert comparable(ours.record) == comparable(theirs.record)
        assert (Path(str(ours.directory)) / "levels.npz").read_bytes() == (
            Path(str(theirs.directory)) / "levels.npz"
        ).read_bytes()
    assert sum("launch=joblib: 2 processes" in line for line in lines) == 1
    for number, name in enumerate(names[:4], 1):
        said = [line.partition(": ")[2] for line in lines if line.startswith(f"[{number}/5] {name} on fake-data")]
        assert len(said) == 2
        assert said[0] == "running"
        assert said[1].startswith("failed (Zero" if name == "raises" else "done in ")
    assert not list((tmp_path / "joblib").rglob(".lock"))


@pytest.mark.slow
def test_a_worker_that_is_killed_takes_only_its_run_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = [fake_config(tmp_path, "tiny"), fake_config(tmp_path, "centre"), fake_config(tmp_path, "centre", seed=1)]
    with monkeypatch.context() as patch:
        patch.setenv("KILL_AT_LOSS", "4")
        outcomes, lines = side_by_side(configs)
    assert [outcome.status for outcome in outcomes] == ["failed", "done", "done"]
    assert (
        outcomes[0].reason
        == "its process was killed (exit code SIGKILL(-9)); what was saved of it is taken up next time"
    )
    assert any(line == f"[1/3] tiny on fake-data (-, full, seed 0): failed ({outcomes[0].reason})" for line in lines)
    assert [outcome.status for outcome in run_all(configs, reporter=Silent())] == ["done", "skipped", "skipped"]


@pytest.mark.slow
def test_ctrl_c_saves_every_run_and_says_how_to_go_on(tmp_path: Path) -> None:
    """As a terminal does it: to the whole process group."""
    script = (
        "import sys; from pathlib import Path; from engine_fakes import fake_config; "
        "from wsolbench.launch import Joblib, run_by\n"
        "configs = [fake_config(Path(sys.argv[1]), 'tiny', seed=seed, steps=100000) for seed in (0, 1, 2)]\n"
        "try: run_by(Joblib(jobs=2), configs)\n"
        "except KeyboardInterrupt as error: sys.exit(error.status)"  # which says what ended it
    )
    paths = [str(path) for path in (ROOT, ROOT / "methods", ROOT / "datasets", ROOT / "tests/support")]
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while len(list(tmp_path.rglob("train.jsonl"))) < 2:  # both train
        assert child.poll() is None, child.communicate()
        time.sleep(0.1)
    os.killpg(child.pid, signal.SIGINT)
    rest = child.communicate(timeout=60)[1]
    assert child.returncode == 130, rest
    assert rest.count("interrupted, its state is saved in ") == 2
    states = list(tmp_path.rglob("state.pt"))
    assert len(states) == 2  # the third was not begun
    assert all(torch.load(state, weights_only=True)["step"] > 0 for state in states)
    assert not list(tmp_path.rglob(".lock"))


def test_runs_that_share_a_training_stay_together(tmp_path: Path) -> None:
    names = ["tiny", "shared-a", "shared-b", "centre"]
    configs = [fake_config(tmp_path, name, seed=seed) for seed in (0, 1) for name in names]
    searched = [fake_config(tmp_path, "tiny", checkpoint=by) for by in ("val-boxes", "class-accuracy")]
    plan = make_plan([*configs, *searched], Session(), rerun=False)
    assert plan.groups == [[1, 2], [5, 6], [8, 9], [0], [3], [4], [7]]


def test_devices_are_those_that_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = [fake_config(tmp_path, device="auto")]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert _devices(Joblib(), configs) == [0, 1, 2, 3]
    assert _devices(Joblib(devices=[2, 0]), configs) == [2, 0]
    assert _devices(Joblib(), [fake_config(tmp_path)]) == []
    with pytest.raises(UsageError, match="torch finds cuda:0 to cuda:3 here"):
        _devices(Joblib(devices=[4]), configs)
    with pytest.raises(UsageError, match="--device cpu contradict"):
        _devices(Joblib(devices=[0]), [fake_config(tmp_path)])


def test_workers_take_the_devices_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = _Places(tmp_path, 3, (2, 0))
    assert [places.device(place) for place in range(3)] == [2, 0, 2]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert _visible(2) == "2"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-8a, 7")  # torch numbers what it sees: cuda:1 is GPU-8a
    assert [_visible(device) for device in range(3)] == ["4", "GPU-8a", "7"]
