"""Optimizer groups: which parameters learn faster, and which decay."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from torch import nn

from wsolbench.config.schema import TrainConfig


def decay_groups(
    named: Iterable[tuple[str, nn.Parameter]],
    train_config: TrainConfig,
    *,
    head: Sequence[str] = ("head", "fc", "classifier.head", "classifier.fc", "classifier.classifier"),
    no_decay: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Split parameters into groups by (is head, has weight decay).

    Parameters whose name starts with an entry of `head` learn at lr * head_lr_scale; 1-d tensors and names in
    `no_decay` get no weight decay.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        is_head = any(name == prefix or name.startswith(prefix + ".") for prefix in head)
        decays = parameter.ndim > 1 and name not in no_decay
        groups.setdefault((is_head, decays), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": train_config.lr * (train_config.head_lr_scale if is_head else 1.0),
            "weight_decay": train_config.weight_decay if decays else 0.0,
        }
        for (is_head, decays), parameters in groups.items()
    ]


def classifier_groups(classifier: nn.Module, train_config: TrainConfig) -> list[dict[str, Any]] | None:
    """Optimizer groups that a network brings with it in `optimizer_groups`, as the `wsol_*` backbones do; None: none.

    >>> classifier_groups(nn.Linear(2, 3), TrainConfig()) is None
    True
    """
    groups = getattr(classifier, "optimizer_groups", None)
    return None if groups is None else cast(list[dict[str, Any]], groups(train_config))
