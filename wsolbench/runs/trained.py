"""The trained weights of a run: its own network, or a classifier that several methods share; and the states on the way there.

A protocol that chooses among checkpoints, and a run that searches its hyper-parameters, train in a folder of their own
(`runs/<data set>/_trainings/<hash8>`, classifiers in `_classifiers`) that all such runs share: one training serves every
protocol, and the chosen trial is trained once. Snapshots are the states among which is
chosen: before the first step, after every `protocol.select_every` epochs, and the last.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wsolbench import distributed
from wsolbench.config.saved import to_yaml
from wsolbench.config.schema import RunConfig
from wsolbench.data.dataset import DatasetInfo
from wsolbench.method.base import Method, create_method
from wsolbench.method.checkpoint import read_tensors, write_tensors
from wsolbench.options import Named
from wsolbench.runs.directory import SNAPSHOTS, RunDirectory, classifier_path, training_path
from wsolbench.runs.job import Job, Task
from wsolbench.runs.opening import Session
from wsolbench.runs.watch import Watch, watching
from wsolbench.system.hashing import digest, plain, stable_seed
from wsolbench.training.fit import fit
from wsolbench.training.log import training_cost
from wsolbench.training.state import save_weights


@dataclass(frozen=True)
class Trained:
    """What the training cost, whenever it took place; `home` is the folder of a shared one."""

    cost: dict[str, float | None]
    module: nn.Module | None = None  # that was trained: the method, or its classifier
    home: Path | None = None
    commits: tuple[str, ...] = ()  # that had a hand in the shared training

    @property
    def snapshots(self) -> dict[int, Path]:
        """The states among which a checkpoint is chosen, by optimizer steps taken, ascending."""
        assert self.home is not None
        return {int(path.stem): path for path in sorted((self.home / SNAPSHOTS).glob("*.safetensors"))}


def create(config: RunConfig, info: DatasetInfo, backbone: str | None) -> Method:
    """The method with weights that follow from the seed (and the pretrained ones)."""
    name, options = Named.of(config.method)
    torch.manual_seed(stable_seed("init", config.seed))
    return create_method(
        name,
        num_classes=info.num_classes,
        backbone=backbone,
        pretrained=config.pretrained,
        checkpoint=config.checkpoint,
        class_names=info.class_names,
        **options,
    )


def train(job: Job, method: Method, session: Session, about: dict[str, Any], rerun: bool) -> Trained:
    """Give the method its trained weights, those of the last step."""
    if job.training == "none":
        return Trained({"train_seconds": 0.0, "train_images_per_second": None})
    if job.training == "own" and not job.shares_training:
        _weights_of(job, method, method, job.directory, session)
        return Trained(training_cost(job.directory.path), method)
    module: nn.Module = method
    if job.training == "classifier":
        assert isinstance(method.classifier, nn.Module)
        module = method.classifier
    identity = training_identity(job, method, module)  # of the weights it starts from
    with shared_home(job, identity, session, about, rerun) as home:
        _weights_of(job, method, module, home, session)
        if not home.is_done():
            home.finish(json.dumps({"hash": home.hash, **plain(identity)}, indent=2) + "\n")
        session.trained.add(home.path)
    return Trained(training_cost(home.path), module, home.path, home.commits())


@contextmanager
def shared_home(
    job: Job, identity: dict[str, Any], session: Session, about: dict[str, Any], rerun: bool
) -> Iterator[RunDirectory]:
    """The folder of a training that several runs share, locked: whoever comes second reads what the first has trained."""
    hash = digest(identity)
    place, done = (
        (classifier_path, "classifier.json") if job.training == "classifier" else (training_path, "training.json")
    )
    home = RunDirectory(place(job.config.out, job.config.dataset["name"], hash), hash, done)
    with home.locked(wait=True, say=session.reporter.message):
        fresh = rerun and home.path not in session.trained
        if fresh or not home.is_done():
            home.begin(to_yaml(job.config), about, fresh=fresh)
        else:
            home.tidy()
        yield home


def training_identity(job: Job, method: Method, module: nn.Module) -> dict[str, Any]:
    """What decides a shared training: all that decides the run but what happens after training.

    Of a classifier the method is no part, but the starting weights and the optimizer's groups are: two methods share one
    only if they would have trained the same one.
    """
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    groups = [
        {name: value for name, value in group.items() if name != "params"}
        | {"params": sorted(names[id(parameter)] for parameter in group["params"])}
        for group in method.param_groups(job.config.train)
    ]
    return training_settings(job) | {"start": _state_sha256(module), "groups": groups}


def training_settings(job: Job) -> dict[str, Any]:
    """What of `training_identity` is known before the network is made."""
    config = job.identity["config"]
    own = {"method": config["method"], "method_version": job.identity["method_version"]}
    every = {"snapshots": job.config.protocol.select_every}
    return {
        **{name: job.identity[name] for name in ("data", "weights", "checkpoint", "device")},
        **{name: config[name] for name in ("dataset", "backbone", "pretrained", "train", "seed")},
        "protocol": {
            name: config["protocol"][name] for name in ("shots", "budget", "fraction") if name in config["protocol"]
        },
        **job.chosen.training_identity(),
        **(own if job.training == "own" else {}),
        **(every if job.has_snapshots else {}),
    }


def _weights_of(job: Job, method: Method, module: nn.Module, home: RunDirectory, session: Session) -> None:
    """Leave the trained weights of `module` in `home` unless they are there, and load them from there."""
    weights = home / "last.safetensors"
    if not weights.is_file():
        keeper = _keeper(job, module, home) if job.has_snapshots else None
        with watching(job, method, home.path, session) as watch:
            take_steps(job, method, home.path, session, keeper, watch)
        save_weights(module, home.path)
    module.load_state_dict(read_tensors(weights))


def take_steps(
    job: Job,
    method: Method,
    folder: Path,
    session: Session,
    at_step: Callable[[int], None] | None = None,
    watch: Watch | None = None,
) -> None:
    """All optimizer steps of the run, or those that are left; where there are several processes, by all of them."""
    with distributed.together(Task(job.config, job.directory.hash)):
        fit(
            method,
            job.train_split,
            job.indices,
            job.plan,
            job.config.train,
            seed=job.config.seed,
            device=job.device,
            folder=folder,
            reporter=session.reporter,
            at_step=at_step,
            watch=watch,
        )


def _keeper(job: Job, module: nn.Module, home: RunDirectory) -> Callable[[int], None]:
    """Writes the module's state at the steps among which a checkpoint is chosen."""
    folder = home.path / SNAPSHOTS
    folder.mkdir(exist_ok=True)
    every = job.config.protocol.select_every * job.plan.steps_per_epoch
    return partial(_keep, module, folder, every, job.plan.steps)


def _keep(module: nn.Module, folder: Path, every: int, last: int, step: int) -> None:
    if step % every == 0 or step == last:
        write_tensors(folder / f"{step:08d}.safetensors", module.state_dict())


def _state_sha256(module: nn.Module) -> str:
    state = hashlib.sha256()
    for name, value in module.state_dict().items():
        state.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        state.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()
