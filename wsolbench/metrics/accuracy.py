"""Top-k classification accuracy: counted by torchmetrics, ranked as everywhere in this package."""
# B images, K classes

from __future__ import annotations

from typing import Any, TypedDict

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy

from wsolbench.metrics.maxboxacc import SummedMetric
from wsolbench.metrics.ranks import label_rank


class AccuracyResult(TypedDict):
    """What `TopKAccuracy` computes. A classifier's accuracy has no threshold, so there is no curve."""

    value: float  # fraction in [0, 1]
    hits: int
    count: int


class TopKAccuracy(SummedMetric, MulticlassAccuracy):  # type: ignore[misc]  # theirs annotate one name in two ways
    """Share of images whose label is among the k highest logits: torchmetrics' `MulticlassAccuracy`, micro average.

    Shapes: `update(logits_BK, labels_B)`. `compute()` returns an `AccuracyResult`.

    Who is among the k highest is said by `label_rank`, so that this number and `TopKLoc` cannot disagree: ties go to
    the smaller class index, and a row with a NaN names no class. torchmetrics leaves both to `torch.topk`, which
    promises no order of ties and takes NaN for the largest; without ties and NaN its `top_k` gives the same number.

    Args:
        k: how many classes may be named.
        kwargs: passed to `torchmetrics.Metric`.

    >>> metric = TopKAccuracy(k=2)
    >>> metric.update(torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), torch.tensor([1, 2]))
    >>> metric.compute()
    {'value': 0.5, 'hits': 1, 'count': 2}
    """

    def __init__(self, k: int = 1, **kwargs: Any) -> None:
        if k < 1:
            raise ValueError(f"expected k >= 1, got {k}")
        # two "classes": the label was named, or it was not; every target is 1
        super().__init__(num_classes=2, average="micro", validate_args=False, **kwargs)
        self.k = k
        self.set_apart(k)

    def update(self, logits_BK: Tensor, labels_B: Tensor) -> None:
        """Add images: class logits [B, K] and integer labels [B]."""
        named_B = (label_rank(logits_BK, labels_B) < min(self.k, logits_BK.shape[1])).long()
        if len(named_B):  # torchmetrics cannot reshape an empty batch
            super().update(named_B, torch.ones_like(named_B))

    def compute(self) -> AccuracyResult:  # type: ignore[override]  # a typed dict, as all metrics of this package
        """Return the accuracy, and the counts it was read from."""
        hits, _, _, misses = self._final_state()
        count = int(hits + misses)
        if not count:
            raise RuntimeError("expected at least one image before the metric is computed: call update first")
        return {"value": int(hits) / count, "hits": int(hits), "count": count}
