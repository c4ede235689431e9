"""kill -9 and Ctrl-C at any moment, then the same command again: the record of a run that was never interrupted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fakes import fake_config

from wsolbench.launch.here import run_all
from wsolbench.record import comparable, read_record
from wsolbench.runs.opening import Session, open_job
from wsolbench.system.progress import Silent

ROOT = Path(__file__).parents[2]
KILLED, INTERRUPTED = -9, 130
EVERY_BATCH: dict[str, Any] = {"save_every": 0.0}
RARELY: dict[str, Any] = {"save_every": 30.0}

# name: method, environment, save state after every step, changes, exit code. 9 steps; 3 batches of val, 3 of test
CASES: dict[str, tuple[str, dict[str, str], bool, dict[str, Any], int]] = {
    "train, first step": ("tiny", {"KILL_AT_LOSS": "0"}, True, RARELY, KILLED),
    "train, inside a pass": ("tiny", {"KILL_AT_LOSS": "4"}, True, RARELY, KILLED),
    "train, between passes": ("tiny", {"KILL_AT_LOSS": "6"}, True, RARELY, KILLED),
    "train, last step, no state": ("tiny", {"KILL_AT_LOSS": "8"}, False, RARELY, KILLED),
    "evaluate, first batch": ("tiny", {"KILL_AT_BATCH": "0"}, False, EVERY_BATCH, KILLED),
    "evaluate, inside val": ("tiny", {"KILL_AT_BATCH": "2"}, False, EVERY_BATCH, KILLED),
    "evaluate, inside test": ("tiny", {"KILL_AT_BATCH": "5"}, False, EVERY_BATCH, KILLED),
    "evaluate, inside test, no part": ("tiny", {"KILL_AT_BATCH": "5"}, False, RARELY, KILLED),
    "Ctrl-C in training": ("interrupted", {"INTERRUPT_AT_LOSS": "4"}, False, RARELY, INTERRUPTED),
    "Ctrl-C in evaluation": ("interrupted", {"INTERRUPT_AT_BATCH": "4"}, False, RARELY, INTERRUPTED),
}


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, int]]:
    """Carry out every case up to its death: name -> (output folder, exit code)."""
    base = tmp_path_factory.mktemp("interrupted")
    folders = {name: base / str(number) for number, name in enumerate(CASES)}
    cases = [
        {"env": env, "eager": eager, "config": [str(folders[name]), method, changes]}
        for name, (method, env, eager, changes, _) in CASES.items()
    ]
    (base / "cases.json").write_text(json.dumps(cases))
    paths = [str(path) for path in (ROOT, ROOT / "methods", ROOT / "datasets", ROOT / "tests/support")]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/support/engine_child.py"), str(base / "cases.json")],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    return {name: (folders[name], code) for name, code in zip(CASES, json.loads(done.stdout), strict=True)}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same runs without interruption: method -> run directory."""
    out = tmp_path_factory.mktemp("whole")
    outcomes = run_all([fake_config(out, name) for name in ("tiny", "interrupted")], reporter=Silent())
    return {outcome.config.method["name"]: Path(str(outcome.directory)) for outcome in outcomes}


@pytest.mark.parametrize("name", CASES)
def test_running_again_gives_the_record_of_an_uninterrupted_run(
    name: str, interrupted: dict[str, tuple[Path, int]], uninterrupted: dict[str, Path]
) -> None:
    method, env, eager, changes, expected = CASES[name]
    out, code = interrupted[name]
    assert code == expected
    config = fake_config(out, method, **changes)
    folder = open_job(config, Session()).directory.path
    assert not (folder / "record.json").exists()
    steps, parts = _left_behind(folder)
    if "KILL_AT_LOSS" in env and eager:
        assert steps == int(env["KILL_AT_LOSS"])
    elif "INTERRUPT_AT_LOSS" in env:
        assert steps == int(env["INTERRUPT_AT_LOSS"]) + 1  # the step was finished
    if "KILL_AT_BATCH" in env and changes is EVERY_BATCH:
        assert parts == int(env["KILL_AT_BATCH"])
    elif "INTERRUPT_AT_BATCH" in env:
        assert parts == 2  # val, and what was finished of test

    outcome = run_all([config], reporter=Silent())[0]
    assert outcome.status == "done"
    whole = uninterrupted[method]
    ours, theirs = comparable(read_record(folder / "record.json")), comparable(read_record(whole / "record.json"))
    for record in (ours, theirs):
        record["config"]["evaluate"].pop("save_every")
    assert ours == theirs
    for file in ("levels.npz", "images.csv.gz", "last.safetensors"):
        assert (folder / file).read_bytes() == (whole / file).read_bytes()
    assert _lines(folder) == _lines(whole)
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}


def _left_behind(folder: Path) -> tuple[int, int]:
    state = folder / "state.pt"
    steps = int(torch.load(state, weights_only=True)["step"]) if state.is_file() else 0
    return steps, len(list((folder / "partial").glob("*.levels.npz")))


def _lines(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if "second" not in key} for line in lines]
