"""`wsolbench evaluate`: maps made by any code, from files to a run record like any other, top to bottom."""
# n images

from __future__ import annotations

import hashlib
import shlex
import time
import traceback
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from wsolbench.boxes import Contours, threshold_grid
from wsolbench.cells import compute_cells
from wsolbench.config import EvaluateConfig, build_dataset_config
from wsolbench.convention_scores import ConventionOutcomes
from wsolbench.conventions import Convention, Geometry, check_convention, get_convention
from wsolbench.data import Dataset, Split, create_dataset
from wsolbench.errors import UsageError, WsolbenchError, unknown
from wsolbench.levels import Levels, best_of, mean_of, save_levels
from wsolbench.logit_files import ClassOutcomes, check_logits_path, read_logits
from wsolbench.map_files import MapFiles, MapKind, find_maps
from wsolbench.map_parts import MapParts
from wsolbench.map_scoring import MapScorer
from wsolbench.outcomes import Geometry as Frame
from wsolbench.outcomes import judge_images, outcomes_csv
from wsolbench.progress import Reporter
from wsolbench.protocol import AnnotationReader
from wsolbench.record import Cell, RunRecord, read_record, to_json
from wsolbench.registry import DATASETS
from wsolbench.rundir import RunDirectory, digest, environment, file_sha256, plain, run_path, write_bytes

VERSION = 1  # moves when the same maps would give other numbers
DEFAULT_INTERVAL = EvaluateConfig().interval


@dataclass(frozen=True)
class Request:
    """What is to be scored and how: the flags of `wsolbench evaluate`."""

    maps: str  # folder or .npz
    dataset: dict[str, Any]  # {"name": ..., option: value}
    root: str | None = None
    split: str = "test"
    logits: str | None = None
    map_kind: MapKind = "score"
    convention: str = "reference"
    geometry: Geometry = "resize"
    interval: float = DEFAULT_INTERVAL
    contours: Contours = "single"
    name: str | None = None  # of the method; default: that of the folder or .npz
    backbone: str = "-"
    val_maps: str | None = None
    out: str = "results"

    @property
    def method(self) -> str:
        path = Path(self.maps).resolve()
        return self.name or (path.stem if path.suffix == ".npz" else path.name)

    def command(self) -> str:
        """The command line that repeats it."""
        words = ["wsolbench", "evaluate", "--dataset", self.dataset["name"]]
        for flag, default in Request(self.maps, self.dataset).__dict__.items():
            value = getattr(self, flag)
            if flag == "maps" or (flag != "dataset" and value != default):
                words += [f"--{flag.replace('_', '-')}", str(value)]
        return shlex.join(words)


@dataclass(frozen=True)
class Evaluation:
    """What became of a request. `status` is "done" or "skipped"."""

    directory: Path
    status: str
    reason: str
    record: RunRecord


@dataclass
class _Job:
    """A request that was found to make sense: data opened, every map found, identity known; nothing is scored yet."""

    request: Request
    dataset: Dataset
    fingerprint: str
    splits: dict[str, Split]
    files: dict[str, MapFiles]
    convention: Convention | None  # beside the reference
    protocol: str
    directory: RunDirectory
    warnings: list[str]

    @property
    def stamp(self) -> str:
        """Changes when any map file does: names, sizes and times, since reading 20 GB to find out takes as long as scoring."""
        return digest({name: files.stamp() for name, files in self.files.items()})


def evaluate_maps(request: Request, *, rerun: bool = False, reporter: Reporter | None = None) -> Evaluation:
    """Score maps that lie in files; a finished evaluation of the same, unchanged files is skipped unless `rerun`.

    Raises:
        UsageError: the request makes no sense; nothing was started.
        WsolbenchError: a map is missing or cannot be scored; what was scored before it is kept for the next call.
        KeyboardInterrupt: after saving; the same call resumes.
    """
    reporter = reporter or Reporter()
    with reporter.live():
        job = _open(request)
        for sentence in job.warnings:
            reporter.message(f"warning: {sentence}")
        directory = job.directory
        with directory.locked():
            if directory.is_done() and not rerun:
                record = read_record(directory / directory.done)
                made = f"{record.provenance.get('created')} by commit {record.provenance.get('commit') or 'unknown'}"
                if record.provenance.get("maps_stamp") == job.stamp:
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


# --- before anything is scored ---------------------------------------------------------------------------------------


def _open(request: Request) -> _Job:
    """Open the data and find every map."""
    _check(request)
    convention = get_convention(request.convention)
    check_convention(convention, map_kind=request.map_kind, geometry=request.geometry)
    name, options = request.dataset["name"], {k: v for k, v in request.dataset.items() if k != "name"}
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = create_dataset(name, root=request.root, **options)
        fingerprint = dataset.fingerprint()
        wanted = {request.split: request.maps} | ({"val": request.val_maps} if request.val_maps else {})
        splits = {split: dataset.split(split) for split in wanted}
    said += dict.fromkeys(str(each.message) for each in caught if issubclass(each.category, UserWarning))
    if convention.name != "reference" and not dataset.info.has_boxes:
        raise UsageError(f"convention '{convention.name}' compares boxes, but {name} has masks and no boxes")
    files = {split: find_maps(path, splits[split].ids, f"{name}/{split}") for split, path in wanted.items()}
    for split, found in files.items():
        if found.extra:
            said.append(
                f"{len(found.extra)} maps in '{wanted[split]}' belong to no image of {name}/{split}, first "
                f"'{found.extra[0]}'; they are left out"
            )
        if dataset.info.has_boxes or dataset.info.has_masks:
            truth = splits[split].annotation(splits[split].ids[0])
            if truth.boxes_N4 is None and truth.mask_HW is None:
                raise WsolbenchError(f"the images of {name}/{split} have neither boxes nor masks to compare maps with")
    numbers = ("split", "map_kind", "convention", "geometry", "interval", "contours")
    hash = digest(
        {
            "external": VERSION,
            "method": request.method,
            "backbone": request.backbone,
            "dataset": plain(build_dataset_config(DATASETS.get(name), name, options)) | {"name": name},
            "data": fingerprint,
            "maps": {split: str(Path(path).resolve()) for split, path in wanted.items()},
            "logits": request.logits and file_sha256(request.logits),
            **{number: getattr(request, number) for number in numbers},
        }
    )
    protocol = "external" if request.split == "test" else f"external-{request.split}"
    directory = RunDirectory(run_path(request.out, name, request.method, request.backbone, protocol, 0, hash), hash)
    emulated = None if convention.name == "reference" else convention
    return _Job(request, dataset, fingerprint, splits, files, emulated, protocol, directory, said)


def _check(request: Request) -> None:
    for flag, value, known in (
        ("split", request.split, ("val", "test")),
        ("map-kind", request.map_kind, ("score", "raw")),
        ("geometry", request.geometry, ("resize", "centre-crop")),
        ("contours", request.contours, ("single", "multi")),
    ):
        if value not in known:
            raise unknown(f"--{flag}", value, known)
    if request.logits is not None:
        check_logits_path(request.logits)
    if not 0 < request.interval < 1:
        raise UsageError(f"--interval {request.interval}: expected a step between thresholds in (0, 1), e.g. 0.001")
    if request.val_maps and request.split == "val":
        raise UsageError("--val-maps choose the threshold for --split test: leave them out with --split val")
    if request.val_maps and request.geometry != "resize":
        raise UsageError("--val-maps choose the reference's threshold, which needs --geometry resize")
    if not request.method.strip("."):
        raise UsageError(f"'{request.maps}' gives the method no name: say one with --name NAME")


# --- the evaluation --------------------------------------------------------------------------------------------------


def _carry_out(job: _Job, about: dict[str, Any], reporter: Reporter) -> RunRecord:
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
            threshold = reader.choose_threshold(_selector(job), levels, DEFAULT_INTERVAL)
        at = None if threshold is None else threshold.value
        judged = {name: judge_images(name, each, job.splits[name], frame, at, reader) for name, each in parts.items()}
        write_bytes(folder / "images.csv.gz", outcomes_csv(judged))
        errors = judged[request.split].error_counts()
        cells += compute_cells(levels[request.split], threshold, reader, DEFAULT_INTERVAL, request.split)
        cells += _asked_for(request, levels, reader) if info.has_boxes else []
    if job.convention is not None:
        cells += _convention_outcomes(job.convention, request, split, classes, parts[request.split]).cells()

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


def _selector(job: _Job) -> str:
    """Who chooses the threshold: val where its maps are there."""
    return "val-boxes" if "val" in job.splits else "test-oracle"


def _score(
    job: _Job, name: str, frame: Frame, classes: ClassOutcomes | None, reader: AnnotationReader, reporter: Reporter
) -> MapParts:
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
    parts = MapParts(job.directory.partial, name)
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
    cells = [Cell(f"MaxBoxAcc{settings}", value, *evaluated.bootstrap(best_of(hits_nT)), oracle=oracle)]
    if "val" in levels:
        reader.choose_on("val", levels["val"], f"threshold selection {settings}")
        at = levels["val"].select_threshold(0.5, request.contours, request.interval)
        value = evaluated.gt_known_loc(at, 0.5, request.contours)
        interval = evaluated.bootstrap(mean_of(evaluated.hits(at, 0.5, request.contours)))
        cells.append(Cell(f"GT-known{settings}", value, *interval, threshold=at, threshold_by="val-boxes"))
    return cells


def _convention_outcomes(
    convention: Convention, request: Request, split: Split, classes: ClassOutcomes | None, parts: MapParts
) -> ConventionOutcomes:
    return ConventionOutcomes(
        convention,
        convention.thresholds_for(request.dataset["name"], request.backbone),
        np.array(split.ids, np.str_),
        split.labels.astype(np.int32),
        np.full(len(split), -1, np.int32) if classes is None else classes.ranks,
        parts.all("convention_boxes"),
        parts.all("convention_iou"),
    )


# --- record ----------------------------------------------------------------------------------------------------------

UNKNOWN = "not known: the maps were made elsewhere"


def _ledger(job: _Job, reader: AnnotationReader) -> dict[str, Any]:
    """What touched the numbers, as far as it can be known here."""
    return {
        "training": "elsewhere",
        "labels": {name: len(split) for name, split in job.splits.items()} if job.request.logits else {},
        "optimizer_steps": None,
        "annotations": reader.uses(),
        "checkpoint": UNKNOWN,
        "threshold": _selector(job) if job.dataset.info.has_boxes else None,
        "weights": None,
        "start": None,
        "seeds": [],
        "search": UNKNOWN,
        "test_images": len(job.splits[job.request.split]),
    }


def _notes(job: _Job, parts: dict[str, MapParts]) -> list[str]:
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
