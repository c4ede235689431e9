"""The prediction of a batch, on its way from the device: nothing waits for it until it is scored."""
# B batch, C channels, H W image, h w raw map, K classes

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from wsolbench.errors import WsolbenchError
from wsolbench.method.base import Method
from wsolbench.method.numerics import Numerics
from wsolbench.types import Batch, Prediction


@dataclass(frozen=True)
class Located:
    """A prediction on its way to the CPU: it is there once `wait` has returned, which says how long it took."""

    prediction: Prediction
    started: Moment
    done: Moment

    def wait(self) -> float:
        """Seconds from the beginning of the forward pass to the maps on the CPU."""
        return self.done.seconds_since(self.started)


def localize(method: Method, batch: Batch, numerics: Numerics, device: torch.device) -> Located:
    """Begin the prediction of a batch; on a GPU nothing here waits for it."""
    moved = batch.to(device)
    started = Moment(device)
    with numerics.running(device), nullcontext() if "gradients" in type(method).needs else torch.inference_mode():
        answer = method.localize(moved.images_BCHW, moved.labels_B)
    maps, logits = answer.maps_Bhw, answer.logits_BK
    if maps.ndim != 3 or len(maps) != len(batch.ids):
        raise WsolbenchError(
            f"{type(method).__name__}.localize answered maps of shape {list(maps.shape)} for {len(batch.ids)} images; "
            "expected [B, h, w]"
        )
    sent = Prediction(None if logits is None else _send(logits), _send(maps))
    return Located(sent, started, Moment(device))


def _send(values: Tensor) -> Tensor:
    """Start copying to the CPU; from a GPU into page-locked memory, where values are once its work so far is done."""
    return values.detach().float().to("cpu", non_blocking=True)


class Moment:
    """A point in a device's work."""

    def __init__(self, device: torch.device) -> None:
        self._event: torch.cuda.Event | None = None
        self._time = time.perf_counter()
        if device.type == "cuda":
            self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            self._event.record()

    def seconds_since(self, before: Moment) -> float:
        """How long the work in between took; waits until it is done."""
        if self._event is None or before._event is None:
            return self._time - before._time
        self._event.synchronize()
        return float(before._event.elapsed_time(self._event)) / 1000
