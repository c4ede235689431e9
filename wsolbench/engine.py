"""One run from configuration to record: fit -> evaluate -> select -> record, top to bottom."""

from __future__ import annotations

import hashlib
import json
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from wsolbench.cells import compute_cells
from wsolbench.checkpoint import load_into, read_tensors
from wsolbench.compose import repeat
from wsolbench.config import RunConfig, to_yaml
from wsolbench.convention_scores import ConventionOutcomes
from wsolbench.data import DatasetInfo, Split, stable_seed
from wsolbench.errors import UsageError
from wsolbench.evaluation import Scoring, evaluate
from wsolbench.fit import fit, save_weights, training_cost
from wsolbench.job import Job, Session, open_job
from wsolbench.levels import save_levels
from wsolbench.method import Method, create_method
from wsolbench.outcomes import Geometry, judge_images, outcomes_csv
from wsolbench.protocol import AnnotationReader
from wsolbench.record import RunRecord, read_record, to_json
from wsolbench.registry import METHODS
from wsolbench.rundir import RECORD, RunDirectory, classifier_path, digest, environment, plain, write_bytes, write_json

Status = Literal["done", "skipped", "failed"]


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
            made = (
                f"done on {record.provenance.get('created')} by commit {record.provenance.get('commit') or 'unknown'}"
            )
            return Outcome(job.config, directory.path, "skipped", f"{made}; --rerun forces", record)
        about = environment(job.device)
        directory.begin(to_yaml(job.config), about, fresh=rerun)
        try:
            with _deterministic(job.device):
                record = _carry_out(job, session, about, rerun)
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
    method = _create(config, dataset.info, config.backbone or METHODS.get(record.method).default_backbone)
    if record.ledger["training"] == "own":
        method.load_checkpoint(folder / "last.safetensors")
    elif record.ledger["training"] == "classifier":
        home = folder.parents[3] / "_classifiers" / str(record.provenance["classifier"])
        classifier = method.classifier
        assert isinstance(classifier, nn.Module)
        load_into(classifier, home / "last.safetensors")
    return method.eval()


def _carry_out(job: Job, session: Session, about: dict[str, Any], rerun: bool) -> RunRecord:
    """The story of a run. Every file is whole or absent; `record.json` is the caller's, and comes last."""
    config, info, folder = job.config, job.dataset.info, job.directory.path
    if config.protocol.shots is not None or config.protocol.val_per_class is not None:
        write_json(folder / "subset.json", _drawn(job))

    # fit
    method = _create(config, info, job.backbone)
    fitted = _fit(job, method, session, about, rerun)

    # evaluate: outcomes at every threshold, on the images of val that may be looked at and on test
    splits = {"val": job.val_split, "test": job.dataset.split("test")}
    geometry = Geometry(info.resolution_HW, info.has_masks, info.has_boxes)
    reader = AnnotationReader()
    score = partial(
        evaluate,
        method,
        config=config.evaluate,
        seed=config.seed,
        device=job.device,
        reader=reader,
        folder=job.directory.partial,
        reporter=session.reporter,
    )
    own = Scoring(geometry, convention=job.convention, dataset=config.dataset["name"], backbone=job.backbone or "-")
    same_content = job.convention is not None and job.convention.geometry == info.geometry
    evaluated = {
        "val": score("val", splits["val"], Scoring(geometry)),
        "test": score("test", splits["test"], own if same_content else Scoring(geometry)),
    }
    by_convention = evaluated["test"].parts
    if job.convention is not None and not same_content:  # its maps are of other image content: a pass of its own
        content = job.convention.geometry
        further = score("test", job.convention_split, replace(own, reference=False), kept_as=f"{content}-test")
        by_convention = further.parts
    parts = {name: each.parts for name, each in evaluated.items()}
    levels = {name: each.levels() for name, each in parts.items()}
    save_levels(folder / "levels.npz", levels)

    # select: the checkpoint is the last one; the threshold is chosen by the protocol's selector, if there are boxes
    threshold = None
    if info.has_boxes:
        threshold = reader.choose_threshold(config.protocol.threshold, levels, config.evaluate.interval)

    # record
    at = None if threshold is None else threshold.value
    judged = {name: judge_images(name, each, splits[name], geometry, at, reader) for name, each in parts.items()}
    write_bytes(folder / "images.csv.gz", outcomes_csv(judged))
    cells = compute_cells(levels["test"], threshold, reader, config.evaluate.interval)
    if job.convention is not None:
        thresholds = job.convention.thresholds_for(config.dataset["name"], job.backbone or "-")
        outcomes = ConventionOutcomes.of_parts(job.convention, thresholds, splits["test"], by_convention)
        cells += outcomes.cells(reader)
    speed = {"eval_images_per_second": evaluated["test"].images_per_second}
    return RunRecord(
        method=config.method["name"],
        dataset=config.dataset["name"],
        backbone=job.backbone or "-",
        protocol=config.protocol.name,
        seed=config.seed,
        hash=job.directory.hash,
        config=plain(config),
        cells=cells,
        ledger=_ledger(job, reader, splits),
        cost=fitted.cost | speed | _sizes(job, method),
        provenance={
            **about,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "method_version": job.method_class.version,
            "weights_sha256": job.weights and job.weights["sha256"],
            "data_revision": info.revision,
            "data_fingerprint": job.fingerprint,
            "classifier": fitted.classifier,
        },
        notes=_notes(job, fitted),
        errors=judged["test"].error_counts(),
    )


# --- fit -------------------------------------------------------------------------------------------------------------


def _create(config: RunConfig, info: DatasetInfo, backbone: str | None) -> Method:
    """The method with weights that follow from the seed (and the pretrained ones)."""
    torch.manual_seed(stable_seed("init", config.seed))
    return create_method(
        config.method["name"],
        num_classes=info.num_classes,
        backbone=backbone,
        pretrained=config.pretrained,
        checkpoint=config.checkpoint,
        class_names=info.class_names,
        **{name: value for name, value in config.method.items() if name != "name"},
    )


@dataclass(frozen=True)
class Fitted:
    """What the training cost, whenever it took place; `classifier` names the folder of a shared one."""

    cost: dict[str, float | None]
    classifier: str | None = None
    commits: tuple[str, ...] = ()  # that had a hand in the shared classifier


def _fit(job: Job, method: Method, session: Session, about: dict[str, Any], rerun: bool) -> Fitted:
    """Give the method its trained weights."""
    if job.training == "none":
        return Fitted({"train_seconds": 0.0, "train_images_per_second": None})
    if job.training == "own":
        _train(job, method, method, job.directory, session)
        return Fitted(training_cost(job.directory.path))
    classifier = method.classifier
    assert isinstance(classifier, nn.Module)
    identity = _classifier_identity(job, method, classifier)
    hash = digest(identity)
    home = RunDirectory(classifier_path(job.config.out, job.config.dataset["name"], hash), hash, "classifier.json")
    with home.locked(wait=True):  # whoever comes second reads what the first has trained
        fresh = rerun and home.path not in session.trained
        if fresh or not home.is_done():
            home.begin(to_yaml(job.config), about, fresh=fresh)
        _train(job, method, classifier, home, session)
        if not home.is_done():
            home.finish(json.dumps({"hash": hash, **plain(identity)}, indent=2) + "\n")
        session.trained.add(home.path)
    return Fitted(training_cost(home.path), home.path.name, home.commits())


def _train(job: Job, method: Method, module: nn.Module, home: RunDirectory, session: Session) -> None:
    """Leave the trained weights of `module` in `home` unless they are there, and load them from there."""
    weights = home / "last.safetensors"
    if not weights.is_file():
        fit(
            method,
            job.train_split,
            job.indices,
            job.plan,
            job.config.train,
            seed=job.config.seed,
            device=job.device,
            folder=home.path,
            reporter=session.reporter,
        )
        save_weights(module, home.path)
    module.load_state_dict(read_tensors(weights))


def _classifier_identity(job: Job, method: Method, classifier: nn.Module) -> dict[str, Any]:
    """What decides a shared classifier: all that decides the run but the method and what happens after training.

    The starting weights and the optimizer's groups are part of it, so two methods share a classifier only if they
    would have trained the same one.
    """
    config = job.identity["config"]
    names = {id(parameter): name for name, parameter in classifier.named_parameters()}
    groups = [
        {name: value for name, value in group.items() if name != "params"}
        | {"params": sorted(names[id(parameter)] for parameter in group["params"])}
        for group in method.param_groups(job.config.train)
    ]
    return {
        **{name: job.identity[name] for name in ("data", "weights", "checkpoint", "device")},
        **{name: config[name] for name in ("dataset", "backbone", "pretrained", "train", "seed")},
        "protocol": {name: config["protocol"][name] for name in ("shots", "budget")},
        "start": _state_sha256(classifier),
        "groups": groups,
    }


def _state_sha256(module: nn.Module) -> str:
    state = hashlib.sha256()
    for name, value in module.state_dict().items():
        state.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        state.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
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


def _drawn(job: Job) -> dict[str, Any]:
    """The content of `subset.json`."""
    protocol = job.config.protocol
    content: dict[str, Any] = {"revision": job.dataset.info.revision, "seed": job.config.seed}
    if protocol.shots is not None:
        content["train"] = {"per_class": protocol.shots, "ids": [job.train_split.ids[i] for i in job.indices]}
    if protocol.val_per_class is not None:
        content["val"] = {"per_class": protocol.val_per_class, "ids": list(job.val_split.ids)}
    return content


def _ledger(job: Job, reader: AnnotationReader, splits: dict[str, Split]) -> dict[str, Any]:
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
        "annotations": reader.uses(),
        "val_source": job.dataset.info.val_source or None,  # such as a hold-out from train: its size and seed
        "checkpoint": config.protocol.checkpoint,
        "threshold": config.protocol.threshold if job.dataset.info.has_boxes else None,
        "weights": job.weights,
        "start": config.checkpoint and {"path": config.checkpoint, "sha256": job.identity["checkpoint"]},
        "seeds": [config.seed],
        "search": "none (untuned)",
        "test_images": len(splits["test"]),
    }


def _notes(job: Job, fitted: Fitted) -> list[str]:
    """What a reader of the numbers would otherwise miss."""
    notes = []
    if "pretrained" in job.method_class.needs and job.weights is None and job.config.checkpoint is None:
        name = job.config.method["name"]
        notes.append(f"{name} reads pretrained weights, but the backbone's are random (pretrained=false)")
    commits = dict.fromkeys(fitted.commits + job.directory.commits())
    if len(commits) > 1:
        notes.append(f"several versions of the code had a hand in this run: {', '.join(commits)}")
    return notes


def _sizes(job: Job, method: Method) -> dict[str, float | None]:
    parameters = list(method.parameters())
    trainable = sum(each.numel() for each in parameters if each.requires_grad) if job.training != "none" else 0
    return {"parameters": sum(each.numel() for each in parameters), "trainable": trainable}
