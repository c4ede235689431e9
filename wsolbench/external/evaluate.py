"""`wsolbench evaluate`: maps made by any code, from files to a run record like any other, top to bottom."""
# n images

from __future__ import annotations

import hashlib
import time
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from wsolbench.boxes.maps import threshold_grid
from wsolbench.config.selectors import Selector, Settings
from wsolbench.data.annotations import AnnotationReader
from wsolbench.evaluation.by_convention import ConventionOutcomes
from wsolbench.evaluation.cells import compute_cells
from wsolbench.evaluation.frame import Frame
from wsolbench.evaluation.levels import Levels, save_levels
from wsolbench.evaluation.parts import Parts
from wsolbench.evaluation.per_image import judge_images, outcomes_csv
from wsolbench.evaluation.resampling import best_of, mean_of
from wsolbench.external.job import DEFAULT_INTERVAL, ExternalJob, Request, open_request
from wsolbench.external.logit_files import ClassOutcomes, read_logits
from wsolbench.external.scoring import MapScorer
from wsolbench.protocols.select import choose_threshold
from wsolbench.record import Cell, RunRecord, read_record, to_json
from wsolbench.system.environment import environment
from wsolbench.system.files import write_bytes
from wsolbench.system.hashing import file_sha256, plain
from wsolbench.system.progress import Reporter


@dataclass(frozen=True)
class Evaluation:
    """What became of a request. `status` is "done" or "skipped"."""

    directory: Path
    status: str
    reason: str
    record: RunRecord


def evaluate_maps(request: Request, *, rerun: bool = False, reporter: Reporter | None = None) -> Evaluation:
    """Score maps that lie in files; a finished evaluation of the same, unchanged files is skipped unless `rerun`.

    Raises:
        UsageError: the request makes no sense; nothing was started.
        WsolbenchError: a map is missing or cannot be scored; what was scored before it is kept for the next call.
        KeyboardInterrupt: after saving; the same call resumes.
    """
    reporter = reporter or Reporter()
    with reporter.live():
        job = open_request(request)
        for sentence in job.warnings:
            reporter.message(f"warning: {sentence}")
        directory = job.directory
        with directory.locked():
            if directory.is_done() and not rerun:
                record = read_record(directory / directory.done)
                made = f"{record.provenance.get('created')} by commit {record.provenance.get('commit') or 'unknown'}"
                if record.provenance.get("maps_stamp") == job.stamp:
                    directory.tidy()
                    return Evaluation(directory.path, "skipped", f"done on {made}; --rerun forces", record)
                reporter.message(f"the maps were changed since the evaluation done on {made}: they are scored again")
                rerun = True
            about = environment(torch.device("cpu"))
            yaml = OmegaConf.to_yaml(OmegaConf.create(plain(request)))
            directory.begin(f"# repeat: {request.command()}\n{yaml}", about, fresh=rerun)
            try:
                record = _carry_out(job, about, reporter)
            except Exception as error:
                directory.fail(error, traceback.format_exc())
                raise
            directory.finish(to_json(record))
    return Evaluation(directory.path, "done", "", record)


# --- the evaluation --------------------------------------------------------------------------------------------------


def _carry_out(job: ExternalJob, about: dict[str, Any], reporter: Reporter) -> RunRecord:
    """The story of an evaluation. Every file is whole or absent; `record.json` is the caller's, and comes last."""
    request, info, folder = job.request, job.dataset.info, job.directory.path
    reader = AnnotationReader()
    split = job.splits[request.split]
    classes = None
    if request.logits is not None:
        where = f"{request.dataset['name']}/{request.split}"
        classes = read_logits(request.logits, split.ids, split.labels, info.num_classes, where)

    # score: outcomes at every threshold, in one pass over the files
    frame = Frame(info.resolution_HW, info.has_masks, info.has_boxes)
    parts = {name: _score(job, name, frame, classes, reader, reporter) for name in job.splits}

    # select, and look up the numbers; the reference has none for a crop
    cells: list[Cell] = []
    errors: dict[str, dict[str, int]] = {}
    if request.geometry == "resize":
        levels = {name: each.levels() for name, each in parts.items()}
        save_levels(folder / "levels.npz", levels)
        threshold = None
        if info.has_boxes:
            threshold = choose_threshold(reader, Selector(_selector(job)), levels, Settings(DEFAULT_INTERVAL))
        judged = {
            name: judge_images(name, each, job.splits[name], frame, threshold, reader) for name, each in parts.items()
        }
        write_bytes(folder / "images.csv.gz", outcomes_csv(judged))
        errors = judged[request.split].error_counts()
        cells += compute_cells(levels[request.split], threshold, reader, DEFAULT_INTERVAL, request.split)
        cells += _asked_for(request, levels, reader) if info.has_boxes else []
    if job.convention is not None:
        thresholds = job.convention.thresholds_for(request.dataset["name"], request.backbone)
        outcomes = ConventionOutcomes.of_parts(job.convention, thresholds, split, parts[request.split])
        cells += outcomes.cells(reader, request.split)

    # record
    return RunRecord(
        method=request.method,
        dataset=request.dataset["name"],
        backbone=request.backbone,
        protocol=job.protocol,
        seed=0,
        hash=job.directory.hash,
        config=plain(request),
        cells=cells,
        ledger=_ledger(job, reader),
        cost={"train_seconds": None, "train_images_per_second": None, "eval_images_per_second": None},
        provenance={
            **about,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "method_version": None,
            "weights_sha256": None,
            "data_revision": info.revision,
            "data_fingerprint": job.fingerprint,
            "maps_stamp": job.stamp,
            "maps_sha256": {
                name: hashlib.sha256(each.all("sha256").tobytes()).hexdigest() for name, each in parts.items()
            },
            "logits_sha256": request.logits and file_sha256(request.logits),
        },
        notes=_notes(job, parts),
        errors=errors,
    )


def _selector(job: ExternalJob) -> str:
    """Who chooses the threshold: val where its maps are there."""
    return "val-boxes" if "val" in job.splits else "test-oracle"


def _score(
    job: ExternalJob,
    name: str,
    frame: Frame,
    classes: ClassOutcomes | None,
    reader: AnnotationReader,
    reporter: Reporter,
) -> Parts:
    """Score a split; class scores and another convention belong to the evaluated one, val only chooses a threshold."""
    request = job.request
    own = name == request.split
    scorer = MapScorer(
        name=name,
        split=job.splits[name],
        files=job.files[name],
        kind=request.map_kind,
        frame=frame,
        classes=classes if own else None,
        reader=reader,
        convention=job.convention if own else None,
        geometry=request.geometry,
        dataset=request.dataset["name"],
        backbone=request.backbone,
    )
    parts = Parts(job.directory.partial, name)
    started = time.perf_counter()
    scored = scorer.run(parts, reporter)
    seconds = time.perf_counter() - started
    if scored:
        reporter.message(f"{scored} maps of {name} scored in {seconds:.1f} s ({scored / seconds:.0f} maps/s)")
    return parts


def _asked_for(request: Request, levels: dict[str, Levels], reader: AnnotationReader) -> list[Cell]:
    """The numbers at another --interval or --contours, in columns of their own: the usual ones keep their definition."""
    if (request.interval, request.contours) == (DEFAULT_INTERVAL, "single"):
        return []
    settings = f"({request.contours}, {request.interval:g})"
    evaluated = levels[request.split]
    grid = evaluated.distinct(threshold_grid(request.interval))
    hits_nT = evaluated.hits(grid, 0.5, request.contours)
    oracle = reader.choose_on(request.split, evaluated, f"maximum over thresholds (MaxBoxAcc{settings})")
    value = evaluated.max_box_acc(request.contours, (0.5,), request.interval)
    cells = [Cell(f"MaxBoxAcc{settings}", value, *evaluated.bootstrap(best_of(hits_nT), maximum=value), oracle=oracle)]
    if "val" in levels:
        reader.choose_on("val", levels["val"], f"threshold selection {settings}")
        at = levels["val"].select_threshold(0.5, request.contours, request.interval)
        value = evaluated.gt_known_loc(at, 0.5, request.contours)
        interval = evaluated.bootstrap(mean_of(evaluated.hits(at, 0.5, request.contours)))
        cells.append(Cell(f"GT-known{settings}", value, *interval, threshold=at, threshold_by="val-boxes"))
    return cells


# --- record ----------------------------------------------------------------------------------------------------------

UNKNOWN = "not known: the maps were made elsewhere"


def _ledger(job: ExternalJob, reader: AnnotationReader) -> dict[str, Any]:
    """What touched the numbers, as far as it can be known here."""
    return {
        "training": "elsewhere",
        "labels": {name: len(split) for name, split in job.splits.items()} if job.request.logits else {},
        "optimizer_steps": None,
        "annotations": reader.uses(),
        "val_source": job.dataset.info.val_source or None,
        "checkpoint": UNKNOWN,
        "threshold": _selector(job) if job.dataset.info.has_boxes else None,
        "weights": None,
        "start": None,
        "seeds": [],
        "search": UNKNOWN,
        "test_images": len(job.splits[job.request.split]),
    }


def _notes(job: ExternalJob, parts: dict[str, Parts]) -> list[str]:
    """What a reader of the numbers would otherwise miss."""
    notes = [
        "maps made elsewhere: who trained, and who chose checkpoint and hyper-parameters, is not known",
        *job.warnings,
    ]
    for name, each in parts.items():
        constant = int(each.all("constant").sum())
        if constant:
            first = job.files[name].say(int(each.all("constant").argmax()))
            notes.append(f"{constant} of {len(job.splits[name])} maps of {name} are constant, first {first}")
    return notes
