"""Run directories made without running anything: a record and the outcomes it was computed from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsolbench.boxes.arrays import LEVELS
from wsolbench.evaluation.levels import IOUS, Levels, save_levels
from wsolbench.record import Cell, Ledger, RunRecord, to_json

IMAGES = 120


def make_levels(skill: float, seed: int, images: int = IMAGES, prefix: str = "test") -> Levels:
    """Outcomes of a method of some skill: each image is correct in a window of levels; images are as hard for everyone."""
    shared, own = np.random.default_rng(99), np.random.default_rng([seed, int(1000 * skill)])
    centre_n = shared.normal(90, 25, images) + own.normal(0, 10, images)
    width_n = np.abs(shared.normal(120 * skill, 40, images) + own.normal(0, 10, images))
    away_nL = np.abs(np.arange(LEVELS) - centre_n[:, None])
    hits = np.stack([np.stack([away_nL < width_n[:, None] * share for share in (1.5, 1, 0.4)], 1)] * 2, 1)
    assert hits.shape == (images, 2, len(IOUS), LEVELS)
    ranks = np.minimum(own.geometric(0.7, images) - 1, 9).astype(np.int32)
    return Levels(
        ids=np.array([f"{prefix}/{i:04}" for i in range(images)]),
        labels=np.zeros(images, np.int32),
        ranks=ranks,
        predictions=ranks,
        qmax=np.full(images, 255, np.uint8),
        otsu=np.full(images, 80, np.uint8),
        packed=np.packbits(hits, axis=-1),
    )


def make_record(
    method: str,
    cells: Sequence[Cell],
    *,
    seed: int = 0,
    dataset: str = "badges",
    backbone: str = "vit",
    protocol: str = "full",
    fingerprint: str = "f00d",
    training: str = "own",
    **options: Any,
) -> RunRecord:
    """A record as the engine writes it, as far as the leaderboard reads it."""
    return RunRecord(
        method=method,
        dataset=dataset,
        backbone=backbone,
        protocol=protocol,
        seed=seed,
        hash="/".join(map(str, (method, backbone, protocol, seed, fingerprint, sorted(options.items())))),
        config={"method": {"name": method, **options}, "dataset": {"name": dataset}, "evaluate": {"interval": 0.01}},
        cells=list(cells),
        ledger=Ledger(training=training, test_images=IMAGES),
        cost={"train_seconds": None if training == "none" else 10.0 + seed, "eval_images_per_second": 100.0},
        provenance={"commit": "c0ffee", "data_fingerprint": fingerprint, "data_revision": "1", "device": "cpu"},
    )


def cells_of(levels: Levels, threshold: float = 0.35) -> list[Cell]:
    """Some of a run's cells, with no intervals that took time to compute."""
    at_val = {"threshold": threshold, "threshold_by": "val-boxes"}
    known = levels.gt_known_loc(threshold)
    return [
        Cell("Top-1 Cls", levels.topk_accuracy(1)),
        Cell("GT-known", known, known - 0.05, known + 0.05, **at_val),
        Cell("Top-1 Loc", levels.topk_loc(1, threshold), **at_val),
        Cell("MaxBoxAcc", levels.max_box_acc(), oracle=True),
        Cell("MaxBoxAccV2", levels.max_box_acc_v2(), oracle=True),
        Cell("BoxAcc area", 0.3),
    ]


def write_run(results: Path, method: str, skill: float, *, seed: int = 0, prefix: str = "test", **more: Any) -> Path:
    """Write record.json and levels.npz of a run of that skill; returns the run directory."""
    levels = make_levels(skill, seed, prefix=prefix)
    record = make_record(method, cells_of(levels), seed=seed, **more)
    names = (
        record.dataset,
        method,
        record.backbone,
        record.protocol,
        record.provenance["data_fingerprint"],
        f"s{seed}",
    )
    folder = results.joinpath("runs", *names)
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(to_json(record))
    save_levels(folder / "levels.npz", {"test": levels})
    return folder
