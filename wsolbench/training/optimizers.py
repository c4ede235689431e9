"""The optimizer of a training and its learning rate at every step."""

from __future__ import annotations

import math

import torch

from wsolbench.config.schema import Dtype, Optimizer, Schedule, TrainConfig
from wsolbench.method.base import Method
from wsolbench.training.plan import TrainingPlan


def build_optimizer(method: Method, train: TrainConfig) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov momentum, over the method's own parameter groups."""
    groups = method.param_groups(train)
    for group in groups:
        group.setdefault("lr", train.lr)
        group["base_lr"] = group["lr"]
    # fused, since others ask the device at every step whether a gradient of fp16 overflowed
    fused = True if train.dtype is Dtype.fp16 and next(method.parameters()).is_cuda else None
    if train.optimizer is Optimizer.adamw:
        return torch.optim.AdamW(groups, lr=train.lr, weight_decay=train.weight_decay, fused=fused)
    return torch.optim.SGD(
        groups,
        lr=train.lr,
        momentum=train.momentum,
        weight_decay=train.weight_decay,
        nesterov=train.momentum > 0,
        fused=fused,
    )


def set_lr(optimizer: torch.optim.Optimizer, step: int, plan: TrainingPlan, train: TrainConfig) -> None:
    """Give every group its learning rate of a step (0-based)."""
    factor = lr_factor(step, plan, train)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def lr_factor(step: int, plan: TrainingPlan, train: TrainConfig) -> float:
    """What the learning rate is multiplied by at a step (0-based): a linear warm-up, then the schedule.

    cosine falls from 1 to 0 over the steps after the warm-up; step multiplies by gamma at each milestone epoch.

    >>> plan = TrainingPlan(steps=10, steps_per_pass=5, steps_per_epoch=5)
    >>> lr_factor(0, plan, TrainConfig(warmup_steps=4)), lr_factor(9, plan, TrainConfig())
    (0.25, 1.0)
    """
    if step < train.warmup_steps:
        return (step + 1) / train.warmup_steps
    if train.schedule is Schedule.cosine:
        share = (step - train.warmup_steps) / max(1, plan.steps - train.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * share))
    if train.schedule is Schedule.step:
        passed = sum(step >= milestone * plan.steps_per_epoch for milestone in train.milestones)
        return float(train.gamma**passed)
    return 1.0
