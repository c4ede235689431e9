"""What the other processes do beside the one that leads: open what it announces, and take part in it."""

from __future__ import annotations

import sys
from collections.abc import Callable

from wsolbench import distributed
from wsolbench.data.annotations import AnnotationReader
from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.method.base import Method
from wsolbench.method.numerics import deterministic
from wsolbench.runs.evaluator import Evaluator
from wsolbench.runs.job import Job, Task
from wsolbench.runs.opening import Session, open_job
from wsolbench.runs.trained import create, take_steps
from wsolbench.system.interrupt import Interrupt, request_of


def together(lead: Callable[[], int]) -> int:
    """Carry out `lead`, which returns an exit status, in the first of the processes that were started; help in the others.

    Every process returns the same status. Only the first one speaks, unless it is gone.
    """
    lost: Exception | None = None
    number = 0
    with distributed.joined():
        number = distributed.rank()
        if number == 0:
            return _lead(lead)
        try:
            return serve()
        except Exception as error:  # noqa: BLE001 (the leader hears of it, and tells the user)
            lost = error
    # of those who have lost the leader one speaks; who has failed by itself has left its words
    if isinstance(lost, distributed.LostProcess) and number == 1 and distributed.leader_is_gone():
        print(f"wsolbench: {lost}", file=sys.stderr)
    return 1


def _lead(lead: Callable[[], int]) -> int:
    status = 1
    try:
        status = lead()
        return status
    except UsageError:
        status = 2
        raise
    except KeyboardInterrupt as error:
        status = request_of(error).status
        raise
    finally:
        distributed.dismiss(status)


def serve() -> int:
    """Take part in whatever the leader announces until there is nothing left; returns the exit status.

    Raises:
        Exception: this process and the others are out of step, so it cannot go on.
    """
    session = Session()
    job: Job | None = None
    method: Method | None = None
    with Interrupt():  # the leader decides; what this process has heard counts while a task is under way
        while not isinstance(task := distributed.receive(), int):
            try:
                with distributed.in_step():
                    with distributed.turn():
                        if job is None or method is None or job.directory.hash != task.hash or task.split is None:
                            job = _open(task, session)
                            method = create(job.config, job.dataset.info, job.backbone)
                    with deterministic(job.device):
                        if task.split is None:
                            take_steps(job, method, job.directory.path, session)
                        else:
                            Evaluator(job, method, AnnotationReader(), session.reporter).take_part(task)
            except (Exception, KeyboardInterrupt) as error:  # the leader has it too, and says so
                if not distributed.is_together(error):
                    raise
    return task


def _open(task: Task, session: Session) -> Job:
    job = open_job(task.config, session)
    if job.directory.hash != task.hash:
        raise WsolbenchError(
            f"process {distributed.rank()} comes to another run than the first process ({job.directory.hash[:8]} and "
            f"{task.hash[:8]}): data set, weights, kind of device and version must be the same on all machines"
        )
    return job
