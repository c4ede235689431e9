"""Runs killed or stopped at random moments, or started twice: the same command comes to the same files, and to no others.

`WSOLBENCH_KILLS=200 pytest tests/runs/test_faults.py` kills more often, `WSOLBENCH_KILLS_SEED=1` at other moments; `-s` shows when.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from run_files import assert_same_files

ROOT = Path(__file__).parents[2]
PHASES = {"opening", "training", "selection", "evaluation", "writing"}
KILLS = int(os.environ.get("WSOLBENCH_KILLS", "24"))
STOPS = max(10, KILLS // 4)
SEED = int(os.environ.get("WSOLBENCH_KILLS_SEED", "0"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600 + 30 * KILLS)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def told(base: Path) -> dict[str, Any]:
    paths = [str(path) for path in (ROOT, ROOT / "methods", ROOT / "datasets", ROOT / "tests/support")]
    child = subprocess.run(
        [sys.executable, str(ROOT / "tests/support/fault_child.py"), str(base), *map(str, (KILLS, STOPS, SEED))],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    assert child.returncode == 0, child.stderr[-3000:]
    assert "Traceback" not in child.stderr
    told: dict[str, Any] = json.loads(child.stdout)
    return told


def test_a_run_that_was_killed_again_and_again_comes_to_the_same_files(base: Path, told: dict[str, Any]) -> None:
    """Training, selection among checkpoints, search, a shared classifier, evaluation, writing: every file is compared."""
    phases, folders = told["killed"]["phases"], told["killed"]["folders"]
    print(f"{sum(phases.values())} kills in {folders} runs: {phases}")
    assert sum(phases.values()) >= KILLS
    assert set(phases) == PHASES
    for number in range(1, folders + 1):
        assert_same_files(base / f"killed-{number}", base / "whole")


def test_a_run_that_was_told_to_stop_ends_cleanly_and_goes_on(base: Path, told: dict[str, Any]) -> None:
    """Wherever it is: the exit status names the signal (the child sees to that) and nothing temporary is left."""
    phases, codes, folders = (told["stopped"][key] for key in ("phases", "codes", "folders"))
    print(f"{sum(phases.values())} stops in {folders} runs: {phases}, by exit status: {codes}")
    assert sum(phases.values()) >= STOPS
    assert set(codes) == {"129", "130", "138", "143"}
    assert set(phases) == PHASES
    for number in range(1, folders + 1):
        assert_same_files(base / f"stopped-{number}", base / "whole")


def test_two_processes_with_one_command_share_the_work(base: Path, told: dict[str, Any]) -> None:
    """A run that the other one is at fails with a sentence that names it; the rest of the list goes on."""
    print(told["twice"])
    assert set(told["twice"]["codes"]) <= {0, 1}
    assert bool(told["twice"]["reasons"]) == (1 in told["twice"]["codes"])
    for reason in told["twice"]["reasons"]:
        assert "is in use by process " in reason
        assert " since 20" in reason
    assert told["again"] == 0
    assert_same_files(base / "twice", base / "whole")
