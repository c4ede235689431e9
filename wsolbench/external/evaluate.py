"""`wsolbench evaluate`: maps made by any code, from files to a run record like any other, top to bottom."""
# n images

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from wsolbench.boxes.maps import threshold_grid
from wsolbench.config.selectors import Selector, Settings
from wsolbench.data.annotations import AnnotationReader
from wsolbench.evaluation.by_convention import ConventionOutcomes
from wsolbench.evaluation.cells import convention_cells
from wsolbench.evaluation.frame import Frame
from wsolbench.evaluation.levels import Levels
from wsolbench.evaluation.parts import Parts
from wsolbench.evaluation.resampling import best_of, mean_of
from wsolbench.external.job import DEFAULT_INTERVAL, ExternalJob, Request, open_request
from wsolbench.external.logit_files import ClassOutcomes, read_logits
from wsolbench.external.scoring import MapScorer
from wsolbench.record import ELSEWHERE, Cell, Ledger, RunRecord
from wsolbench.runs.directory import carry_out
from wsolbench.runs.ledger import provenance_of
from wsolbench.runs.verdict import Scored, judge
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

        def is_stale(record: RunRecord, made: str) -> bool:
            if record.provenance.get("maps_stamp") == job.stamp:
                return False
            reporter.message(f"the maps were changed since the evaluation done on {made}: they are scored again")
            return True

        yaml = OmegaConf.to_yaml(OmegaConf.create(plain(request)))
        carried = carry_out(
            job.directory,
            lambda about, fresh: _carry_out(job, about, reporter),
            config_yaml=f"# repeat: {request.command()}\n{yaml}",
            device=torch.device("cpu"),
            rerun=rerun,
            is_stale=is_stale,
        )
    return Evaluation(job.directory.path, carried.status, carried.reason, carried.record)


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
        scored = {name: Scored(job.splits[name], frame, each) for name, each in parts.items()}
        selector, settings = Selector(_selector(job)), Settings(DEFAULT_INTERVAL)
        verdict = judge(folder, scored, reader, selector, settings, has_boxes=info.has_boxes, evaluated=request.split)
        cells, errors = verdict.cells, verdict.errors
        cells += _asked_for(request, verdict.levels, reader) if info.has_boxes else []
    if job.convention is not None:
        outcomes = ConventionOutcomes.of_parts(job.convention, job.thresholds, split, parts[request.split])
        cells += convention_cells(outcomes, reader, request.split)

    # record
    made_of = {name: hashlib.sha256(each.all("sha256").tobytes()).hexdigest() for name, each in parts.items()}
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
        provenance=provenance_of(about, info, job.fingerprint)
        | {
            "maps_stamp": job.stamp,
            "maps_sha256": made_of,
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
        thresholds=job.thresholds,
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


def _ledger(job: ExternalJob, reader: AnnotationReader) -> Ledger:
    """What touched the numbers, as far as it can be known here."""
    return Ledger(
        training=ELSEWHERE,
        labels={name: len(split) for name, split in job.splits.items()} if job.request.logits else {},
        annotations=reader.uses(),
        val_source=job.dataset.info.val_source or None,
        checkpoint=UNKNOWN,
        threshold=_selector(job) if job.dataset.info.has_boxes else None,
        search=UNKNOWN,
        test_images=len(job.splits[job.request.split]),
    )


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
