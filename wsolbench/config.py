"""`RunConfig`: everything that decides a run's numbers, composed by Hydra from dataclasses, YAML and overrides."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Optimizer(Enum):
    adamw = "adamw"
    sgd = "sgd"


class Schedule(Enum):
    constant = "constant"
    cosine = "cosine"
    step = "step"


@dataclass
class TrainConfig:
    """How a network is trained. `steps` (optimizer steps in all) wins over `epochs` where it is given."""

    epochs: int = 30
    steps: int | None = None
    batch_size: int = 64
    optimizer: Optimizer = Optimizer.adamw
    lr: float = 1e-4
    head_lr_scale: float = 1.0
    weight_decay: float = 0.05
    momentum: float = 0.9
    schedule: Schedule = Schedule.constant
    warmup_steps: int = 0
    milestones: list[int] = field(default_factory=list)  # epochs at which lr is multiplied by gamma (schedule=step)
    gamma: float = 0.1
    workers: int = 0


def build_method_config(cls: type[Any], name: str, values: dict[str, Any]) -> Any:
    """The method's Config with `values` set; unknown keys are errors with suggestions."""
    raise NotImplementedError


def build_dataset_config(cls: type[Any], name: str, values: dict[str, Any]) -> Any:
    """The data set's Config with `values` set; unknown keys are errors with suggestions."""
    raise NotImplementedError
