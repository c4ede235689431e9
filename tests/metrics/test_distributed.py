"""Two processes on a CPU, however the images are shared, compute to the last bit what one process computes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from metric_cases import COUNT, MAKERS, computed, inputs, same
from metric_child import ways

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def by_rank(tmp_path_factory):
    """What each of the two processes computed; one pair for all metrics, since starting it is what takes time."""
    path = tmp_path_factory.mktemp("gloo") / "case"
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests/support'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "tests/support/metric_child.py")]
    running = [subprocess.Popen([*command, str(rank), str(path)], env=env) for rank in range(2)]
    try:
        assert [one.wait(timeout=240) for one in running] == [0, 0]
    finally:
        for one in running:
            one.kill()
    return [dict(torch.load(f"{path}.{rank}", weights_only=True)) for rank in range(2)]


@pytest.mark.parametrize("name", MAKERS)
def test_two_processes_give_the_number_of_one(by_rank, name):
    metric, everything = MAKERS[name](), inputs()
    for repeat in range(2):  # all images once; then, computed and still accumulating, once more
        want = computed(metric, everything, [range(COUNT)])
        for shards in ways(name):
            for rank in range(2):
                assert same(by_rank[rank][name, shards][repeat], want), f"{shards}, process {rank}, time {repeat + 1}"
