"""Hyper-parameter search: every method gets the same number of trials, a selector chooses one, the run is that one.

A trial is trained where trainings are shared and judged on what the selector asks for, nothing else: test is not evaluated
unless the selector looks at it, which marks the run. So the chosen trial is not trained again, and whatever an interrupted
search had finished is found when the same command runs again.
"""

from __future__ import annotations

import math
import traceback
from dataclasses import asdict, replace
from typing import Any

from wsolbench.config.naming import untuned_name
from wsolbench.config.saved import to_yaml
from wsolbench.config.schema import RunConfig
from wsolbench.config.search_space import with_values
from wsolbench.data.annotations import AnnotationReader
from wsolbench.errors import MachineError, WsolbenchError, reason
from wsolbench.protocols.search import Found, Search, found_of
from wsolbench.protocols.select import CHECKPOINTS, Look, choose_checkpoint
from wsolbench.runs.directory import RunDirectory, trial_path
from wsolbench.runs.evaluator import Evaluator
from wsolbench.runs.job import Job
from wsolbench.runs.opening import Session, open_job
from wsolbench.runs.snapshots import open_checkpoints
from wsolbench.runs.trained import create, train

Cost = dict[str, float | None]
PURPOSE = "hyper-parameter search"


def settle(job: Job, session: Session, about: dict[str, Any], rerun: bool) -> tuple[Job, Cost]:
    """The job with its hyper-parameters chosen, and what that cost; a job that asks for no search, or has had it, as it is.

    Args:
        job: opened; its directory has begun, and gets the chosen values in `config.yaml`.
        session: of the command.
        about: the environment, for the folders of the trials.
        rerun: forget what earlier trials left.

    Raises:
        WsolbenchError: every trial failed.
        KeyboardInterrupt: what was finished is kept.
    """
    if job.search is None or job.config.search.found is not None:
        return job, {}
    found, cost = _search(job, job.search, session, about, rerun)
    search = replace(job.config.search, by=found.by, space=found.space, found=asdict(found))
    settled = open_job(replace(with_values(job.config, found.values), search=search), session)
    settled.directory.settle(to_yaml(settled.config))
    return settled, cost


def search_notes(config: RunConfig) -> list[str]:
    """What a reader of a searched run's numbers would otherwise miss."""
    found = found_of(config)
    if found is None:
        return []
    if not found.trials:
        return ["nothing to search: nothing is trained, and no option of it is in the space"]
    values = ", ".join(f"{key}={value}" for key, value in found.values.items())
    failed = f"; {found.failed} failed" if found.failed else ""
    return [f"seed {config.seed}: trial {found.chosen} of {found.trials} was chosen, {values}{failed}"]


def _search(job: Job, search: Search, session: Session, about: dict[str, Any], rerun: bool) -> tuple[Found, Cost]:
    """Try every trial and choose; the earliest of equal trials wins."""
    config, reader = job.config, AnnotationReader()
    tried: list[dict[str, Any]] = []
    seconds = 0.0
    count = search.trials if search.space.distributions else 0
    with session.reporter.bar("trials", count, unit="trials") as advance:
        for number in range(1, count + 1):
            values = search.space.draw(config.seed, config.method["name"], number, config.train.epochs)
            trial = _open_trial(job, values, session)
            entry = {"trial": number, "values": values, "score": None}
            try:
                entry["score"], spent = _carry_out(trial, search, reader, session, about, rerun)
                seconds += spent
            except MachineError:
                raise  # a disk that is full now is no reason to choose another trial: the same command will have it
            except Exception as error:  # noqa: BLE001 (a trial may fail in any way; the others go on)
                trial.directory.fail(error, traceback.format_exc())
                entry["failed"] = reason(error)
            tried.append(entry)
            session.reporter.message(f"  trial {number}/{count}: {_sentence(entry)}")
            advance(1)
    finished = [entry for entry in tried if entry["score"] is not None]
    if count and not finished:
        raise WsolbenchError(f"all {count} trials of the search failed; the first one: {tried[0]['failed']}")
    best = max(finished, key=lambda entry: entry["score"]) if finished else None  # the first of equals
    uses = [use for use in reader.uses() if use["purpose"] != "scoring"]
    found = Found(
        trials=count,
        by=str(search.by),
        space=search.space.name,
        space_sha256=search.space.sha256,
        distributions=search.space.distributions,
        chosen=best["trial"] if best else None,
        values=best["values"] if best else {},
        failed=len(tried) - len(finished),
        tried=tried,
        defaults=_defaults(config),
        test_selected=any(use["split"] == "test" for use in uses),
        annotations=uses,
    )
    return found, {"search_train_seconds": seconds}


def _open_trial(job: Job, values: dict[str, Any], session: Session) -> Job:
    """The job of a trial: the run without its search, with the trial's values."""
    protocol = replace(job.config.protocol, name=untuned_name(job.config.protocol.name))
    trial = open_job(
        with_values(replace(job.config, search=type(job.config.search)(), protocol=protocol), values), session
    )
    hash = trial.directory.hash
    place = trial_path(trial.config.out, trial.config.dataset["name"], hash)
    return replace(trial, is_trial=True, directory=RunDirectory(place, hash))


def _carry_out(
    trial: Job, search: Search, reader: AnnotationReader, session: Session, about: dict[str, Any], rerun: bool
) -> tuple[float, float]:
    """A trial's score, and the seconds its training took, whenever it took place."""
    with trial.directory.locked(wait=True, say=session.reporter.message):
        trial.directory.begin(to_yaml(trial.config), about, fresh=rerun)
        method = create(trial.config, trial.dataset.info, trial.backbone)
        trained = train(trial, method, session, about, rerun)
        evaluator = Evaluator(trial, method, reader, session.reporter)
        with open_checkpoints(trial, trained, evaluator) as checkpoints:
            chosen = choose_checkpoint(
                reader, trial.checkpoint, checkpoints.steps, checkpoints.levels, trial.settings(trial.checkpoint)
            )
            look = Look(reader, lambda name: checkpoints.levels(chosen.step, name), PURPOSE)
            score = CHECKPOINTS[search.by.name](look, trial.settings(search.by))
        if not math.isfinite(score):
            raise WsolbenchError(f"its score by {search.by} is {score}")
        trial.directory.tidy()
    return score, trained.cost["train_seconds"] or 0.0


def _sentence(entry: dict[str, Any]) -> str:
    values = ", ".join(f"{key}={value}" for key, value in entry["values"].items())
    return f"{values}: " + (f"failed ({entry['failed']})" if "failed" in entry else f"score {entry['score']:.4f}")


def _defaults(config: RunConfig) -> str:
    """Where the values that are not searched come from."""
    if config.experiment is None:
        return "the defaults of wsolbench and the command"
    variant = f", recipe {config.recipe}" if config.recipe else ""
    return f"experiment {config.experiment}{variant}, and the command"
