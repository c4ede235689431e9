"""One method on images at hand, timed for who asks in Python: nothing is printed or written."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from wsolbench.config.schema import TrainConfig
from wsolbench.method.base import Method
from wsolbench.method.numerics import Numerics
from wsolbench.profile.device import synchroniser
from wsolbench.profile.rows import Measurement, timed, under
from wsolbench.profile.timing import time_in_turns
from wsolbench.profile.work import LOCALIZE, PLAIN, prepare, sizes_of, subject_of
from wsolbench.types import Batch


def measure(
    method: Method,
    images_BCHW: Tensor,
    labels_B: Tensor | None = None,
    *,
    work: str = LOCALIZE,
    train: TrainConfig | None = None,
    numerics: Numerics = PLAIN,
    repeats: int = 200,
    seconds: float = 3.0,
) -> Measurement:
    """Time "localize" or "train" of one method on given images (on their device); prints and writes nothing.

    Args:
        labels_B: classes whose maps are wanted and trained on; zeros where not given.
        numerics: is prepared in place: compiling and another layout stay with the method.
        repeats: timed calls at most.
        seconds: time spent in timed calls, about; at least three are made.
    """
    count = len(images_BCHW)
    labels_B = torch.zeros(count, dtype=torch.int64, device=images_BCHW.device) if labels_B is None else labels_B
    batch = Batch([str(index) for index in range(count)], images_BCHW, labels_B)
    prepare(method, numerics)
    subject = subject_of(method, work, batch, train or TrainConfig(), numerics)
    time_in_turns({0: subject}, repeats=repeats, seconds=seconds, synchronise=synchroniser(images_BCHW.device))
    height, width = images_BCHW.shape[-2:]
    name = str(getattr(method, "registered_name", type(method).__name__))
    parameters, trainable = sizes_of(method)
    blank = Measurement(name, method.backbone or "-", work, count, f"{height}x{width}")
    blank = under(blank, numerics)
    return timed(replace(blank, parameters=parameters, trainable=trainable), subject)
