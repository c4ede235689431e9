"""kill -9 at random moments over whole runs: the same command goes on to the same files, and leaves no others behind.

`WSOLBENCH_KILLS=200 pytest tests/test_kills.py` kills more often; `WSOLBENCH_KILLS_SEED=1` at other moments.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from wsolbench.record import comparable, read_record

ROOT = Path(__file__).parent.parent
KILLS = int(os.environ.get("WSOLBENCH_KILLS", "24"))
SEED = int(os.environ.get("WSOLBENCH_KILLS_SEED", "0"))
TIMED = {"images_per_second", "seconds", "created"}  # keys whose values are times


@pytest.mark.slow
@pytest.mark.timeout(60 + 30 * KILLS)
def test_a_run_that_was_killed_again_and_again_comes_to_the_same_files(tmp_path: Path) -> None:
    """Training, selection among checkpoints, search, shared classifier, evaluation, writing: every file is compared."""
    paths = [str(path) for path in (ROOT, ROOT / "methods", ROOT / "datasets", ROOT / "tests/support")]
    child = subprocess.run(
        [sys.executable, str(ROOT / "tests/support/kill_child.py"), str(tmp_path), str(KILLS), str(SEED)],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    assert child.returncode == 0, child.stderr[-2000:]
    told = json.loads(child.stdout)
    print(f"{sum(told['kills'].values())} kills in {told['folders']} runs: {told['kills']}")  # pytest -s shows it
    assert sum(told["kills"].values()) >= KILLS
    assert set(told["kills"]) == {"opening", "training", "selection", "evaluation", "writing"}

    whole = contents(tmp_path / "whole")
    assert any(name.endswith("record.json") for name in whole)
    for number in range(1, told["folders"] + 1):
        killed = contents(tmp_path / f"killed-{number}")
        assert killed.keys() == whole.keys()  # nothing is missing, and no *.tmp, .lock or state.pt is left
        for name, content in whole.items():
            assert killed[name] == content, f"{name} of killed-{number}"


def contents(out: Path) -> dict[str, Any]:
    """What a folder of results holds, by path: bytes, and of text what is no time."""
    return {str(path.relative_to(out)): content(path, out) for path in sorted(out.rglob("*")) if path.is_file()}


def content(path: Path, out: Path) -> Any:
    if path.name == "record.json":
        return comparable(read_record(path))
    if path.name == "config.yaml":
        return path.read_text().replace(str(out), "OUT")
    if path.suffix == ".json":
        return without_times(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return [without_times(json.loads(line)) for line in path.read_text().splitlines()]
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def without_times(value: Any) -> Any:
    return {key: item for key, item in value.items() if key not in TIMED} if isinstance(value, dict) else value
