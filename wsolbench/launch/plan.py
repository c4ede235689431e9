"""Which of the runs of a command are left to do, and which of them belong together in one process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch

from wsolbench.config.schema import RunConfig
from wsolbench.launch.here import carry_out, name_of, open_one
from wsolbench.registry import DATASETS, METHODS
from wsolbench.runs.engine import Outcome
from wsolbench.runs.job import Job
from wsolbench.runs.opening import Session
from wsolbench.runs.trained import training_settings
from wsolbench.system.hashing import digest


@dataclass
class Plan:
    """Runs by their number in the command; every number has an outcome already or stands in one group."""

    total: int
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    configs: dict[int, RunConfig] = field(default_factory=dict)  # of what is left to do
    jobs: dict[int, Job] = field(default_factory=dict)
    groups: list[list[int]] = field(default_factory=list)  # the largest first

    def title(self, number: int) -> str:
        return f"[{number + 1}/{self.total}]"

    def name(self, number: int) -> str:
        return f"{self.title(number)} {name_of(self.jobs[number])}"

    def fail(self, number: int, reason: str) -> Outcome:
        """Note that a run came to nothing, where no process is left that could say so itself."""
        job = self.jobs[number]
        self.outcomes[number] = Outcome(job.config, job.directory.path, "failed", reason)
        return self.outcomes[number]

    def missing(self, numbers: Iterable[int]) -> list[int]:
        return [number for number in numbers if number not in self.outcomes]


def make_plan(
    configs: Sequence[RunConfig], session: Session, *, rerun: bool, device: torch.device | None = None
) -> Plan:
    """Open every run, set aside what is done, and put into one group what shares a training.

    A group runs in one process from first to last: another one would only wait for the training, holding its device.

    Args:
        configs: composed and checked; a `device` of another machine is not theirs but `device`.
        session: of the process that plans, where the data lie too.
        rerun: nothing counts as done.
        device: where the runs will take place, if that is not here.

    Raises:
        UsageError: one of the configurations makes no sense; none was started.
    """
    plan = Plan(len(configs))
    groups: dict[str, list[int]] = {}
    for number, config in enumerate(configs):
        job = open_one(config, session, device)
        if isinstance(job, Outcome) or (job.directory.is_done() and not rerun):
            plan.outcomes[number] = carry_out(job, session, plan.title(number), rerun=False)
        else:
            plan.configs[number], plan.jobs[number] = config, job
            groups.setdefault(_belongs_to(job), []).append(number)
    plan.groups = sorted(groups.values(), key=len, reverse=True)
    return plan


def modules_of(configs: Iterable[RunConfig]) -> list[str]:
    """The modules that register the plug-ins of these runs, for a process that has not imported them."""
    plugins = [METHODS.get(config.method["name"]) for config in configs]
    plugins += [DATASETS.get(config.dataset["name"]) for config in configs]
    return sorted({plugin.__module__ for plugin in plugins})


def _belongs_to(job: Job) -> str:
    """Equal for runs that share a training, as far as that is known before the networks are made; else the run's own."""
    if job.training == "classifier" or job.shares_training:
        return digest(training_settings(job))
    return job.directory.path.as_posix()
