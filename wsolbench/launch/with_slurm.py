"""Runs as an array of SLURM jobs, through submitit: one job for each group of runs that share a training.

A job is one process, or several on one or more nodes that share the work of each run, as those of `torchrun` do.

A job that is pre-empted, or runs out of time, is queued again as it is: the run directory is its state. What a job says goes
through the spool, a folder beside submitit's logs on the file system that all machines share.
"""

from __future__ import annotations

import importlib
import os
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import submitit
import torch
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import DelayedSubmission, TorchDistributedEnvironment, environment_variables

from wsolbench import distributed
from wsolbench.config.schema import RunConfig
from wsolbench.errors import UsageError
from wsolbench.launch.helpers import together
from wsolbench.launch.options import Slurm
from wsolbench.launch.plan import Plan, make_plan, modules_of
from wsolbench.launch.spool import Follower, Spool, Task, tasks_of
from wsolbench.runs.engine import Outcome
from wsolbench.runs.opening import Session
from wsolbench.system.interrupt import request_of
from wsolbench.system.preflight import check_writable
from wsolbench.system.progress import Reporter

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
    launcher = _with_gpus(launcher, device)
    configs = [replace(config, device=device) for config in configs]
    with reporter.live():
        plan = make_plan(configs, Session(reporter), rerun=rerun, device=torch.device(device))
        if plan.groups:
            out = Path(configs[0].out)
            folder = out.absolute() / "slurm" / f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"
            check_writable(folder)
            jobs = _submit(launcher, plan, folder, rerun)
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
                    except KeyboardInterrupt as error:
                        left = f"the jobs go on; scancel {' '.join(ids)} ends them"
                        reporter.message(f"launch=slurm: {request_of(error).why}, no longer waiting, but {left}")
            for number in plan.missing(plan.jobs):
                job = plan.jobs[number]
                plan.outcomes[number] = Outcome(job.config, job.directory.path, "submitted")
    return [plan.outcomes[number] for number in range(len(configs))]


@dataclass(frozen=True)
class Resumable:
    """A task as submitit calls it: what it leaves behind when it is sent away is all that is needed to go on.

    Of several processes the first one carries it out, so only that one writes, and the others help.
    """

    task: Task

    def __call__(self) -> None:
        if submitit.JobEnvironment().num_tasks == 1:
            self.task()
            return
        # each process sees all GPUs of its node and takes the one of its number; a job that was submitted from inside of
        # another one finds the names of that one's processes
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        if not distributed.is_first():
            self._import_plugins()
        try:
            together(self._lead)
        except SystemExit as end:  # submitit's, after it has queued the job again
            distributed.leave(end.code if isinstance(end.code, int) else 1)
            raise
        distributed.leave(1)

    def checkpoint(self) -> DelayedSubmission:
        """Called by submitit on pre-emption and on running out of time, before the job is queued again.

        All processes get that signal, but submitit calls this in the first one alone. The others go on until they lose it.
        """
        return DelayedSubmission(self)

    def _lead(self) -> int:
        try:
            self.task()
        except SystemExit as end:
            distributed.leave_words(end)  # nothing is left to be done together, not even to part
            raise
        return 0

    def _import_plugins(self) -> None:
        """What the first process does as part of the task; what fails here, it will hear of when it asks for a method."""
        try:
            for module in self.task.modules:
                importlib.import_module(module)
        except Exception:  # noqa: BLE001 (a module may raise anything)
            traceback.print_exc()


def parameters(launcher: Slurm) -> dict[str, Any]:
    """The launcher's options by submitit's names."""
    common = {
        "name": launcher.name,
        "timeout_min": launcher.minutes,
        "mem_gb": launcher.gigabytes,
        "nodes": launcher.nodes,
        "tasks_per_node": launcher.tasks,
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


def _submit(launcher: Slurm, plan: Plan, folder: Path, rerun: bool) -> list[submitit.Job[None]]:
    """One job per group, as one array."""
    executor = submitit.AutoExecutor(folder, cluster=launcher.cluster, slurm_max_num_timeout=launcher.requeues)
    executor.update_parameters(**parameters(launcher))
    tasks = tasks_of(plan, plan.groups, Spool(folder), modules_of(plan.configs.values()), rerun)
    quiet = {}
    if launcher.nodes * launcher.tasks > 1:  # a lost process is told in our words; read when torch loads
        quiet["TORCH_CPP_LOG_LEVEL"] = os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        with environment_variables(**quiet), executor.batch():
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
            first = job.task(0)  # of several processes the one that tells
            if not missing or not first.done():
                continue
            since = ended.setdefault(number, time.monotonic())
            follower.look()
            came_through = first.paths.result_pickle.exists() and first.exception() is None
            if came_through and time.monotonic() - since < LATE:
                continue
            for run in plan.missing(group):
                outcome = plan.fail(run, f"SLURM job {first.job_id} ended as {first.state}; see {first.paths.stderr}")
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


def _with_gpus(launcher: Slurm, device: str) -> Slurm:
    """The launcher with as many GPUs a node as are asked for, or as its processes need."""
    if launcher.gpus is None:
        return replace(launcher, gpus=launcher.tasks if device == "cuda" else 0)
    if device == "cuda" and launcher.tasks > launcher.gpus:
        raise UsageError(
            f"launch.tasks={launcher.tasks} with launch.gpus={launcher.gpus}: each process of a node takes a GPU of its own, "
            f"so use launch.gpus={launcher.tasks}, or fewer tasks"
        )
    return launcher
