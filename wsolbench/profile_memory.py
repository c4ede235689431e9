"""Peak memory of one method at one batch size, each measured alone.

CUDA: `max_memory_allocated` with no other method on the device: weights, optimizer state, activations and images, without
the context and without what the caching allocator keeps in reserve. CPU: peak resident memory of a process of its own,
which includes the interpreter and its libraries. Beside either stands the floor: the same figure once the method was built
and before its first call. In one shared process the peak would be that of
the hungriest call before. A child is forked from a process that has imported torch but computed nothing with it, since
threads that have once run do not survive a fork.
"""

from __future__ import annotations

import importlib
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from wsolbench.config import RunConfig, TrainConfig
from wsolbench.errors import WsolbenchError
from wsolbench.method import Method, create_method
from wsolbench.profile import Measurement, is_out_of_memory, random_batch, subject_of, synchroniser

CUDA_PEAK = "max_memory_allocated"
CPU_PEAK = "peak RSS of a process of its own"
CALLS = 2  # the optimizer's state exists from the end of the first training step on


@dataclass(frozen=True)
class Setting:
    """What a child process needs to build a method and call it."""

    module: str  # where the class lives: importing it registers methods that no plug-in announces
    method: str
    options: dict[str, Any]
    backbone: str | None
    train: TrainConfig
    work: str
    batch_size: int
    size_HW: tuple[int, int]
    num_classes: int
    threads: int


@dataclass(frozen=True)
class Peak:
    """MiB, or why there is no figure."""

    peak: float | None = None
    floor: float | None = None
    error: str = ""


def memory_peaks(
    lines: Sequence[Measurement],
    built: Sequence[tuple[RunConfig, Method]],
    size_HW: tuple[int, int],
    num_classes: int,
    device: torch.device,
) -> list[Measurement]:
    """The lines with their peak memory; on devices where none can be measured they come back as they are."""
    by_name = {(config.method["name"], method.backbone or "-"): (config, method) for config, method in built}
    pairs = [(line, *by_name[line.method, line.backbone]) for line in lines]
    if device.type == "cuda":
        return [_with_peak(line, _cuda_peak(line, config, method, built, size_HW, num_classes, device), CUDA_PEAK)
                for line, config, method in pairs]  # fmt: skip
    if device.type != "cpu" or not hasattr(os, "fork"):
        return list(lines)
    settings = [
        Setting(
            type(method).__module__,
            config.method["name"],
            {key: value for key, value in config.method.items() if key != "name"},
            config.backbone,
            config.train,
            line.work,
            line.batch_size,
            size_HW,
            num_classes,
            torch.get_num_threads(),
        )
        for line, config, method in pairs
    ]
    return [_with_peak(line, peak, CPU_PEAK) for line, peak in zip(lines, cpu_peaks(settings), strict=True)]


def _with_peak(line: Measurement, peak: Peak, what: str) -> Measurement:
    if peak.peak is None:
        return replace(line, memory_is=f"not measured: {peak.error}")
    return replace(line, peak_memory_mib=peak.peak, memory_floor_mib=peak.floor, memory_is=what)


def _cuda_peak(
    line: Measurement,
    config: RunConfig,
    method: Method,
    built: Sequence[tuple[RunConfig, Method]],
    size_HW: tuple[int, int],
    num_classes: int,
    device: torch.device,
) -> Peak:
    for _, other in built:
        other.to("cpu")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        method.to(device)
        floor = torch.cuda.memory_allocated(device)
        batch = random_batch(line.batch_size, size_HW, num_classes, device)
        subject = subject_of(method, line.work, batch, config.train)
        for _ in range(CALLS):
            subject.prepare()
            subject.call()
        synchroniser(device)()
        return Peak(torch.cuda.max_memory_allocated(device) / 2**20, floor / 2**20)
    except Exception as error:  # noqa: BLE001 - the reason goes into the table
        return Peak(error="out of memory" if is_out_of_memory(error) else f"{type(error).__name__}: {error}")
    finally:
        method.zero_grad(set_to_none=True)


def cpu_peaks(settings: Sequence[Setting]) -> list[Peak]:
    """Peak resident memory of each setting, in one helper process that forks a child for each."""
    path = os.pathsep.join(dict.fromkeys(entry or os.getcwd() for entry in sys.path))
    done = subprocess.run(
        [sys.executable, "-c", "from wsolbench.profile_memory import serve; serve()"],
        input=pickle.dumps(list(settings)),
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
        check=False,
    )
    if done.returncode != 0:
        raise WsolbenchError(f"the process that measures memory ended with status {done.returncode}")
    peaks: list[Peak] = pickle.loads(done.stdout)
    return peaks


def serve() -> None:
    """Body of the helper process: settings on stdin, peaks on stdout."""
    settings: list[Setting] = pickle.loads(sys.stdin.buffer.read())
    peaks = [_in_child(setting) for setting in settings]
    sys.stdout.buffer.write(pickle.dumps(peaks))


def _in_child(setting: Setting) -> Peak:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(2, 1)  # what a method prints must not end up among the results
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(pickle.dumps(_peak(setting)))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    # A child without an answer was killed, which is how Linux ends a process that asks for too much.
    peak: Peak = pickle.loads(answer) if answer else Peak(error="the process was killed: out of memory")
    return peak


def _peak(setting: Setting) -> Peak:
    try:
        importlib.import_module(setting.module)
        torch.set_num_threads(setting.threads)
        method = create_method(
            setting.method, num_classes=setting.num_classes, backbone=setting.backbone, **setting.options
        )
        floor = _peak_rss_mib()
        batch = random_batch(setting.batch_size, setting.size_HW, setting.num_classes, torch.device("cpu"))
        subject = subject_of(method, setting.work, batch, setting.train)
        for _ in range(CALLS):
            subject.prepare()
            subject.call()
        return Peak(_peak_rss_mib(), floor)
    except Exception as error:  # noqa: BLE001 - the reason goes into the table
        return Peak(error="out of memory" if is_out_of_memory(error) else f"{type(error).__name__}: {error}")


def _peak_rss_mib() -> float:
    """Highest resident memory of this process; VmHWM where there is /proc, as getrusage may report a parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, others KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
