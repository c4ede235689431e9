"""A configuration that makes sense: names resolved, data opened, images drawn, identity known; nothing is computed yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from wsolbench.config.schema import RunConfig
from wsolbench.config.selectors import KINDS, LAST, PSEUDO, Selector, Settings
from wsolbench.conventions import Convention
from wsolbench.data.dataset import Dataset
from wsolbench.data.split import Split
from wsolbench.method.base import Method, Training
from wsolbench.protocols.images import Chosen
from wsolbench.protocols.search import Search
from wsolbench.pseudo_boxes.folder import PseudoBoxes
from wsolbench.runs.directory import RunDirectory
from wsolbench.training.plan import TrainingPlan


@dataclass
class Job:
    """A configuration that was found to make sense: names resolved, data opened and drawn, identity known."""

    config: RunConfig
    method_class: type[Method]
    backbone: str | None
    dataset: Dataset
    fingerprint: str
    device: torch.device
    chosen: Chosen
    convention: Convention | None  # scored on test in addition to the reference
    convention_split: Split  # test, with the image content that the convention needs
    checkpoint: Selector
    threshold: Selector
    pseudo: PseudoBoxes | None
    plan: TrainingPlan
    weights: dict[str, Any] | None
    identity: dict[str, Any]
    directory: RunDirectory
    search: Search | None = None  # how the hyper-parameters are chosen, or were
    is_trial: bool = False  # of a search

    @property
    def train_split(self) -> Split:
        return self.chosen.train_split

    @property
    def indices(self) -> list[int]:
        """Training images."""
        return self.chosen.indices

    @property
    def val_split(self) -> Split:
        """Only the images that may be looked at."""
        return self.chosen.val_split

    @property
    def has_snapshots(self) -> bool:
        """The protocol chooses among checkpoints of the training."""
        return self.training != "none" and (self.checkpoint.name != LAST or self.config.protocol.matrix)

    @property
    def shares_training(self) -> bool:
        """The training lies where other runs find it: those that choose another of its checkpoints, trials of a search."""
        is_searched = self.training != "none" and (self.is_trial or self.search is not None)
        return self.has_snapshots or is_searched

    def settings(self, selector: Selector) -> Settings:
        """What a selector's argument means in this run."""
        return selector.settings(self.config.dataset["name"], self.backbone or "-", self.config.evaluate.interval)

    @property
    def convention_thresholds(self) -> tuple[float, ...]:
        """Those of the convention on this data set with this backbone."""
        if self.convention is None:
            return ()
        return self.convention.thresholds_for(self.config.dataset["name"], self.backbone or "-")

    def allowed(self) -> list[Selector]:
        """The selectors that need no threshold given and whose annotation exists: the axes of a protocol matrix."""
        there = {None: True, "test": True, "val": self.val_split.annotated, PSEUDO: self.pseudo is not None}
        return [
            Selector(kind.name, self.pseudo.source if kind.name == PSEUDO and self.pseudo else "")
            for kind in KINDS
            if kind.argument != "threshold" and there[kind.looks_at]
        ]

    @property
    def training(self) -> Training:
        return "none" if self.plan.steps == 0 else self.method_class.training_for(self.backbone)

    def __str__(self) -> str:
        config = self.config
        return (
            f"{config.method['name']} on {config.dataset['name']} "
            f"({self.backbone or '-'}, {config.protocol.name}, seed {config.seed})"
        )


@dataclass(frozen=True)
class Task:
    """What the leader asks the others to take part in: training, or one pass of evaluation over a split."""

    config: RunConfig
    hash: str  # of the run, which all must come to
    split: str | None = None  # None: training
    by_convention: bool = False
