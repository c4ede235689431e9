"""One optimizer step: the losses of a batch, whole or in parts, their gradients, the update; and whether it went well."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from wsolbench import distributed
from wsolbench.config.schema import Dtype, TrainConfig
from wsolbench.data.ids import images_named
from wsolbench.distributed.batch_norm import statistics_of_all
from wsolbench.errors import WsolbenchError
from wsolbench.method.base import Method
from wsolbench.method.means import Means
from wsolbench.method.numerics import Numerics
from wsolbench.training.replica import Replica, weigh
from wsolbench.types import Batch

LATE = ("cuda",)  # kinds of device that run ahead of the host, which must not wait for them at every step
LEAST_SCALE = 1.0  # a loss scale below it helps nothing: gradients overflow though the loss is hardly scaled


@dataclass(frozen=True)
class Losses:
    """The terms of a step's loss by name, and their sum: scalars on the device, without gradients."""

    terms: dict[str, Tensor]
    sum: Tensor

    def over_processes(self) -> Losses:
        """The losses of the whole batch, where each process has had its share."""
        if distributed.world() == 1:
            return self
        *terms, total = distributed.mean(torch.stack([*self.terms.values(), self.sum])).unbind()
        return Losses(dict(zip(self.terms, terms, strict=True)), total)


class Stepper:
    """Takes optimizer steps in the number format asked for. `scaler` is fp16's loss scale, part of a training's state."""

    def __init__(
        self,
        method: Method,
        optimizer: torch.optim.Optimizer,
        train: TrainConfig,
        numerics: Numerics,
        device: torch.device,
    ) -> None:
        self.method, self.optimizer, self.numerics, self.device = method, optimizer, numerics, device
        self.parts = train.accumulate
        self._call: Replica | None = None
        self.scaler = torch.amp.GradScaler(device.type, enabled=numerics.dtype is Dtype.fp16)

    def gradients(self, batch: Batch, total: int | None = None) -> Losses:
        """Leave the gradients of the batch's loss in the parameters; a batch in parts counts as the mean over its images.

        Among several processes `batch` is this one's share of `total` images: gradients are those of all of them, losses
        are those of the share, weighted so that their mean over the processes is the loss.
        """
        self.optimizer.zero_grad(set_to_none=True)
        total = total or len(batch.ids)
        if self.parts == 1:
            return self._backward(batch, len(batch.ids), total)
        parts = batch.parts(self.parts)
        means = self._means(parts) if self.method.global_losses else None
        found = []
        for part in parts:
            with nullcontext() if means is None else means.passing(len(part.ids) / len(batch.ids)):
                found.append(self._backward(part, len(batch.ids), total, is_last=part is parts[-1]))
        names = dict.fromkeys(name for each in found for name in each.terms)
        terms = {name: _sum([each.terms[name] for each in found if name in each.terms]) for name in names}
        return Losses(terms, _sum([each.sum for each in found]))

    def update(self) -> None:
        """Move the weights; in fp16 only if no gradient overflowed, and the loss scale follows."""
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def scale(self) -> Tensor | None:
        """The loss scale, on the device; None: nothing is scaled."""
        return self.scaler.scale(torch.ones((), device=self.device)) if self.scaler.is_enabled() else None

    def _means(self, parts: list[Batch]) -> Means:
        """What the loss takes over the whole batch, from a first pass that draws what the second will draw."""
        means, state = Means(), _random_state(self.device)
        for part in parts:
            with distributed.turn(), means.passing(), torch.no_grad(), self._forward():
                self.method(part.to(self.device))
        means.complete()
        _draw_again(self.device, state)
        return means

    def _backward(self, part: Batch, share: int, total: int, is_last: bool = True) -> Losses:
        """Gradients of a part's loss, weighted as it counts, added to those that are there; returns the weighted losses.

        `share` and `total` are the images of this process's batch and of all processes'.
        """
        count = len(part.ids)
        if self._call is None:
            self._call = Replica(self.method, self.device)  # here: compiled and laid out by now
        with distributed.turn(), self._forward():
            losses = self._call(part.to(self.device), exchange=is_last)
            losses = weigh(losses, self.method, count * distributed.world() / total, count / share)
        loss = sum(losses.values(), torch.zeros((), device=self.device))
        with self.numerics.products():
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return Losses({name: value.detach() for name, value in losses.items()}, loss.detach())

    @contextmanager
    def _forward(self) -> Iterator[None]:
        with self.numerics.running(self.device), statistics_of_all(self.method):
            yield


def _random_state(device: torch.device) -> list[Tensor]:
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def _draw_again(device: torch.device, state: list[Tensor]) -> None:
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)


def _sum(values: list[Tensor]) -> Tensor:
    return torch.stack(values).sum()


# --- did it go well? -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where in a training a step stands, for a sentence."""

    epoch: int  # from 1
    step: int  # from 1
    ids: list[str]

    def __str__(self) -> str:
        return f"epoch {self.epoch}, step {self.step}, {images_named(self.ids)}"


class StepCheck:
    """Stops a training whose loss is not finite or whose loss scale has collapsed, and tells of steps that fp16 skipped.

    On a CPU it asks at once, before anything is learned from the step. A GPU runs ahead of the host: there the answer is
    copied beside the work and read while the next step runs, or where `settle` is called, before anything is written.
    """

    def __init__(self, device: torch.device, tell: Callable[[str], None], scale: float | None) -> None:
        self.is_late = device.type in LATE
        self._tell, self._scale = tell, scale
        self._waiting: _Answer | None = None

    def before_update(self, place: Place, losses: Losses) -> None:
        """Judge the losses of a step, unless that is done later."""
        if not self.is_late:
            _Answer.ask(place, losses, None).judge()

    def after_update(self, place: Place, losses: Losses, scale: Tensor | None) -> None:
        """Judge what became of the loss scale; on a GPU, judge the step before."""
        answer = None
        if self.is_late or scale is not None:
            answer = _Answer.ask(place, losses, scale)
        if self.is_late:
            answer, self._waiting = self._waiting, answer
        self._judge(answer)

    def settle(self) -> None:
        """Judge what is not judged yet."""
        answer, self._waiting = self._waiting, None
        self._judge(answer)

    def _judge(self, answer: _Answer | None) -> None:
        scale = None if answer is None else answer.judge()
        if answer is None or scale is None:
            return
        if scale < LEAST_SCALE:
            raise WsolbenchError(
                f"the loss scale of fp16 has collapsed to {scale:g} at {answer.place}: gradients overflow at any scale; "
                "take train.dtype=bf16, or a smaller train.lr"
            )
        if self._scale is not None and scale < self._scale:
            self._tell(
                f"fp16: a gradient overflowed at {answer.place}; nothing was learned, the loss scale is {scale:g}"
            )
        self._scale = scale


@dataclass
class _Answer:
    """What was asked of a step; `values` are there once `ready` has happened."""

    place: Place
    names: list[str]
    values: Tensor  # on the CPU: terms of the loss, their sum, then the loss scale if there is one
    ready: torch.cuda.Event | None

    @classmethod
    def ask(cls, place: Place, losses: Losses, scale: Tensor | None) -> _Answer:
        """Start copying what decides, into page-locked memory where it comes from a GPU."""
        asked = [*losses.terms.values(), losses.sum] + ([] if scale is None else [scale])
        values = torch.stack([each.float() for each in asked])
        ready = torch.cuda.Event() if values.is_cuda else None  # type: ignore[no-untyped-call]
        values = values.to("cpu", non_blocking=True)
        if ready is not None:
            ready.record()
        return cls(place, list(losses.terms), values, ready)

    def judge(self) -> float | None:
        """Raise `WsolbenchError` if the loss is not finite; returns the loss scale."""
        if self.ready is not None:
            self.ready.synchronize()
        *terms, loss = self.values[: len(self.names) + 1].tolist()
        if not math.isfinite(loss):
            values = ", ".join(f"{name} {value:g}" for name, value in zip(self.names, terms, strict=True))
            raise WsolbenchError(
                f"the loss is not finite ({values}) at {self.place}; try a smaller train.lr or more train.warmup_steps"
            )
        scale: list[float] = self.values[len(self.names) + 1 :].tolist()
        return scale[0] if scale else None
