"""Energy from the device's own counter: NVML on NVIDIA cards, RAPL on Linux processors; absent wherever it is not reported.

A counter is of the whole card or of all processor packages, idle power and whoever else uses them included. It moves every
few to a hundred milliseconds, so one setting is called by itself for about a second.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from wsolbench.profile.timing import Subject

POWERCAP = Path("/sys/class/powercap")
SECONDS = 1.0  # a stretch of calls, about


@dataclass(frozen=True)
class Meter:
    """A counter of joules. `wraps`: from where each of its parts starts at zero again, 0: never."""

    what: str
    read: Callable[[], Sequence[float]]
    wraps: Sequence[float]

    def between(self, before: Sequence[float], after: Sequence[float]) -> float:
        """Joules used from one reading to the next.

        >>> Meter("", list, [10.0, 0.0]).between([9.0, 1.0], [2.0, 4.0])
        6.0
        """
        parts = zip(before, after, self.wraps, strict=True)
        return float(sum(b - a + (wrap if b < a else 0.0) for a, b, wrap in parts))


def energy_meter(device: torch.device, powercap: Path = POWERCAP) -> Meter | str:
    """The device's counter, or why there is none."""
    if device.type == "cuda":
        return _nvml(device)
    if device.type == "cpu":
        return _rapl(powercap)
    return f"{device.type} reports no energy"


def _rapl(powercap: Path) -> Meter | str:
    zones = [zone for zone in sorted(powercap.glob("intel-rapl:*")) if zone.name.count(":") == 1]  # also AMD's name
    if not zones:
        return "the processor's energy counter is not visible here"

    def read() -> list[float]:
        return [int((zone / "energy_uj").read_text()) / 1e6 for zone in zones]

    try:
        read()
        wraps = [int((zone / "max_energy_range_uj").read_text()) / 1e6 for zone in zones]
    except (OSError, ValueError):
        return f"the processor's energy counter cannot be read by this user ({zones[0]})"
    return Meter("RAPL, processor packages", read, wraps)


def _nvml(device: torch.device) -> Meter | str:
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return "pynvml is not installed (pip install nvidia-ml-py)"
    try:
        nvml.nvmlInit()
        # By the card's own id: NVML counts cards that CUDA_VISIBLE_DEVICES hides from torch.
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")

        def read() -> list[float]:
            return [nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000]

        read()
    except Exception as error:  # noqa: BLE001 - a figure that is missing must not end a profile
        return f"NVML reports no energy ({error})"
    return Meter("NVML, whole card", read, [0.0])


def joules_per_call(
    subject: Subject, meter: Meter, synchronise: Callable[[], None], seconds: float | None = None
) -> float | None:
    """Mean energy of a call over a stretch of calls; None where the counter stood still or a call failed."""
    try:
        subject.prepare()
        subject.call()
        synchronise()
        calls, end, before = 0, time.perf_counter() + (SECONDS if seconds is None else seconds), meter.read()
        while calls < 2 or time.perf_counter() < end:
            subject.call()
            synchronise()
            calls += 1
        joules = meter.between(before, meter.read())
    except Exception:  # noqa: BLE001 - as above
        return None
    return joules / calls if joules > 0 else None
