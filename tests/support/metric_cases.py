"""One set of inputs for every exported metric class, found by the names of what its `update` takes.

A metric that is added to `wsolbench.metrics` is tested by all of `tests/metrics/test_classes.py` and
`test_distributed.py` without another line, unless it takes an input that is not in `inputs`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torchmetrics import Metric

import wsolbench.metrics
from wsolbench.boxes.maps import normalize_maps
from wsolbench.boxes.scan import boxes_at_threshold

COUNT, SIZE = 12, 12  # images, their pixels a side: with few pixels there are few levels
Inputs = dict[str, Any]


def exported() -> dict[str, type[Metric]]:
    """The metric classes of the package, by name."""
    found = {name: getattr(wsolbench.metrics, name) for name in wsolbench.metrics.__all__}
    return {name: value for name, value in found.items() if inspect.isclass(value) and issubclass(value, Metric)}


_SETTINGS: dict[str, list[dict[str, Any]]] = {
    "GTKnownLoc": [{"threshold": 0.4}, {"threshold": 0.99}],  # 0.99: the last threshold of MaxBoxAcc
    "MaxBoxAcc": [{"contours": "multi"}, {"ious": (0.1, 0.9)}],
    "PIoU": [{"interval": 0.1}],
    "PxAP": [{"interval": 0.1}, {"interval": 0.105}],  # ten thresholds each
    "TopKAccuracy": [{"k": 5}],
    "TopKLoc": [{"k": 5}, {"k": 1, "threshold": 0.4}],
}

MAKERS: dict[str, Callable[[], Metric]] = {
    f"{name}({', '.join(f'{key}={value}' for key, value in settings.items())})": lambda cls=cls, settings=settings: cls(
        **settings
    )
    for name, cls in exported().items()
    for settings in [{}, *_SETTINGS.get(name, [])]
}
"""Each exported class with its defaults, and with settings of interest."""


def inputs() -> Inputs:
    """What the metrics read, `COUNT` images of each; equal in every process."""
    rng = np.random.default_rng(0)
    maps, logits = normalize_maps(rng.random((COUNT, 5, 5)), SIZE), rng.normal(size=(COUNT, 8))
    boxes = [np.sort(rng.integers(0, SIZE, (1 + i % 2, 2, 2)), axis=1).reshape(-1, 4) for i in range(COUNT)]
    labels = rng.integers(0, 8, COUNT)
    for i in range(0, COUNT, 3):  # some right answers, so that no metric is zero throughout
        boxes[i], labels[i] = boxes_at_threshold(maps[i], 0.11 * i), logits[i].argmax()
    return {
        "maps_BHW": torch.from_numpy(maps),
        "boxes": boxes,
        "logits_BK": torch.from_numpy(logits),
        "labels_B": torch.from_numpy(labels),
        "masks_BHW": torch.from_numpy(rng.choice(np.array([0, 1, 255], np.uint8), maps.shape)),
    }


def taken_by(metric: Metric, everything: Mapping[str, Any], keep: Sequence[int] | slice = slice(None)) -> Inputs:
    """What this metric's `update` takes, of some images."""
    names = [name for name in inspect.signature(type(metric).update).parameters if name != "self"]
    indices = range(COUNT)[keep] if isinstance(keep, slice) else keep
    return {
        name: [everything[name][i] for i in indices]
        if isinstance(everything[name], list)
        else everything[name][list(indices)]
        for name in names
    }


def computed(metric: Metric, everything: Mapping[str, Any], batches: Iterable[Sequence[int]]) -> Any:
    """Update with each batch, and compute."""
    for batch in batches:
        metric.update(**taken_by(metric, everything, batch))
    return metric.compute()


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit, types, shapes and dtypes included; NaN equals NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, torch.Tensor):
        return (
            a.dtype == b.dtype and a.shape == b.shape and bool(torch.eq(a, b).logical_or(a.isnan() & b.isnan()).all())
        )
    return bool(a == b)
