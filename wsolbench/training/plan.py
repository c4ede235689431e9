"""How many optimizer steps a run takes."""

from __future__ import annotations

from dataclasses import dataclass

from wsolbench.config.schema import Budget, TrainConfig
from wsolbench.data.loading import steps_per_epoch


@dataclass(frozen=True)
class TrainingPlan:
    """How many optimizer steps a run takes.

    `steps` in all; `steps_per_pass` over the run's own images; `steps_per_epoch` is the unit of `train.epochs` and
    `train.milestones`: an epoch of the full data where steps are shared with the full run.
    """

    steps: int
    steps_per_pass: int
    steps_per_epoch: int


def training_plan(train: TrainConfig, budget: Budget, images: int, full_images: int) -> TrainingPlan:
    """Count the optimizer steps of a run on `images` of `full_images` training images.

    Budget.steps (default) gives a few-shot run as many steps as the full run, Budget.epochs as many passes over its
    images. A part batch is dropped unless it is the only one. `train.steps` wins over both.

    >>> training_plan(TrainConfig(epochs=3, batch_size=8), Budget.steps, images=5, full_images=40)
    TrainingPlan(steps=15, steps_per_pass=1, steps_per_epoch=5)
    >>> training_plan(TrainConfig(epochs=3, batch_size=8), Budget.epochs, images=5, full_images=40).steps
    3
    """
    per_pass = steps_per_epoch(images, train.batch_size)
    per_epoch = steps_per_epoch(full_images, train.batch_size) if budget is Budget.steps else per_pass
    return TrainingPlan(train.epochs * per_epoch if train.steps is None else train.steps, per_pass, per_epoch)
