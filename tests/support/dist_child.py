"""Forks the processes of several cases, so that torch is imported once: `dist_child.py CASES.json`.

Each case: {"folder": where each process leaves what it printed, and a copy of the output folder is left; "processes": how
many; "env": {...}; "only": {rank: {...}}; "eager": save the state after every step; "act": name of a function below;
"arguments": [output folder, ...]}. Prints the exit codes of every case's processes as JSON.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from engine_fakes import Preempted, Tiny, fake_config
from torch import Tensor

import wsolbench
import wsolbench.fit
from wsolbench import dist
from wsolbench.config import SearchConfig, TrainConfig
from wsolbench.data_parallel import Replica, statistics_of_all
from wsolbench.fit import fit
from wsolbench.helpers import together
from wsolbench.launch import run_all
from wsolbench.metrics import label_rank  # noqa: F401 (imported here, once, instead of in every child)
from wsolbench.onepass import compile_now
from wsolbench.progress import Silent
from wsolbench.protocol import TrainingPlan
from wsolbench.registry import register_method
from wsolbench.types import Batch


class Certain(Tiny):
    """Batch norm, but nothing random: the same losses in any number of processes. Fails where the environment says so."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        self.fail("FAIL_AT_LOSS", self.losses)
        self.losses += 1
        features_BChw = self.net.features(batch.images_BCHW)
        return {"cls": F.cross_entropy(self.net.head(features_BChw.mean((2, 3))), batch.labels_B)}

    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Any:
        self.fail("FAIL_AT_BATCH", self.batches)
        return super().localize(images_BCHW, labels_B)

    def fail(self, name: str, count: int) -> None:
        if os.environ.get(name) == str(count):
            raise ZeroDivisionError("only here")


class Steady(Certain):
    """Without batch norm: nothing in a forward pass waits for other processes."""

    def __init__(self, config: Any, **options: Any) -> None:
        super().__init__(config, **options)
        self.net.norm = torch.nn.Identity()  # type: ignore[assignment]


class CertainPreempted(Preempted, Certain):
    """The same losses in any number of processes, and in those that are sent away in between."""


register_method("certain")(Certain)
register_method("certain-preempted")(CertainPreempted)
register_method("steady")(Steady)


# --- what a process does ---------------------------------------------------------------------------------------------


def runs(out: str, methods: list[str], changes: dict[str, Any]) -> int:
    """The runs of a list, as the command line carries them out."""

    trials, space = changes.pop("trials", None), changes.pop("space", None)

    def lead() -> int:
        configs = [fake_config(Path(out), method, **changes) for method in methods]
        outcomes = run_all([replace(config, search=SearchConfig(trials, space=space)) for config in configs])
        return int(any(outcome.status == "failed" for outcome in outcomes))

    try:
        return together(lead) if dist.processes() > 1 else lead()
    except KeyboardInterrupt:
        return 130


def evaluations(out: str, methods: list[str], changes: dict[str, Any]) -> int:
    """Finished runs once more from their weights, as if nothing had been evaluated yet."""
    for record in Path(out).glob("runs/*/*/*/*/*/record.json"):
        record.unlink()
    return runs(out, methods, changes)


def widened(method: torch.nn.Module, inputs: tuple[Batch]) -> tuple[Batch]:
    """The batch that a method is given, with images in float64."""
    return (replace(inputs[0], images_BCHW=inputs[0].images_BCHW.double()),)


def losses(out: str, methods: list[list[str]], steps: int, batch_size: int, accumulate: int = 1) -> int:
    """Train real methods on badges for some steps; `train.jsonl` gets a line for each.

    In float64: AdamW makes whole steps of gradients that are next to nothing, and there float32 has another opinion in shares.
    """

    def train() -> int:
        for method, backbone in methods:
            torch.manual_seed(0)
            options = {"drop_path": 0.0} if method in ("sat", "tscam") else {}
            made = wsolbench.create_method(
                method, num_classes=10, backbone=backbone, pretrained=True, **options
            ).double()
            made.register_forward_pre_hook(widened)
            folder = Path(out) / f"{method}-{backbone}"
            folder.mkdir(parents=True, exist_ok=True)
            fit(
                made,
                wsolbench.create_dataset("badges").split("train"),
                range(
                    batch_size
                ),  # the same images at every step, so the loss falls; in another order, so shares differ
                TrainingPlan(steps, steps_per_pass=1, steps_per_epoch=1),
                TrainConfig(batch_size=batch_size, lr=3e-4, accumulate=accumulate),
                seed=0,
                device=torch.device("cpu"),
                folder=folder,
                reporter=Silent(),
            )
        return 0

    if dist.processes() == 1:
        return train()
    with dist.joined():
        return train()


def gradients(out: str) -> int:
    """Of a network with batch norm on unequal shares of a batch; and those of one process on the whole."""
    generator = torch.Generator().manual_seed(0)
    images_BCHW = torch.randn(7, 3, 16, 16, generator=generator) + torch.arange(7.0)[:, None, None, None]
    labels_B = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    whole = Batch([str(i) for i in range(7)], images_BCHW, labels_B)
    torch.manual_seed(0)
    alone, shared = Certain(Certain.Config(), num_classes=3, backbone=None), None
    shared = Certain(Certain.Config(), num_classes=3, backbone=None)
    shared.load_state_dict(alone.state_dict())
    alone.train().loss(whole)["cls"].backward()
    with dist.joined():
        rows = [slice(0, 2), slice(2, 7)][dist.rank()]
        share = Batch(whole.ids[rows], images_BCHW[rows], labels_B[rows])
        replica = Replica(shared.train(), torch.device("cpu"))
        with statistics_of_all(shared):
            loss = replica(share)["cls"]
        (loss * len(share.ids) * 2 / 7).backward()
    found: list[Tensor] = [each.grad for each in shared.parameters() if each.grad is not None]
    wanted: list[Tensor] = [each.grad for each in alone.parameters() if each.grad is not None]
    torch.save([*found, *shared.buffers()], f"{out}.found.{os.environ['RANK']}")
    torch.save([*wanted, *alone.buffers()], f"{out}.wanted")
    return 0


ACTS: dict[str, Callable[..., int]] = {
    "runs": runs,
    "evaluations": evaluations,
    "losses": losses,
    "gradients": gradients,
}


# --- processes -------------------------------------------------------------------------------------------------------


def child(case: dict[str, Any], rank: int) -> int:
    os.environ.update(case.get("env", {}) | case.get("only", {}).get(str(rank), {}))
    for number, name in ((1, "out"), (2, "err")):
        handle = os.open(f"{case['folder']}/{rank}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
    dist.PATIENCE = timedelta(seconds=5)
    if case.get("eager"):
        wsolbench.fit.SAVE_SECONDS, wsolbench.fit.SAVE_SHARE = 0.0, math.inf
    return ACTS[case["act"]](*case["arguments"])


def start(case: dict[str, Any]) -> list[int]:
    Path(case["folder"]).mkdir(parents=True, exist_ok=True)
    count = case["processes"]
    if count > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    pids = []
    for rank in range(count):
        pids.append(os.fork())
        if pids[-1] == 0:
            code = 70
            try:
                if count > 1:
                    os.environ.update(place | {"WORLD_SIZE": str(count), "RANK": str(rank), "LOCAL_RANK": str(rank)})
                code = dist.leave(child(case, rank))
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    if case["act"] != "gradients":
        shutil.copytree(case["arguments"][0], f"{case['folder']}/left", dirs_exist_ok=True)  # others may go on in it
    return codes


if __name__ == "__main__":
    compile_now()  # here, once, instead of in every child
    print(json.dumps([start(case) for case in json.loads(Path(sys.argv[1]).read_text())]))
