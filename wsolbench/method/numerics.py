"""Number format, compilation and memory layout: what makes a method faster without making it another one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from wsolbench.config.schema import Dtype, EvaluateConfig, TrainConfig
from wsolbench.errors import WsolbenchError

if TYPE_CHECKING:
    from wsolbench.method.base import Method
    from wsolbench.types import Batch


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
        """Lay out weights and images channels-last, compile `loss` and `localize`; in place, and state names stay as they are.

        Channels-last is for convolutional networks: a method on timm's VisionTransformer keeps its layout. Images need not
        be laid out before the call. `localize` of a method that needs gradients at test time is not compiled: hooks and
        `autograd.grad` are beyond torch.compile; its `loss` is. Where Python stands in the way of one graph, torch takes
        several: that costs speed, not the answer.
        """
        loss, localize = method.loss, method.localize
        if self.compile and method.training_for(method.backbone) != "none":
            loss = _compiled(loss, method)
        if self.compile and "gradients" not in type(method).needs:
            localize = _compiled(localize, method)
        if self.channels_last and _is_convolutional(method):
            method.to(memory_format=torch.channels_last)
            loss, localize = _laid_out(loss, localize)
        if self.compile or self.channels_last:
            method.loss, method.localize = loss, localize  # type: ignore[method-assign]

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
            if self.channels_last and _is_convolutional(method):
                method.to(memory_format=torch.contiguous_format)

    @contextmanager
    def running(self, device: torch.device) -> Iterator[None]:
        """The context for forward passes on `device`: autocast, and how float32 products round."""
        low = {Dtype.bf16: torch.bfloat16, Dtype.fp16: torch.float16}.get(self.dtype)
        with self.products(), nullcontext() if low is None else torch.autocast(device.type, low):
            yield

    @contextmanager
    def products(self) -> Iterator[None]:
        """The context for backward passes, which autocast must not cover: how float32 products round on CUDA.

        tf32 allows TF32 in matrix products and convolutions, fp32 in neither (torch by itself would in convolutions); what
        was set before is set after.
        """
        matrices, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        try:
            if self.dtype in (Dtype.fp32, Dtype.tf32):
                torch.set_float32_matmul_precision("high" if self.dtype is Dtype.tf32 else "highest")
                torch.backends.cudnn.allow_tf32 = self.dtype is Dtype.tf32
            yield
        finally:
            torch.set_float32_matmul_precision(matrices)
            torch.backends.cudnn.allow_tf32 = convolutions


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


def _compiled(function: Callable[..., Any], method: Method) -> Callable[..., Any]:
    """The function compiled on its first call.

    Raises:
        WsolbenchError: the compiler fails, e.g. for want of a C++ compiler.
    """
    fast = torch.compile(function)

    def call(*args: Any, **kwargs: Any) -> Any:
        from torch._dynamo.exc import TorchDynamoException

        try:
            return fast(*args, **kwargs)
        except TorchDynamoException as error:
            reason = next(iter(str(error).splitlines()), "")
            raise WsolbenchError(
                f"torch.compile fails on '{type(method).__name__}' ({type(error).__name__}: {reason}); run without compile"
            ) from error

    return call


def _is_convolutional(method: Method) -> bool:
    """Whether channels-last is of use: some convolution, and not only at the entrance of a ViT."""
    from timm.models.vision_transformer import VisionTransformer

    parts = list(method.modules())
    return any(isinstance(part, nn.Conv2d) for part in parts) and not any(
        isinstance(part, VisionTransformer) for part in parts
    )


def _laid_out(loss: Callable[..., Any], localize: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Both functions on images laid out channels-last."""

    def laid_out_loss(batch: Batch) -> Any:
        return loss(replace(batch, images_BCHW=batch.images_BCHW.contiguous(memory_format=torch.channels_last)))

    def laid_out_localize(images_BCHW: Tensor, labels_B: Tensor | None = None) -> Any:
        return localize(images_BCHW.contiguous(memory_format=torch.channels_last), labels_B)

    return laid_out_loss, laid_out_localize


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Ask torch for algorithms that repeat bit for bit; it warns where an operation has none."""
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    settings: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill = settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    settings.fill_uninitialized_memory = False  # costs time, and nothing here reads what it did not write
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        settings.fill_uninitialized_memory = fill
