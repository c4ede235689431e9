"""What a run writes down of itself: everything that touched the numbers, what it cost, and what a reader would miss."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from wsolbench.data.annotations import AnnotationReader
from wsolbench.data.dataset import DatasetInfo
from wsolbench.data.split import Split
from wsolbench.data.subsets import subset_content
from wsolbench.evaluation.threshold import Threshold
from wsolbench.method.base import Method
from wsolbench.method.numerics import numerics_notes
from wsolbench.protocols.search import found_of
from wsolbench.protocols.select import Checkpoint
from wsolbench.record import Ledger
from wsolbench.runs.job import Job
from wsolbench.runs.search import search_notes
from wsolbench.runs.trained import Trained


def drawn(job: Job) -> dict[str, Any] | None:
    """The content of `subset.json`; None where no image was drawn or listed."""
    protocol, subset = job.config.protocol, job.chosen.subset
    per_class = {"train": protocol.shots, "val": protocol.val_per_class}
    ids = {"train": [job.train_split.ids[i] for i in job.indices], "val": list(job.val_split.ids)}
    used = {name: ids[name] for name in ids if per_class[name] is not None or (subset and name in subset.ids)}
    return subset_content(job.dataset.info.revision, job.config.seed, per_class, used) if used else None


def ledger_of(
    job: Job, reader: AnnotationReader, splits: Mapping[str, Split], chosen: Checkpoint, threshold: Threshold | None
) -> Ledger:
    """What touched the numbers."""
    config, info, pseudo, found = job.config, job.dataset.info, job.pseudo, found_of(job.config)
    trained = job.training != "none"
    by_others = job.weights is not None and job.weights["source"] == "timm"  # the embedded ones saw other symbols
    return Ledger(
        training=job.training,
        labels={
            "train": len(job.indices) if trained else 0,
            **{name: len(split) for name, split in splits.items()},  # which class's map is read, and class metrics
        },
        optimizer_steps=job.plan.steps if trained else 0,
        annotations=reader.uses() + (found.annotations if found else []),
        val_source=info.val_source or None,
        checkpoint=chosen.by,
        checkpoint_step=chosen.step if trained else None,
        checkpoints=chosen.candidates,
        threshold=threshold.by if threshold else None,
        weights=job.weights,
        pretraining_overlap=info.imagenet_overlap or None if by_others else None,
        pseudo_boxes={name: getattr(pseudo, name) for name in ("source", "sha256", "external")} if pseudo else None,
        start={"path": config.checkpoint, "sha256": job.identity["checkpoint"]} if config.checkpoint else None,
        seeds=[config.seed],
        search=config.search.found or "none (untuned)",
        test_images=len(splits["test"]),
        **job.chosen.ledger(),
    )


def provenance_of(about: Mapping[str, Any], info: DatasetInfo, fingerprint: str, **made_by: Any) -> dict[str, Any]:
    """Where a record comes from: environment, time, data, and the `method_version` and `weights_sha256` it was made with."""
    return {
        **about,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "method_version": None,
        "weights_sha256": None,
        **made_by,
        "data_revision": info.revision,
        "data_fingerprint": fingerprint,
    }


def notes_of(job: Job, trained: Trained) -> list[str]:
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


def sizes_of(job: Job, method: Method) -> dict[str, float | None]:
    """Parameters of the method, and those of them that the run has trained."""
    parameters = list(method.parameters())
    trainable = sum(each.numel() for each in parameters if each.requires_grad) if job.training != "none" else 0
    return {"parameters": sum(each.numel() for each in parameters), "trainable": trainable}
