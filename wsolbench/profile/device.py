"""The hardware of a profile: which device, what it is called, what it can compute with, and what figures depend on it."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from wsolbench.config.schema import Dtype
from wsolbench.errors import UsageError
from wsolbench.method.numerics import Numerics


def pick_device(asked: str) -> torch.device:
    """The device named, or the fastest kind there is for "auto"."""
    if asked == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.device(asked)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device '{asked}' cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def device_name(device: torch.device) -> str:
    """The hardware's own name, e.g. "NVIDIA H200", or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def context(device: torch.device) -> dict[str, Any]:
    """What every figure depends on besides the method: hardware, version, threads, number format."""
    return {
        "device": str(device),
        "device_name": device_name(device),
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "dtype": str(torch.get_default_dtype()).removeprefix("torch."),
    }


def unsupported(numerics: Numerics, device: torch.device) -> str:
    """Why nothing can be computed this way on the device, "" if it can: told by trying one layer of each kind."""
    if numerics.dtype is Dtype.tf32 and (device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0)):
        return "tf32 is a number format of CUDA devices from compute capability 8.0"
    if numerics.dtype is Dtype.bf16 and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return f"{device_name(device)} does not compute in bf16"
    images = torch.zeros(1, 4, 8, 8, device=device)
    weights = torch.zeros(8, 4, 3, 3, device=device)
    try:
        with numerics.running(device), torch.no_grad():
            tokens = F.conv2d(images, weights, padding=1).flatten(2).transpose(1, 2)[:, None]
            F.scaled_dot_product_attention(tokens, tokens, tokens) @ torch.zeros(8, 2, device=device)
    except Exception as error:  # noqa: BLE001 - whatever the device says, it cannot
        return f"{numerics.dtype.value} on {device.type}: {next(iter(str(error).splitlines()), type(error).__name__)}"
    return ""


def synchroniser(device: torch.device) -> Callable[[], None]:
    """What to call so that all work given to `device` is done."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    if device.type == "mps":
        return torch.mps.synchronize
    return lambda: None
