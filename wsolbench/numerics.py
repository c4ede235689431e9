"""Number format, compilation and memory layout: what makes a method faster without making it another one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from wsolbench.config import Dtype

if TYPE_CHECKING:
    from wsolbench.method import Method


__all__ = ["COMPILED", "Dtype", "Numerics"]

COMPILED = ("loss", "localize")


@dataclass(frozen=True)
class Numerics:
    """How a method is computed. The default is plain float32, which repeats bit for bit on a CPU."""

    dtype: Dtype = Dtype.fp32
    compile: bool = False
    channels_last: bool = False

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
