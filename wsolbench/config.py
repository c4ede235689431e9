"""`RunConfig`: everything that decides a run's numbers, composed by Hydra from dataclasses, YAML and overrides."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from wsolbench.errors import UsageError, unknown


class Optimizer(Enum):
    adamw = "adamw"
    sgd = "sgd"


class Schedule(Enum):
    constant = "constant"
    cosine = "cosine"
    step = "step"


class Budget(Enum):
    steps = "steps"
    epochs = "epochs"


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


@dataclass
class ProtocolConfig:
    """Training data x checkpoint selector x threshold selector (DESIGN: semantics of a protocol)."""

    name: str = "full"
    shots: int | None = None  # training images per class; None: all
    budget: Budget = Budget.steps  # what a k-shot run shares with the full run: optimizer steps, or epochs
    checkpoint: str = "last"  # who chooses the checkpoint
    threshold: str = "val-boxes"  # who chooses the threshold: val-boxes | test-oracle
    val_per_class: int | None = None  # boxed val images per class used for selection; None: all


@dataclass
class EvaluateConfig:
    """How maps are made and scored; numbers do not depend on `workers`, `threads` and `save_every`."""

    batch_size: int = 64
    interval: float = 0.01  # spacing of the thresholds among which a selector chooses
    workers: int = 0
    threads: int = 1
    save_every: float = 30.0  # seconds between saved parts of an unfinished evaluation


@dataclass
class RunConfig:
    """One run: a method on a data set under a protocol, with a seed.

    `method` and `dataset` are {"name": ..., option: value, ...}; their options are those of the plug-in's `Config`.
    """

    method: dict[str, Any]
    dataset: dict[str, Any]
    backbone: str | None = None
    pretrained: bool = True
    checkpoint: str | None = None
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    seed: int = 0
    device: str = "auto"
    root: str | None = None  # where the data set lies
    out: str = "results"  # runs are written below out/runs
    experiment: str | None = None  # the recipe file the values came from


def _filled(config_class: type[Any], owner: str, values: dict[str, Any]) -> Any:
    known = OmegaConf.structured(config_class)
    for key in values:
        if key not in known:
            raise unknown(f"option of {owner}", key, list(known))
    try:
        return OmegaConf.to_object(OmegaConf.merge(known, values))
    except OmegaConfBaseException as error:
        raise UsageError(f"option of {owner}: {str(error).splitlines()[0]}") from error


def build_method_config(cls: type[Any], name: str, values: dict[str, Any]) -> Any:
    """The method's Config with `values` set; unknown keys are errors with suggestions."""
    return _filled(cls.Config, f"method '{name}'", values)


def build_dataset_config(cls: type[Any], name: str, values: dict[str, Any]) -> Any:
    """The data set's Config with `values` set; unknown keys are errors with suggestions."""
    return _filled(cls.Config, f"data set '{name}'", values)
