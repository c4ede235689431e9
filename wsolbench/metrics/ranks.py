"""Where the label stands among the class scores; apart from the metric classes, so that a run need not import torchmetrics."""
# B images, K classes

from __future__ import annotations

import torch
from torch import Tensor


def label_rank(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
    """Return how many classes come before the label's: int64 [B], 0 for the predicted class.

    Ties go to the smaller class index, so the rank is deterministic. A row that holds a NaN ranks nothing: K, after
    every class.

    Raises:
        TypeError: labels are not integers.
        ValueError: shapes are not [B, K] and [B], or a label is not in 0 .. K - 1.

    >>> label_rank(torch.tensor([[0.1, 0.7, 0.7], [0.9, 0.0, 0.0]]), torch.tensor([2, 0])).tolist()
    [1, 0]
    """
    if logits_BK.ndim != 2 or labels_B.shape != logits_BK.shape[:1]:
        raise ValueError(
            f"expected logits [B, K] and labels [B], got {list(logits_BK.shape)} and {list(labels_B.shape)}"
        )
    if labels_B.is_floating_point():
        raise TypeError(f"expected integer labels, got {labels_B.dtype}")
    classes = logits_BK.shape[1]
    labels = labels_B.to(logits_BK.device, torch.int64)[:, None]
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(f"expected labels in 0 .. {classes - 1}, got {int(labels.min())} .. {int(labels.max())}")
    own = logits_BK.gather(1, labels)
    before = torch.arange(classes, device=logits_BK.device) < labels
    rank = ((logits_BK > own) | ((logits_BK == own) & before)).sum(1)
    return torch.where(logits_BK.isnan().any(1), classes, rank)
