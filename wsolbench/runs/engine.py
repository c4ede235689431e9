"""One run from configuration to record: (search ->) fit -> evaluate -> select -> record, top to bottom."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wsolbench.config.saved import to_yaml
from wsolbench.config.schema import RunConfig
from wsolbench.data.annotations import AnnotationReader
from wsolbench.evaluation.by_convention import ConventionOutcomes
from wsolbench.evaluation.cells import convention_cells
from wsolbench.method.numerics import deterministic
from wsolbench.protocols.matrix import protocol_matrix
from wsolbench.protocols.search import found_of
from wsolbench.protocols.select import choose_checkpoint
from wsolbench.record import Cell, Ledger, RunRecord
from wsolbench.runs.directory import carry_out
from wsolbench.runs.evaluator import Evaluator
from wsolbench.runs.job import Job
from wsolbench.runs.ledger import drawn, ledger_of, notes_of, provenance_of, sizes_of
from wsolbench.runs.opening import Session, open_job
from wsolbench.runs.search import Cost, settle
from wsolbench.runs.snapshots import Checkpoints, open_checkpoints
from wsolbench.runs.trained import Trained, create, train
from wsolbench.runs.verdict import Scored, Verdict, judge
from wsolbench.runs.watch import watching
from wsolbench.system.files import write_json
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

    def work(about: dict[str, Any], fresh: bool) -> RunRecord:
        nonlocal job
        with deterministic(job.device):
            job, searched = settle(job, session, about, fresh)
            return _carry_out(job, session, about, fresh, searched)

    carried = carry_out(job.directory, work, config_yaml=to_yaml(job.config), device=job.device, rerun=rerun)
    return Outcome(job.config, job.directory.path, carried.status, carried.reason, carried.record)


def _carry_out(job: Job, session: Session, about: dict[str, Any], rerun: bool, searched: Cost) -> RunRecord:
    """The story of a run. Every file is whole or absent; `record.json` is the caller's, and comes last."""
    folder = job.directory.path
    if images := drawn(job):
        write_json(folder / "subset.json", images)

    # fit
    method = create(job.config, job.dataset.info, job.backbone)
    trained = train(job, method, session, about, rerun)

    # evaluate: outcomes at every threshold, on the images of val that may be looked at and on test; of every checkpoint
    # among which the protocol chooses
    reader, matrix_reader = AnnotationReader(), AnnotationReader()
    evaluator = Evaluator(job, method, reader, session.reporter)
    with open_checkpoints(job, trained, evaluator) as checkpoints:
        settings = job.settings(job.checkpoint)
        chosen = choose_checkpoint(reader, job.checkpoint, checkpoints.steps, checkpoints.levels, settings)
        evaluated = {name: checkpoints.evaluated(chosen.step, name) for name in evaluator.splits}
        matrix = _matrix(job, matrix_reader, checkpoints) if job.config.protocol.matrix else []
        weights_file = checkpoints.keep(chosen, folder)

    # select the threshold, and look up the numbers
    verdict = judge(
        folder,
        {name: Scored(evaluator.splits[name], evaluator.frame(name), each.parts) for name, each in evaluated.items()},
        reader,
        job.threshold,
        job.settings(job.threshold),
        has_boxes=job.dataset.info.has_boxes,
        pseudo=evaluated["val"].pseudo_levels() if job.pseudo is not None else None,
    )
    if job.convention is not None:
        passed = evaluator.by_convention(evaluated["test"], job.directory.partial)
        outcomes = ConventionOutcomes.of_parts(
            job.convention, job.convention_thresholds, evaluator.splits["test"], passed.parts
        )
        verdict.cells.extend(convention_cells(outcomes, reader))

    # record
    ledger = ledger_of(job, reader, evaluator.splits, chosen, verdict.threshold)
    ledger.weights_file, ledger.matrix = weights_file, matrix_reader.uses() if matrix else None
    speed = {"eval_images_per_second": evaluated["test"].images_per_second}
    cost = trained.cost | speed | checkpoints.cost() | searched | sizes_of(job, method)
    record = _record(job, about, trained, verdict, ledger, cost, is_oracle=chosen.oracle, matrix=matrix)
    with watching(job, method, folder, session) as watch:
        if watch is not None:
            watch.result(record)
    return record


def _matrix(job: Job, reader: AnnotationReader, checkpoints: Checkpoints) -> list[Cell]:
    interval = job.config.evaluate.interval
    return protocol_matrix(reader, checkpoints.steps, checkpoints.levels, job.allowed(), job.settings, interval)


def _record(
    job: Job,
    about: dict[str, Any],
    trained: Trained,
    verdict: Verdict,
    ledger: Ledger,
    cost: dict[str, float | None],
    *,
    is_oracle: bool,
    matrix: list[Cell],
) -> RunRecord:
    config, found = job.config, found_of(job.config)
    provenance = provenance_of(
        about,
        job.dataset.info,
        job.fingerprint,
        method_version=job.method_class.version,
        weights_sha256=job.weights and job.weights["sha256"],
    )
    classifier = trained.home.name if trained.home and job.training == "classifier" else None
    return RunRecord(
        method=config.method["name"],
        dataset=config.dataset["name"],
        backbone=job.backbone or "-",
        protocol=config.protocol.name,
        seed=config.seed,
        hash=job.directory.hash,
        config=plain(config),
        cells=verdict.cells,
        ledger=ledger,
        cost=cost,
        provenance=provenance | {"classifier": classifier},
        test_selected=is_oracle or bool(found and found.test_selected),
        notes=notes_of(job, trained),
        errors=verdict.errors,
        matrix=matrix,
    )
