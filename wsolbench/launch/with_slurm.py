"""Runs as an array of SLURM jobs, through submitit: one job for each group of runs that share a training.

A job that is pre-empted, or runs out of time, is queued again as it is: the run directory is its state. What a job says goes
through the spool, a folder beside submitit's logs on the file system that all machines share.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import submitit
import torch
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import DelayedSubmission

from wsolbench.config import RunConfig
from wsolbench.engine import Outcome
from wsolbench.errors import UsageError
from wsolbench.job import Session
from wsolbench.launch.plan import Plan, make_plan, modules_of
from wsolbench.launch.spool import Follower, Spool, Task, tasks_of
from wsolbench.launch_flags import Slurm
from wsolbench.preflight import check_writable
from wsolbench.progress import Reporter

LATE = 120.0  # seconds until files of a job that has ended must be seen here: shared file systems take their time


def run_all(
    launcher: Slurm,
    configs: Sequence[RunConfig],
    *,
    rerun: bool = False,
    reporter: Reporter | None = None,
    poll: float = 2.0,
) -> list[Outcome]:
    """`wsolbench.launch.run_all` as jobs; waits for them unless `launcher.wait` is false.

    Returns:
        outcomes in the order of `configs`; "submitted" where nobody waited, or not to the end: Ctrl-C leaves the jobs alone.

    Raises:
        UsageError: one of the configurations makes no sense, or SLURM refuses the jobs; none was started.
    """
    reporter = reporter or Reporter()
    device = _device(launcher, configs)
    configs = [replace(config, device=device) for config in configs]
    with reporter.live():
        plan = make_plan(configs, Session(reporter), rerun=rerun, device=torch.device(device))
        if plan.groups:
            out = Path(configs[0].out)
            folder = out.absolute() / "slurm" / f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"
            check_writable(folder)
            jobs = _submit(launcher, device, plan, folder, rerun)
            ids = sorted({job.job_id.partition("_")[0] for job in jobs}, key=int)
            reporter.message(
                f"launch=slurm: {len(jobs)} {'job' if len(jobs) == 1 else 'jobs'} submitted ({', '.join(ids)}), "
                f"logs in {folder}"
            )
            if launcher.wait:
                with reporter.bar("runs", len(configs), unit="runs") as advance:
                    advance(len(plan.outcomes))
                    follower = Follower(Spool(folder), plan, reporter, advance)
                    try:
                        _wait(plan, jobs, follower, poll)
                    except KeyboardInterrupt:
                        left = f"the jobs go on; scancel {' '.join(ids)} ends them"
                        reporter.message(f"launch=slurm: interrupted, no longer waiting, but {left}")
            for number in plan.missing(plan.jobs):
                job = plan.jobs[number]
                plan.outcomes[number] = Outcome(job.config, job.directory.path, "submitted")
    return [plan.outcomes[number] for number in range(len(configs))]


@dataclass(frozen=True)
class Resumable:
    """A task as submitit calls it: what it leaves behind when it is sent away is all that is needed to go on."""

    task: Task

    def __call__(self) -> None:
        self.task()

    def checkpoint(self) -> DelayedSubmission:
        """Called by submitit on pre-emption and on running out of time, before the job is queued again."""
        return DelayedSubmission(self)


def parameters(launcher: Slurm) -> dict[str, Any]:
    """The launcher's options by submitit's names."""
    common = {
        "name": launcher.name,
        "timeout_min": launcher.minutes,
        "mem_gb": launcher.gigabytes,
        "nodes": 1,
        "tasks_per_node": 1,
        "cpus_per_task": launcher.cpus,
        "gpus_per_node": launcher.gpus or None,
    }
    slurm = {
        "slurm_partition": launcher.partition,
        "slurm_account": launcher.account,
        "slurm_qos": launcher.qos,
        "slurm_constraint": launcher.constraint,
        "slurm_exclude": launcher.exclude,
        "slurm_array_parallelism": launcher.parallel,
        "slurm_setup": launcher.setup or None,
        "slurm_additional_parameters": dict(launcher.sbatch) or None,
    }
    return {name: value for name, value in (common | slurm).items() if value is not None}


def _submit(launcher: Slurm, device: str, plan: Plan, folder: Path, rerun: bool) -> list[submitit.Job[None]]:
    """One job per group, as one array."""
    executor = submitit.AutoExecutor(folder, cluster=launcher.cluster, slurm_max_num_timeout=launcher.requeues)
    gpus = launcher.gpus if launcher.gpus is not None else int(device == "cuda")
    executor.update_parameters(**parameters(replace(launcher, gpus=gpus)))
    tasks = tasks_of(plan, plan.groups, Spool(folder), modules_of(plan.configs.values()), rerun)
    try:
        with executor.batch():
            return [executor.submit(Resumable(task)) for task in tasks]
    except (FailedJobError, FailedSubmissionError) as error:  # no such partition, over a limit
        raise UsageError(f"launch=slurm: sbatch refused the jobs: {' '.join(str(error).split())}") from error


def _wait(plan: Plan, jobs: list[submitit.Job[None]], follower: Follower, poll: float) -> None:
    """Until every run has an outcome; what a job that has ended does not tell, its state does."""
    ended: dict[int, float] = {}  # when a job of a group was first seen to be over
    while plan.missing(plan.configs):
        follower.look()
        for number, (group, job) in enumerate(zip(plan.groups, jobs, strict=True)):
            missing = plan.missing(group)
            if not missing or not job.done():
                continue
            since = ended.setdefault(number, time.monotonic())
            follower.look()
            came_through = job.paths.result_pickle.exists() and job.exception() is None
            if came_through and time.monotonic() - since < LATE:
                continue
            for run in plan.missing(group):
                outcome = plan.fail(run, f"SLURM job {job.job_id} ended as {job.state}; see {job.paths.stderr}")
                follower.reporter.message(f"{plan.name(run)}: failed ({outcome.reason})")
                follower.advance(1)
        time.sleep(poll)


def _device(launcher: Slurm, configs: Sequence[RunConfig]) -> str:
    """The kind of device that the jobs will find: this machine's own say nothing about it."""
    wanted = {config.device for config in configs}
    if len(wanted) > 1 or not wanted <= {"auto", "cuda", "cpu"}:
        raise UsageError(
            f"--device {','.join(sorted(wanted))}: SLURM gives its jobs their devices, with launch=slurm it is "
            "auto, cuda or cpu"
        )
    asked = wanted.pop()
    if asked == "cuda" and launcher.gpus == 0:
        raise UsageError("--device cuda and launch.gpus=0 contradict each other: leave out one of them")
    if asked != "auto":
        return asked
    if launcher.gpus is None and launcher.cluster == "local":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return "cpu" if launcher.gpus == 0 else "cuda"
