"""The batch mean over several processes, with real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from wsolbench_methods._distributed import global_mean


def test_global_mean_alone_is_the_mean() -> None:
    values = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    mean = global_mean(values)
    mean.backward()
    assert mean.item() == 3.0
    assert values.grad is not None
    assert values.grad.tolist() == pytest.approx([1 / 3] * 3)


GLOBAL_MEAN_SCRIPT = """
import sys, torch, torch.distributed as dist
from wsolbench_methods._distributed import global_mean
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
shard = [torch.tensor([0.1, 0.2, 0.3, 0.9]), torch.tensor([0.8, 0.7])][rank]
scale = torch.tensor(1.0, requires_grad=True)
loss = (global_mean(scale * shard) - 0.3).abs()
loss.backward()
dist.all_reduce(scale.grad)  # what DistributedDataParallel does: the average over processes
print(loss.item(), scale.grad.item() / 2)
dist.destroy_process_group()
"""


def test_global_mean_over_two_processes_of_unequal_shards(tmp_path: Path) -> None:
    """Value and averaged gradient equal one process's on all the elements.

    Local means are 0.375 and 0.75: |mean - 0.3| of each alone would give another gradient.
    """
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", GLOBAL_MEAN_SCRIPT, str(rank), str(tmp_path / "rendezvous")],
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1", "PATH": ""},
            text=True,
        )
        for rank in (0, 1)
    ]
    for process in processes:
        out, _ = process.communicate(timeout=120)
        assert [float(x) for x in out.split()] == pytest.approx([0.2, 0.5])
