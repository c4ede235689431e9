"""`RunConfig`: everything that decides a run's numbers, composed by Hydra from dataclasses, YAML and overrides.

Every field says itself whether it decides (nothing said: it does) and what its least value is. One that is added later is
`young`: at its default all hashes stay as they were.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from wsolbench.options import STATED, bounded, idle, young


class Optimizer(Enum):
    adamw = "adamw"
    sgd = "sgd"


class Schedule(Enum):
    constant = "constant"
    cosine = "cosine"
    step = "step"


class Dtype(Enum):
    """fp32: as it is; tf32: fp32 whose matrix products round their factors (CUDA); bf16, fp16: autocast."""

    fp32 = "fp32"
    tf32 = "tf32"
    bf16 = "bf16"
    fp16 = "fp16"


class Budget(Enum):
    steps = "steps"
    epochs = "epochs"


class OnBadImage(Enum):
    error = "error"
    skip = "skip"


@dataclass
class TrainConfig:
    """How a network is trained. `steps` (optimizer steps in all) wins over `epochs` where it is given."""

    epochs: int = bounded(30, least=0)
    steps: int | None = bounded(None, least=0)
    batch_size: int = bounded(64, least=1)
    optimizer: Optimizer = Optimizer.adamw
    lr: float = bounded(1e-4, least=0)
    head_lr_scale: float = 1.0
    weight_decay: float = 0.05
    momentum: float = 0.9
    schedule: Schedule = Schedule.constant
    warmup_steps: int = bounded(0, least=0)
    milestones: list[int] = field(default_factory=list)  # epochs at which lr is multiplied by gamma (schedule=step)
    gamma: float = 0.1
    workers: int = idle(0, least=0)
    dtype: Dtype = young(Dtype.fp32)  # of the passes; weights and optimizer stay float32 (docs/speed.md)
    compile: bool = young(False)  # torch.compile the loss
    channels_last: bool = young(False)  # memory layout, for CNNs on a GPU
    accumulate: int = young(1, least=1)  # parts into which a batch is split, one after another in memory
    checkpoint_gradients: bool = idle(False)  # compute activations again in the backward pass


@dataclass
class ProtocolConfig:
    """Training data x checkpoint selector x threshold selector (docs/protocols.md)."""

    name: str = "full"
    shots: int | None = bounded(None, least=1)  # training images per class; None: all
    fraction: float | None = young(None)  # of every class's training images, at least one; None: all
    budget: Budget = Budget.steps  # what a k-shot run shares with the full run: optimizer steps, or epochs
    checkpoint: str = "last"  # who chooses the checkpoint (wsolbench.protocols.select)
    threshold: str = "val-boxes"  # who chooses the threshold
    val_per_class: int | None = bounded(None, least=1)  # boxed val images per class used for selection; None: all
    select_every: int = young(
        1, least=1
    )  # epochs between the checkpoints among which is chosen, from before training on
    pseudo_boxes: str | None = idle(None)  # folder of pseudo-boxes of val, for val-pseudo
    matrix: bool = young(False)  # also score every checkpoint selector with every threshold selector


@dataclass
class DataConfig:
    """Which images of the data set are used. What follows from it is part of a run's identity, not how it was said."""

    on_bad_image: OnBadImage = OnBadImage.error  # skip: leave out images that cannot be read; the record names them
    subset: str | None = None  # file of the images to train on: subset.json of a run, or one id per line


@dataclass
class EvaluateConfig:
    """How maps are made and scored; numbers do not depend on `workers`, `threads` and `save_every`."""

    batch_size: int = bounded(64, least=1)
    interval: float = 0.01  # spacing of the thresholds among which a selector chooses
    convention: str = young("reference")  # whose evaluator scores test too, in columns of its own (docs/metrics.md)
    workers: int = idle(0, least=0)
    threads: int = idle(1, least=1)  # batches of maps that are scored at a time, beside the forward pass
    save_every: float = idle(30.0)  # seconds between saved parts of an unfinished evaluation
    dtype: Dtype = young(Dtype.fp32)  # of the forward pass; maps are scored in float64 whatever it is
    compile: bool = young(False)  # torch.compile the localisation
    channels_last: bool = young(False)  # memory layout, for CNNs on a GPU


@dataclass
class SearchConfig:
    """Hyper-parameter search (`wsolbench.runs.search`): as many trials for every method; without `trials` a run is untuned."""

    trials: int | None = bounded(None, least=1)
    by: str | None = None  # who chooses among the trials (a checkpoint selector); None: the protocol's, else val-boxes
    space: str | None = None  # what is searched: a preset or a file; None: the data set's, else realistic
    found: dict[str, Any] | None = None  # what the search chose, and how: in the config.yaml of a run that searched


@dataclass
class RunConfig:
    """One run: a method on a data set under a protocol, with a seed.

    `method` and `dataset` are {"name": ..., option: value, ...}; their options are those of the plug-in's `Config`.
    """

    method: dict[str, Any]
    dataset: dict[str, Any]
    backbone: str | None = None
    pretrained: bool = True
    checkpoint: str | None = idle(None)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    data: DataConfig = field(default_factory=DataConfig, metadata=STATED)
    search: SearchConfig = field(default_factory=SearchConfig, metadata=STATED)
    seed: int = bounded(0, least=0)
    device: str = idle("auto")
    root: str | None = idle(None)  # where the data set lies
    out: str = idle("results")  # runs are written below out/runs
    track: str | None = idle(None)  # where the run can be watched (wsolbench.runs.track)
    experiment: str | None = idle(None)  # the recipe file the values came from
    recipe: str | None = idle(None)  # and its variant, e.g. paper; None: what the authors' code does
