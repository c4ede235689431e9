"""Many runs, one after another: a run that fails does not take the others with it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from wsolbench import distributed
from wsolbench.config.schema import RunConfig
from wsolbench.errors import UsageError, reason
from wsolbench.runs.engine import Outcome, run_job
from wsolbench.runs.job import Job
from wsolbench.runs.opening import Session, open_job
from wsolbench.system.interrupt import request_of, stop_if_requested
from wsolbench.system.progress import Reporter


def run_all(configs: Sequence[RunConfig], *, rerun: bool = False, reporter: Reporter | None = None) -> list[Outcome]:
    """Carry out every configuration; finished ones are skipped unless `rerun`.

    Args:
        configs: composed and checked.
        rerun: forget earlier results of these configurations.
        reporter: tells the user; by default bars on a terminal, plain lines elsewhere.

    Returns:
        one outcome per configuration, in order; "failed" ones say why.

    Raises:
        UsageError: one of the configurations makes no sense; none was started.
        KeyboardInterrupt: after the state of the current run was saved.
    """
    reporter = reporter or Reporter()
    session = Session(reporter)
    outcomes: list[Outcome] = []
    with reporter.live():
        opened = [open_one(config, session) for config in configs]
        with reporter.bar("runs", len(configs), unit="runs") as advance:
            for number, job in enumerate(opened, 1):
                stop_if_requested()
                outcomes.append(carry_out(job, session, f"[{number}/{len(opened)}]", rerun=rerun))
                advance(1)
    return outcomes


def open_one(config: RunConfig, session: Session, device: torch.device | None = None) -> Job | Outcome:
    """The job of a configuration, or its failure; `UsageError` if the request itself is wrong."""
    try:
        return open_job(config, session, device)
    except UsageError:
        raise  # nothing is started
    except Exception as error:  # noqa: BLE001 (a plug-in may raise anything; the others go on)
        return Outcome(config, None, "failed", reason(error))


def carry_out(job: Job | Outcome, session: Session, title: str, *, rerun: bool) -> Outcome:
    """One run, with a message at its start and one at its end that bear its title."""
    started = time.perf_counter()
    outcome = job if isinstance(job, Outcome) else _run(job, session, title, rerun)
    session.reporter.message(f"{title} {name_of(job)}: {sentence(outcome, time.perf_counter() - started)}")
    return outcome


def name_of(job: Job | Outcome) -> str:
    """What the user knows a run by."""
    return str(job) if isinstance(job, Job) else f"{job.config.method.get('name')} on {job.config.dataset.get('name')}"


def sentence(outcome: Outcome, seconds: float) -> str:
    """What became of a run."""
    if outcome.status == "done" and outcome.record is not None:
        cells = {cell.column: cell.value for cell in outcome.record.cells}
        shown = ", ".join(f"{name} {100 * value:.1f}" for name, value in cells.items() if name.startswith("GT-known"))
        return f"done in {seconds:.1f} s, {shown}"
    return f"{outcome.status} ({outcome.reason})"


def _run(job: Job, session: Session, title: str, rerun: bool) -> Outcome:
    if distributed.is_broken():
        return Outcome(job.config, job.directory.path, "failed", "not begun: the processes have lost each other")
    if not job.directory.is_done() or rerun:
        session.reporter.message(f"{title} {job}: running")
    try:
        return run_job(job, session, rerun=rerun)
    except KeyboardInterrupt as error:
        session.reporter.message(
            f"{title} {job}: {request_of(error).why}, its state is saved in {job.directory.path}; "
            "run the same command again to resume"
        )
        raise
    except Exception as error:  # noqa: BLE001 (a plug-in may raise anything; the others go on)
        return Outcome(job.config, job.directory.path, "failed", reason(error))
