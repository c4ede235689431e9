"""What a run writes down of itself: everything that touched the numbers, what it cost, and what a reader would miss."""

from __future__ import annotations

from typing import Any

from wsolbench.data.annotations import AnnotationReader
from wsolbench.data.split import Split
from wsolbench.data.subsets import subset_content
from wsolbench.evaluation.threshold import Threshold
from wsolbench.method.base import Method
from wsolbench.method.numerics import numerics_notes
from wsolbench.protocols.select import Checkpoint
from wsolbench.runs.job import Job
from wsolbench.runs.search import search_notes
from wsolbench.runs.trained import Trained


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
