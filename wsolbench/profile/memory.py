"""Peak memory of one kind of work at one batch size, each measured alone.

CUDA: `max_memory_allocated` with no other network on the device: weights, optimizer state, activations and images, without
the context and without what the caching allocator keeps in reserve. CPU: peak resident memory of a process of its own,
which includes the interpreter and its libraries. Beside either stands the floor: the same figure once the network was built
and before its first call. In one shared process the peak would be that of the hungriest call before. A child is forked from a
process that has imported torch but computed nothing with it, since threads that have once run do not survive a fork.
"""

from __future__ import annotations

import importlib
import os
import pickle
import resource
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from wsolbench.backbones import create_backbone
from wsolbench.config.schema import TrainConfig
from wsolbench.errors import WsolbenchError
from wsolbench.method.base import create_method
from wsolbench.method.numerics import Numerics
from wsolbench.profile.device import synchroniser
from wsolbench.profile.rows import Measurement
from wsolbench.profile.timing import is_out_of_memory
from wsolbench.profile.work import FORWARD, PLAIN, network_of, prepare, random_batch, subject_of

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
    numerics: Numerics = PLAIN
    plain: bool = False  # of FORWARD: the network is a plain classifier on the backbone, the method is not built


@dataclass(frozen=True)
class Peak:
    """MiB, or why there is no figure."""

    peak: float | None = None
    floor: float | None = None
    error: str = ""

    def into(self, line: Measurement, what: str) -> Measurement:
        """The line with this figure."""
        if self.peak is None:
            return replace(line, memory_is=f"not measured: {self.error}")
        return replace(line, peak_memory_mib=self.peak, memory_floor_mib=self.floor, memory_is=what)


def cuda_peak(target: nn.Module, setting: Setting, device: torch.device) -> Peak:
    """Peak of a prepared network that is alone on the device."""
    floor = torch.cuda.memory_allocated(device)
    try:
        batch = random_batch(
            setting.batch_size, setting.size_HW, setting.num_classes, device, setting.numerics.channels_last
        )
        subject = subject_of(target, setting.work, batch, setting.train, setting.numerics)
        for call in range(1 + CALLS):
            subject.prepare()
            if call == 1:  # the first call may compile, and search for the fastest convolution
                torch.cuda.reset_peak_memory_stats(device)
            subject.call()
        synchroniser(device)()
        return Peak(torch.cuda.max_memory_allocated(device) / 2**20, floor / 2**20)
    except Exception as error:  # noqa: BLE001 - the reason goes into the table
        return _failed(error)
    finally:
        target.zero_grad(set_to_none=True)


class PeakServer:
    """A helper process that forks a child for each setting; started by the first question, ended with the block."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        if error is not None:
            self._process.kill()
        try:
            self._process.communicate()
        except BrokenPipeError:  # it ended by itself
            self._process.wait()

    def ask(self, setting: Setting) -> Peak:
        """Peak resident memory of one setting on the CPU.

        Raises:
            WsolbenchError: the helper itself ended; a child that ends is an answer.
        """
        if self._process is None:
            path = os.pathsep.join(dict.fromkeys(entry or os.getcwd() for entry in sys.path))
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from wsolbench.profile.memory import serve; serve()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": path},
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(pickle.dumps(setting))
            self._process.stdin.flush()
            peak: Peak = pickle.load(self._process.stdout)
        except (EOFError, BrokenPipeError) as error:
            status = self._process.wait()
            raise WsolbenchError(f"the process that measures memory ended with status {status}") from error
        return peak


def serve() -> None:
    """Body of the helper process: settings on stdin, a peak on stdout for each, until stdin is closed."""
    while True:
        try:
            setting: Setting = pickle.load(sys.stdin.buffer)
        except (EOFError, KeyboardInterrupt):  # Ctrl-C reaches all processes of a terminal; the parent tells of it
            return
        sys.stdout.buffer.write(pickle.dumps(_in_child(setting)))
        sys.stdout.buffer.flush()


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
        target = _target(setting)
        prepare(target, setting.numerics)
        floor = _peak_rss_mib()
        batch = random_batch(
            setting.batch_size,
            setting.size_HW,
            setting.num_classes,
            torch.device("cpu"),
            setting.numerics.channels_last,
        )
        subject = subject_of(target, setting.work, batch, setting.train, setting.numerics)
        for _ in range(CALLS):
            subject.prepare()
            subject.call()
        return Peak(_peak_rss_mib(), floor)
    except Exception as error:  # noqa: BLE001 - the reason goes into the table
        return _failed(error)


def _target(setting: Setting) -> nn.Module:
    if setting.plain and setting.backbone is not None:
        return create_backbone(setting.backbone, num_classes=setting.num_classes, pretrained=False)
    method = create_method(
        setting.method, num_classes=setting.num_classes, backbone=setting.backbone, **setting.options
    )
    return network_of(method) if setting.work == FORWARD else method


def _failed(error: Exception) -> Peak:
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
