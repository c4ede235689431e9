"""Number format, compilation and memory layout: what makes a method faster without making it another one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from wsolbench.config import Dtype, EvaluateConfig, TrainConfig

if TYPE_CHECKING:
    from wsolbench.method import Method


__all__ = ["COMPILED", "Dtype", "Numerics", "numerics_notes"]

COMPILED = ("loss", "localize")


@dataclass(frozen=True)
class Numerics:
    """How a method is computed. The default is plain float32, which repeats bit for bit on a CPU."""

    dtype: Dtype = Dtype.fp32
    compile: bool = False
    channels_last: bool = False

    @classmethod
    def of(cls, config: TrainConfig | EvaluateConfig) -> Numerics:
        """What a training or an evaluation is computed with."""
        return cls(config.dtype, config.compile, config.channels_last)

    def __str__(self) -> str:
        """In words; "" for the default.

        >>> str(Numerics(Dtype.bf16, compile=True))
        'bf16, compiled'
        """
        said = {"compiled": self.compile, "channels-last": self.channels_last}
        dtype = [] if self.dtype is Dtype.fp32 else [self.dtype.value]
        return ", ".join(dtype + [word for word, is_so in said.items() if is_so])

    def prepare(self, method: Method) -> None:
        """Lay weights out channels-last and compile `loss` and `localize`, in place; names of the state stay as they are."""
        if self.channels_last:
            method.to(memory_format=torch.channels_last)
        if self.compile:
            method.loss = torch.compile(method.loss)  # type: ignore[method-assign]
            method.localize = torch.compile(method.localize)  # type: ignore[method-assign]

    @contextmanager
    def applied(self, method: Method) -> Iterator[None]:
        """`prepare` the method while the block runs: its training and its evaluation may be computed differently."""
        own = {name: value for name, value in vars(method).items() if name in COMPILED}
        self.prepare(method)
        try:
            yield
        finally:
            for name in COMPILED:
                vars(method).pop(name, None)
            vars(method).update(own)
            if self.channels_last:
                method.to(memory_format=torch.contiguous_format)

    @contextmanager
    def running(self, device: torch.device) -> Iterator[None]:
        """The context for forward passes on `device`: autocast, or TF32 products; what was set before is set after."""
        low = {Dtype.bf16: torch.bfloat16, Dtype.fp16: torch.float16}.get(self.dtype)
        before = torch.get_float32_matmul_precision()
        try:
            if self.dtype is Dtype.tf32:
                torch.set_float32_matmul_precision("high")
            with nullcontext() if low is None else torch.autocast(device.type, low):
                yield
        finally:
            torch.set_float32_matmul_precision(before)


def numerics_notes(train: TrainConfig | None, evaluate: EvaluateConfig) -> list[str]:
    """What a reader of the numbers must know of how they were computed; nothing at the defaults.

    Args:
        train: how the network was trained; None: it was not.
        evaluate: how its maps were made.

    >>> numerics_notes(TrainConfig(dtype=Dtype.bf16, accumulate=4), EvaluateConfig(compile=True))
    ['trained in bf16', 'trained with batches in 4 parts', 'evaluated in fp32, compiled']
    """
    notes = []
    for did, config in (("trained", train), ("evaluated", evaluate)):
        if config is not None and (said := str(Numerics.of(config))):
            notes.append(f"{did} in {said if config.dtype is not Dtype.fp32 else f'fp32, {said}'}")
        if isinstance(config, TrainConfig) and config.accumulate > 1:
            notes.append(f"trained with batches in {config.accumulate} parts")
    return notes
