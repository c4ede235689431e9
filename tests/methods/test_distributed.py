"""The batch mean over several processes, with real processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sat_child
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


@pytest.fixture(scope="module")
def by_rank(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes has after a step of SAT on its half of the batch."""
    path = tmp_path_factory.mktemp("gloo") / "sat"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(sat_child.__file__))]
    running = [subprocess.Popen([*command, str(rank), str(path)], env=env) for rank in (0, 1)]
    try:
        assert [one.wait(timeout=240) for one in running] == [0, 0]
    finally:
        for one in running:
            one.kill()
    return [torch.load(f"{path}.{rank}", weights_only=True) for rank in (0, 1)]


def test_sat_in_two_processes_learns_what_one_learns_from_the_whole_batch(by_rank: list[dict[str, Any]]) -> None:
    """Loss and every gradient. The halves lie on either side of lambda, where the sum of two |.| has no gradient."""
    method = sat_child.sat().train()
    halves = [method.loss(sat_child.batch(images))["area"] for images in sat_child.SHARES]
    whole = method.loss(sat_child.batch([0, 1, 2, 3]))
    assert torch.stack(halves).mean() > 2 * whole["area"]  # else the area term would be no test
    torch.stack(list(whole.values())).sum().backward()
    for name, want in whole.items():
        got = [each["losses"][name] for each in by_rank]
        if name == "area":
            assert got[0] == got[1]
        torch.testing.assert_close(torch.stack(got).mean(), want.detach(), rtol=1e-9, atol=0)
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None
        for each in by_rank:
            error = (each["gradients"][name] - parameter.grad).norm()
            assert error <= 1e-9 * parameter.grad.norm() + 1e-12, name


RECOMPUTE_SCRIPT = """
import sys, torch
import wsolbench
from wsolbench import dist
from wsolbench.data_parallel import Replica, statistics_of_all
from wsolbench.types import Batch
images, labels = torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1])
found = []
with dist.joined():
    rows = [slice(0, 2), slice(2, 5)][dist.rank()]
    for recomputed in (False, True):
        torch.manual_seed(0)
        method = wsolbench.create_method("cam", num_classes=3, backbone="resnet10t").train()
        if recomputed:
            method.checkpoint_gradients()
        replica = Replica(method, torch.device("cpu"))
        with statistics_of_all(method):
            losses = replica(Batch(list("abcde")[rows], images[rows], labels[rows]))
        losses["cls"].backward()
        found.append([losses["cls"].detach(), *[p.grad for p in method.parameters()], *method.buffers()])
for a, b in zip(*found, strict=True):
    assert torch.equal(a, b), (a, b)
print(len(found[0]))
"""


def test_batch_norms_of_two_processes_compute_again_what_they_computed(tmp_path: Path) -> None:
    """Statistics of both processes' images, in a backward pass that knows nothing of them."""
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", **meeting}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", RECOMPUTE_SCRIPT], env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        )
        for rank in (0, 1)
    ]
    try:
        assert [one.wait(timeout=240) for one in running] == [0, 0]
    finally:
        for one in running:
            one.kill()


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
