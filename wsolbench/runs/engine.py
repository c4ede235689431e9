"""One run from configuration to record: (search ->) fit -> evaluate -> select -> record, top to bottom."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from wsolbench.config.saved import to_yaml
from wsolbench.config.schema import RunConfig
from wsolbench.config.selectors import PSEUDO
from wsolbench.data.annotations import AnnotationReader
from wsolbench.evaluation.by_convention import ConventionOutcomes
from wsolbench.evaluation.cells import compute_cells
from wsolbench.evaluation.levels import save_levels
from wsolbench.evaluation.per_image import judge_images, outcomes_csv
from wsolbench.method.numerics import deterministic
from wsolbench.protocols.matrix import protocol_matrix
from wsolbench.protocols.select import choose_checkpoint, choose_threshold
from wsolbench.record import RunRecord, read_record, to_json
from wsolbench.runs.evaluator import Evaluator
from wsolbench.runs.job import Job
from wsolbench.runs.ledger import _drawn, _ledger, _notes, _sizes
from wsolbench.runs.opening import Session, open_job
from wsolbench.runs.search import Cost, settle
from wsolbench.runs.snapshots import open_checkpoints
from wsolbench.runs.trained import create, train
from wsolbench.runs.watch import watching
from wsolbench.system.environment import environment
from wsolbench.system.files import write_bytes, write_json
from wsolbench.system.hashing import plain

Status = Literal["done", "skipped", "failed", "submitted"]  # submitted: to a queue, by `launch=slurm`


@dataclass
class Outcome:
    """What became of one configuration. `directory` is None where it could not even be worked out."""

    config: RunConfig
    directory: Path | None
    status: Status
    reason: str = ""
    record: RunRecord | None = None


# --- the run ---------------------------------------------------------------------------------------------------------


def run(config: RunConfig, *, rerun: bool = False, session: Session | None = None) -> Outcome:
    """Carry out one run, or take up where an interrupted one left off; a finished one is skipped unless `rerun`.

    Raises:
        UsageError: the configuration makes no sense; nothing was started.
        WsolbenchError, or whatever a method raises: the run failed; the reason is left in `failed.json`.
        KeyboardInterrupt: after saving the state; the same call resumes.
    """
    session = session or Session()
    return run_job(open_job(config, session), session, rerun=rerun)


def run_job(job: Job, session: Session, *, rerun: bool = False) -> Outcome:
    """`run` for a configuration that was opened before."""
    directory = job.directory
    with directory.locked():
        if directory.is_done() and not rerun:
            record = read_record(directory / directory.done)
            directory.tidy()
            made = (
                f"done on {record.provenance.get('created')} by commit {record.provenance.get('commit') or 'unknown'}"
            )
            return Outcome(job.config, directory.path, "skipped", f"{made}; --rerun forces", record)
        about = environment(job.device)
        directory.begin(to_yaml(job.config), about, fresh=rerun)
        try:
            with deterministic(job.device):
                job, searched = settle(job, session, about, rerun)
                record = _carry_out(job, session, about, rerun, searched)
        except Exception as error:
            directory.fail(error, traceback.format_exc())
            raise
        directory.finish(to_json(record))
    return Outcome(job.config, directory.path, "done", "", record)


def _carry_out(job: Job, session: Session, about: dict[str, Any], rerun: bool, searched: Cost) -> RunRecord:
    """The story of a run. Every file is whole or absent; `record.json` is the caller's, and comes last."""
    config, info, folder = job.config, job.dataset.info, job.directory.path
    if drawn := _drawn(job):
        write_json(folder / "subset.json", drawn)

    # fit
    method = create(config, info, job.backbone)
    trained = train(job, method, session, about, rerun)

    # evaluate: outcomes at every threshold, on the images of val that may be looked at and on test; of every checkpoint
    # among which the protocol chooses
    reader = AnnotationReader()
    evaluator = Evaluator(job, method, reader, session.reporter)
    with open_checkpoints(job, trained, evaluator) as checkpoints:
        chosen = choose_checkpoint(
            reader, job.checkpoint, checkpoints.steps, checkpoints.levels, job.settings(job.checkpoint)
        )
        evaluated = {name: checkpoints.evaluated(chosen.step, name) for name in evaluator.splits}
        matrix_reader = AnnotationReader()
        matrix = []
        if config.protocol.matrix:
            matrix = protocol_matrix(
                matrix_reader,
                checkpoints.steps,
                checkpoints.levels,
                job.allowed(),
                job.settings,
                config.evaluate.interval,
            )
        weights_file = checkpoints.keep(chosen, folder)
    parts = {name: each.parts for name, each in evaluated.items()}
    levels = {name: each.levels() for name, each in parts.items()}
    if job.pseudo is not None:
        levels[PSEUDO] = evaluated["val"].pseudo_levels()
    save_levels(folder / "levels.npz", levels)

    # select: the threshold, if there are boxes
    threshold = None
    if info.has_boxes:
        threshold = choose_threshold(reader, job.threshold, levels, job.settings(job.threshold))

    # record
    judged = {
        name: judge_images(name, each, evaluator.splits[name], evaluator.frame(name), threshold, reader)
        for name, each in parts.items()
        if evaluator.splits[name].annotated
    }
    write_bytes(folder / "images.csv.gz", outcomes_csv(judged))
    cells = compute_cells(levels["test"], threshold, reader, config.evaluate.interval)
    if job.convention is not None:
        thresholds = job.convention.thresholds_for(config.dataset["name"], job.backbone or "-")
        by_convention = evaluator.by_convention(evaluated["test"], job.directory.partial)
        outcomes = ConventionOutcomes.of_parts(
            job.convention, thresholds, evaluator.splits["test"], by_convention.parts
        )
        cells += outcomes.cells(reader)
    found = config.search.found
    speed = {"eval_images_per_second": evaluated["test"].images_per_second}
    record = RunRecord(
        method=config.method["name"],
        dataset=config.dataset["name"],
        backbone=job.backbone or "-",
        protocol=config.protocol.name,
        seed=config.seed,
        hash=job.directory.hash,
        config=plain(config),
        cells=cells,
        ledger=_ledger(job, reader, evaluator.splits, chosen, threshold)
        | {"weights_file": weights_file}
        | ({"matrix": matrix_reader.uses()} if matrix else {}),
        cost=trained.cost | speed | checkpoints.cost() | searched | _sizes(job, method),
        provenance={
            **about,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "method_version": job.method_class.version,
            "weights_sha256": job.weights and job.weights["sha256"],
            "data_revision": info.revision,
            "data_fingerprint": job.fingerprint,
            "classifier": trained.home.name if trained.home and job.training == "classifier" else None,
        },
        test_selected=chosen.oracle or bool(found and found["test_selected"]),
        notes=_notes(job, trained),
        errors=judged["test"].error_counts(),
        matrix=matrix,
    )
    with watching(job, method, folder, session) as watch:
        if watch is not None:
            watch.result(record)
    return record


# --- record ----------------------------------------------------------------------------------------------------------
