"""`launch=joblib launch.jobs=2`: how the runs of a command are carried out. No part of a run: nothing here changes a number."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, cast

from wsolbench.config.overrides import Choice, parse_overrides
from wsolbench.errors import UsageError, unknown


@dataclass
class Here:
    """One run after another, in this process."""


@dataclass
class Joblib:
    """Several processes on this machine."""

    jobs: int | None = None  # worker processes; None: one per CUDA device, else one per core
    devices: list[int] | None = None  # CUDA devices given to them in turn; None: all


@dataclass
class Slurm:
    """An array of SLURM jobs, through submitit."""

    cluster: str = "slurm"  # or local: as processes of this machine, to try a command
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    time: str = "4h"  # per job; one that runs out of it is queued again and resumes
    memory: str | None = None
    cpus: int | None = None
    nodes: int = 1  # of each job
    tasks: int = 1  # processes on each node, which share the work of each run and take a GPU each
    gpus: int | None = None  # of each node; None: one for each task, or none with --device cpu
    parallel: int | None = None  # jobs of the array that run at a time
    requeues: int = 3  # how often a job may run out of time; pre-emption is not counted
    name: str = "wsolbench"
    setup: list[str] = field(default_factory=list)  # shell lines before the job, e.g. "module load cuda"
    sbatch: dict[str, Any] = field(default_factory=dict)  # any other option of sbatch
    wait: bool = True  # for the jobs, and print their table

    @property
    def minutes(self) -> int:
        return minutes(self.time)

    @property
    def gigabytes(self) -> float | None:
        return None if self.memory is None else gigabytes(self.memory)


Launcher = Here | Joblib | Slurm
LAUNCHERS: dict[str, type[Launcher]] = {"here": Here, "joblib": Joblib, "slurm": Slurm}
LEAST = {"jobs": 1, "cpus": 1, "nodes": 1, "tasks": 1, "gpus": 0, "parallel": 1, "requeues": 0}


def take(words: Sequence[str]) -> tuple[Launcher, list[str]]:
    """The launcher that `launch=...` and `launch.*=...` choose, and the other words.

    Raises:
        UsageError: unknown launcher or option, a value of a wrong type, or a sweep.

    >>> take(["train.lr=0.1", "launch=joblib", "launch.devices=0,2"])
    (Joblib(jobs=None, devices=[0, 2]), ['train.lr=0.1'])
    """
    ours = [word for word in words if re.match(r"launch(\.|=|$)", word)]
    choices = parse_overrides(ours)
    name = str(_single(choices["launch"])) if "launch" in choices else "here"
    if name not in LAUNCHERS:
        raise unknown("launcher", name, LAUNCHERS)
    options = [choice for key, choice in choices.items() if key != "launch"]
    return _filled(name, options), [word for word in words if word not in ours]


def check(launcher: Launcher) -> None:
    """Refuse a launcher that cannot work here, before anything is started."""
    if isinstance(launcher, Here):
        return
    name = next(name for name, cls in LAUNCHERS.items() if isinstance(launcher, cls))
    if os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
        raise UsageError(
            f"launch={name} starts processes of its own and this one was started by torchrun (WORLD_SIZE is set): "
            "use one of them"
        )
    if isinstance(launcher, Slurm):
        if importlib.util.find_spec("submitit") is None:
            raise UsageError("launch=slurm needs the package submitit: pip install 'wsolbench[slurm]'")
        absent = [command for command in ("sbatch", "srun") if shutil.which(command) is None]
        if launcher.cluster == "slurm" and absent:
            raise UsageError(
                f"launch=slurm needs SLURM, but there is no '{absent[0]}' on this machine: run it where jobs are "
                "submitted, or try it with launch.cluster=local"
            )


def minutes(text: str) -> int:
    """A time limit in whole minutes, at least one.

    >>> minutes("4h"), minutes("1d12h"), minutes("90m"), minutes("2-00:30:00")
    (240, 2160, 90, 2910)
    """
    clock = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)", text)
    units = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    found = clock or units
    if not text or found is None:
        raise UsageError(f"launch.time={text} is no time: write 4h, 90m, 1d12h or 04:00:00")
    days, hours, mins, seconds = (int(part or 0) for part in found.groups())
    total = days * 86400 + hours * 3600 + mins * 60 + seconds
    if total == 0:
        raise UsageError(f"launch.time={text} is impossible: a job needs some time")
    return -(-total // 60)


def gigabytes(text: str) -> float:
    """An amount of memory in units of 2^30 bytes, as SLURM counts.

    >>> gigabytes("32G"), gigabytes("512M"), gigabytes("1T")
    (32.0, 0.5, 1024.0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([MGT])B?", text, re.IGNORECASE)
    if found is None or float(found[1]) == 0:
        raise UsageError(f"launch.memory={text} is no amount of memory: write 32G or 500M")
    return float(found[1]) * {"M": 1 / 1024, "G": 1.0, "T": 1024.0}[found[2].upper()]


def _single(choice: Choice) -> Any:
    if len(choice.values) > 1:
        raise UsageError(f"'{choice.text}' is a sweep: how runs are launched has one value, {choice.key}=VALUE")
    return choice.values[0]


def _filled(name: str, options: Sequence[Choice]) -> Launcher:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from wsolbench.errors import first_line

    known = {option.name: option for option in fields(LAUNCHERS[name])}
    filled = OmegaConf.structured(LAUNCHERS[name])
    for choice in options:
        key = choice.key.removeprefix("launch.")
        if key not in known:
            having = [other for other, cls in LAUNCHERS.items() if key in {option.name for option in fields(cls)}]
            if having:
                raise UsageError(f"'{choice.text}' is an option of launch={having[0]}, but this is launch={name}")
            raise unknown(f"option of launch={name}", choice.key, [f"launch.{each}" for each in known])
        is_list = "list[" in str(known[key].type)
        value = _single(choice) if not is_list or isinstance(choice.values[0], list) else list(choice.values)
        try:
            OmegaConf.update(filled, key, value, merge=False)
        except OmegaConfBaseException as error:
            raise UsageError(f"'{choice.text}': {first_line(error)}") from error
        if key in LEAST and filled[key] is not None and filled[key] < LEAST[key]:
            raise UsageError(f"{choice.text} is impossible: the least is {LEAST[key]}")
    launcher = cast(Launcher, OmegaConf.to_object(filled))
    if isinstance(launcher, Slurm):
        _ = launcher.minutes, launcher.gigabytes  # says now what is wrong with them
        if launcher.cluster not in ("slurm", "local"):
            raise unknown("cluster", launcher.cluster, ("slurm", "local"))
        if launcher.cluster == "local" and launcher.nodes > 1:
            raise UsageError(
                f"launch.nodes={launcher.nodes} with launch.cluster=local, which is this machine: one node"
            )
    return launcher
