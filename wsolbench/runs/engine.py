"""One run from configuration to record: (search ->) fit -> evaluate -> select -> record, top to bottom."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from wsolbench.config.compose import repeat
from wsolbench.config.schema import RunConfig, to_yaml
from wsolbench.data.split import Split
from wsolbench.data.subsets import subset_content
from wsolbench.errors import UsageError
from wsolbench.evaluation.by_convention import ConventionOutcomes
from wsolbench.evaluation.cells import compute_cells
from wsolbench.evaluation.levels import save_levels
from wsolbench.evaluation.per_image import judge_images, outcomes_csv
from wsolbench.method.base import Method
from wsolbench.method.checkpoint import load_into
from wsolbench.method.numerics import numerics_notes
from wsolbench.protocols.matrix import protocol_matrix
from wsolbench.protocols.needs import AnnotationReader
from wsolbench.protocols.select import PSEUDO, Checkpoint, Threshold, choose_checkpoint, choose_threshold
from wsolbench.record import RunRecord, read_record, to_json
from wsolbench.registry import METHODS
from wsolbench.runs.directory import RECORD, environment, plain, write_bytes, write_json
from wsolbench.runs.job import Job, Session, open_job
from wsolbench.runs.search import Cost, search_notes, settle
from wsolbench.runs.snapshots import Evaluator, open_checkpoints
from wsolbench.runs.trained import Trained, create, train
from wsolbench.runs.watch import watching

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


def load_run(directory: str | Path) -> Method:
    """The trained method of a finished run, in evaluation mode, on the CPU.

    Raises:
        UsageError: the folder holds no finished run, or what it needs is gone.

    >>> load_run("nowhere")
    Traceback (most recent call last):
    wsolbench.errors.UsageError: 'nowhere' is no finished run: it has no record.json
    """
    folder = Path(directory).resolve()
    if not (folder / RECORD).is_file():
        raise UsageError(f"'{directory}' is no finished run: it has no {RECORD}")
    record = read_record(folder / RECORD)
    config = repeat(str(folder / "config.yaml"))
    dataset, _ = Session().dataset(config)
    method = create(config, dataset.info, config.backbone or METHODS.get(record.method).default_backbone)
    kept = record.ledger.get("weights_file")
    if record.ledger["training"] == "own":
        method.load_checkpoint(folder / (kept or "last.safetensors"))
    elif record.ledger["training"] == "classifier":
        home = folder.parents[3] / "_classifiers" / str(record.provenance["classifier"])
        classifier = method.classifier
        assert isinstance(classifier, nn.Module)
        load_into(classifier, folder / kept if kept else home / "last.safetensors")
    return method.eval()


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
            matrix = protocol_matrix(job, matrix_reader, checkpoints.steps, checkpoints.levels)
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


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Ask torch for algorithms that repeat bit for bit; it warns where an operation has none."""
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    settings: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill = settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    settings.fill_uninitialized_memory = False  # costs time, and nothing here reads what it did not write
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        settings.fill_uninitialized_memory = fill


# --- record ----------------------------------------------------------------------------------------------------------


def _drawn(job: Job) -> dict[str, Any] | None:
    """The content of `subset.json`; None where no image was drawn or listed."""
    protocol, subset = job.config.protocol, job.chosen.subset
    per_class = {"train": protocol.shots, "val": protocol.val_per_class}
    ids = {"train": [job.train_split.ids[i] for i in job.indices], "val": list(job.val_split.ids)}
    used = {name: ids[name] for name in ids if per_class[name] is not None or (subset and name in subset.ids)}
    return subset_content(job.dataset.info.revision, job.config.seed, per_class, used) if used else None


def _ledger(
    job: Job, reader: AnnotationReader, splits: dict[str, Split], chosen: Checkpoint, threshold: Threshold | None
) -> dict[str, Any]:
    """What touched the numbers."""
    config = job.config
    trained = job.training != "none"
    return {
        "training": job.training,
        "labels": {
            "train": len(job.indices) if trained else 0,
            **{name: len(split) for name, split in splits.items()},  # which class's map is read, and class metrics
        },
        "optimizer_steps": job.plan.steps if trained else 0,
        "annotations": reader.uses() + (config.search.found or {}).get("annotations", []),
        "val_source": job.dataset.info.val_source or None,  # such as a hold-out from train: its size and seed
        "checkpoint": chosen.by,
        "checkpoint_step": chosen.step if trained else None,
        "checkpoints": chosen.candidates,
        "threshold": threshold and threshold.by,
        "weights": job.weights,
        **_overlap(job),
        **_pseudo_boxes(job),
        "start": config.checkpoint and {"path": config.checkpoint, "sha256": job.identity["checkpoint"]},
        "seeds": [config.seed],
        "search": config.search.found or "none (untuned)",
        "test_images": len(splits["test"]),
        **job.chosen.ledger(),
    }


def _pseudo_boxes(job: Job) -> dict[str, Any]:
    """Whose boxes stood in for those of val, by content, and which models of others had a part in them."""
    pseudo = job.pseudo
    if pseudo is None:
        return {}
    return {"pseudo_boxes": {"source": pseudo.source, "sha256": pseudo.sha256, "external": pseudo.external}}


def _overlap(job: Job) -> dict[str, str]:
    """What ImageNet's pretrained weights have seen of the data, where it is known; the embedded ones saw other symbols."""
    seen = job.dataset.info.imagenet_overlap
    return {"pretraining_overlap": seen} if seen and job.weights and job.weights["source"] == "timm" else {}


def _notes(job: Job, trained: Trained) -> list[str]:
    """What a reader of the numbers would otherwise miss."""
    config = job.config
    notes = job.chosen.notes() + search_notes(config)
    notes += numerics_notes(None if job.training == "none" else config.train, config.evaluate)
    if "pretrained" in job.method_class.needs and job.weights is None and job.config.checkpoint is None:
        name = job.config.method["name"]
        notes.append(f"{name} reads pretrained weights, but the backbone's are random (pretrained=false)")
    commits = dict.fromkeys(trained.commits + job.directory.commits())
    if len(commits) > 1:
        notes.append(f"several versions of the code had a hand in this run: {', '.join(commits)}")
    return notes


def _sizes(job: Job, method: Method) -> dict[str, float | None]:
    parameters = list(method.parameters())
    trainable = sum(each.numel() for each in parameters if each.requires_grad) if job.training != "none" else 0
    return {"parameters": sum(each.numel() for each in parameters), "trainable": trainable}
