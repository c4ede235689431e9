"""Finished runs for pages, made without running anything; importing this module registers their data set and method.

Names are hostile: what a data set calls its classes and images must never become markup.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from board_cases import cells_of, make_levels, make_record
from torch import Tensor

from wsolbench.config.saved import to_yaml
from wsolbench.config.schema import RunConfig
from wsolbench.data.dataset import Dataset, DatasetInfo
from wsolbench.data.split import Split
from wsolbench.evaluation.levels import save_levels
from wsolbench.method.base import Untrained
from wsolbench.record import Cell, to_json
from wsolbench.registry import register_dataset, register_method
from wsolbench.types import Annotation, Prediction, Sample

SIDE = 32
HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "{{ 7 * 7 }}", "plain & simple")
ERRORS = ("hit", "part", "more", "several instances", "wrong place")


def image_id(at: int) -> str:
    """Every fifth id closes the script in which it is stored."""
    return f"test/{at:05}" + "</script><b>" * (at % 5 == 4)


class HostileSplit(Split):
    def __init__(self, count: int) -> None:
        self.ids = [image_id(at) for at in range(count)]
        self.labels = np.arange(count, dtype=np.int64) % len(HOSTILE)

    def sample(self, index: int, augment: torch.Generator | None) -> Sample:
        image_CHW = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(index))
        return Sample(self.ids[index], image_CHW, int(self.labels[index]))

    def annotation(self, id: str) -> Annotation:
        return Annotation(id, (SIDE, SIDE), np.array([[4, 6, 20, 26]], np.int64))


class HostileData(Dataset):
    @dataclass
    class Config:
        count: int = 60

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo("Hostile", "-", "-", "1", HOSTILE, (SIDE, SIDE), {"test": self.config.count})

    def split(self, name: str) -> Split:
        return HostileSplit(self.config.count if name == "test" else len(HOSTILE))


class Corner(Untrained):
    """A map that falls off from one corner."""

    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Prediction:
        ramp = torch.linspace(1, 0, SIDE)
        return Prediction(None, (ramp[:, None] * ramp).expand(len(images_BCHW), -1, -1))


register_dataset("hostile")(HostileData)
register_method("corner")(Corner)


def write_case(
    results: Path,
    method: str,
    skill: float,
    *,
    seed: int = 0,
    images: int = 60,
    config: bool = False,
    boxes: bool = True,
    **more: Any,
) -> Path:
    """Write record, outcomes and per-image outcomes of one run on the hostile data set; returns its directory.

    Without `boxes` the outcomes per image are those of data that have masks alone. `config`: also what `load_run` needs, so that its maps can be computed; the method then must be registered.
    """
    levels = replace(make_levels(skill, seed, images), ids=np.array([image_id(at) for at in range(images)]))
    levels = replace(levels, labels=(np.arange(images) % len(HOSTILE)).astype(np.int32))
    random = np.random.default_rng([seed, int(1000 * skill)])
    iou_n = np.clip(random.normal(skill, 0.2, images), 0, 1)
    codes = np.where(iou_n >= 0.5, 0, random.integers(1, 5, images))
    counts = {name: int((codes == code).sum()) for code, name in enumerate(ERRORS)}
    record = make_record(method, cells_of(levels), seed=seed, dataset="hostile", **more)
    record.config["dataset"] |= {"count": images}
    record.errors = {"GT-known": counts}
    record.matrix = [
        Cell("GT-known", skill, threshold_by=by, checkpoint_by="last", oracle=by == "test-oracle")
        for by in ("otsu", "val-boxes", "test-oracle")
    ]
    folder = results.joinpath("runs", "hostile", method.strip("<>/"), record.backbone, record.protocol, f"s{seed}")
    folder.mkdir(parents=True)
    if config:
        run = RunConfig({"name": method}, {"name": "hostile", "count": images}, seed=seed)
        (folder / "config.yaml").write_text(to_yaml(run))
    lines = ["split,id,label,prediction,rank,iou,x0,y0,x1,y1,hit,location,error"]
    for at in range(images):
        error = ERRORS[codes[at]]
        row = (at % len(HOSTILE), (at + 1) % len(HOSTILE), 1, f"{iou_n[at]:.6f}", 2, 3, 18, 24, int(iou_n[at] >= 0.5))
        rest = (*map(str, row), error, error) if boxes else (*map(str, row[:3]), *[""] * 8)
        lines.append(f"test,{image_id(at)},{','.join(rest)}")
    with gzip.open(folder / "images.csv.gz", "wt", compresslevel=1) as file:
        file.write("\n".join(lines) + "\n")
    save_levels(folder / "levels.npz", {"test": levels})
    (folder / "record.json").write_text(to_json(record))
    return folder
