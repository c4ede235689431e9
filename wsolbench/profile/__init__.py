"""What a method costs: time, memory, FLOPs and energy of its kinds of work, on one device, under several number formats.

All methods on a backbone are timed in turns, so that a machine which slows down or is shared hits all alike. The figures are
for fixed random images; the time of an attention block or a convolution does not depend on what it sees. What is measured is
in `work`, how in `bench`, a line and its files in `rows`; the columns are described in docs/profile.md. The process that
measures memory on a CPU imports this too, and all that it holds is in its figures: what it does not need is imported late.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wsolbench.config.schema import Dtype, RunConfig, TrainConfig
from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.method.base import Method
from wsolbench.method.numerics import Numerics
from wsolbench.profile.bench import Bench, Conditions
from wsolbench.profile.device import context, device_name, pick_device, synchroniser
from wsolbench.profile.energy import energy_meter
from wsolbench.profile.memory import PeakServer
from wsolbench.profile.networks import Networks
from wsolbench.profile.rows import Measurement, files_of, timed, under, write_rows
from wsolbench.profile.timing import time_in_turns
from wsolbench.profile.work import BOXES, LOCALIZE, PLAIN, WORKS, check_works, prepare, sizes_of, subject_of
from wsolbench.registry import slug
from wsolbench.system.interrupt import Stopped, request_of
from wsolbench.types import Batch

if TYPE_CHECKING:
    from wsolbench.system.progress import Reporter

__all__ = ["LOCALIZE", "Measurement", "Request", "context", "measure", "profile"]

PACKAGES = ("wsolbench", "torch", "torchvision", "timm", "numpy", "opencv-python-headless", "numba", "grad-cam")


@dataclass(frozen=True)
class Request:
    """What is asked of a profile. Everything is measured under everything: dtypes x eager and compiled x layouts."""

    methods: Sequence[str]
    dataset: str = "badges"  # gives classes and image size where these are not given
    backbone: str | None = None  # name or comma list; None: the recipe's
    device: str = "auto"
    batch_sizes: Sequence[int] = (1, 16)
    dtypes: Sequence[str] = ("fp32",)
    compile: bool = False  # compiled beside eager
    channels_last: bool = False  # of CNNs, beside the usual layout
    works: Sequence[str] = WORKS
    image_size: int | None = None
    classes: int | None = None
    out: Path | None = None  # .csv or .json, both are written; None: results/profile/<device>.csv
    repeats: int = 200
    seconds: float = 3.0  # of timed calls per line, about; at least three are made
    memory: bool = True
    results: Path | None = None  # folder whose leaderboard is drawn against throughput; None: "results" if there is one
    command: str = ""

    def numerics(self) -> list[Numerics]:
        """Every combination asked for, the plainest first."""
        layouts = (False, True) if self.channels_last else (False,)
        modes = (False, True) if self.compile else (False,)
        named = [Dtype(name) for name in self.dtypes]
        return [Numerics(*each) for each in itertools.product(named, modes, layouts)]

    def check(self) -> None:
        """Raise `UsageError` where it cannot be meant."""
        check_works(self.works)
        if self.repeats < 1 or not self.batch_sizes or min(self.batch_sizes) < 1:
            raise UsageError("repeats and batch sizes must be at least 1")
        if not self.works or not self.dtypes:
            raise UsageError("there is nothing to measure: name kinds of work and number formats")
        for name, value in (("image size", self.image_size), ("number of classes", self.classes)):
            if value is not None and value < 1:
                raise UsageError(f"{name} {value} is impossible: give a number from 1")


def profile(request: Request) -> int:
    """Measure methods, print a table, write CSV and JSON, and draw accuracy against throughput where there is a leaderboard.

    Returns the exit status: 1 when a line failed, for another reason than memory, hardware or being compiled; 130 and above
    when it was stopped (see `wsolbench.cli`), what was finished is then written all the same.
    """
    from wsolbench.config.compose import expand
    from wsolbench.profile.accuracy import draw
    from wsolbench.profile.table import print_profile
    from wsolbench.system.progress import Reporter

    request.check()
    device = pick_device(request.device)
    default = Path("results", "profile", f"{slug(device_name(device)).lower()}.csv")
    out = default if request.out is None else request.out
    files_of(out)
    size_HW, classes, own_size = _data(request)
    configs = expand(list(request.methods), dataset=request.dataset, backbone=request.backbone)
    facts = _facts(request, device, classes)
    lines: list[Measurement] = []
    reporter = Reporter()
    stopped: Stopped | None = None
    with PeakServer() as peaks:
        conditions = Conditions(
            device,
            size_HW,
            classes,
            request.repeats,
            request.seconds,
            energy_meter(device),
            peaks if request.memory else None,
        )
        benches = _benches(configs, request.numerics(), conditions, reporter.message)
        try:
            _measure_all(benches, request, lines, reporter, lambda: write_rows(out, lines, facts, complete=False))
        except KeyboardInterrupt as error:
            stopped = request_of(error)
    written = write_rows(out, lines, facts, complete=stopped is None)
    print_profile(lines, facts)
    print(f"written to {written} and {written.with_suffix('.json')}")
    if stopped is not None:
        print(f"{stopped.why}: these {len(lines)} lines were finished; the others were not measured", file=sys.stderr)
        return stopped.status
    draw(lines, request.results, request.dataset if own_size else None, written)
    return int(any(line.status.startswith("failed:") for line in lines))


def _data(request: Request) -> tuple[tuple[int, int], int, bool]:
    """Image size, number of classes, and whether they are the data set's own; it is opened only where one is not given."""
    from wsolbench.data.dataset import create_dataset

    size = None if request.image_size is None else (request.image_size, request.image_size)
    if size is not None and request.classes is not None:
        return size, request.classes, False
    try:
        info = create_dataset(request.dataset).info  # no image is read
    except UsageError as error:
        raise UsageError(f"{error}; or give --classes and --image-size, and no data set is opened") from error
    own = size in (None, info.resolution_HW) and request.classes in (None, info.num_classes)
    return size or info.resolution_HW, request.classes or info.num_classes, own


def _benches(
    configs: Sequence[RunConfig], numerics: Sequence[Numerics], conditions: Conditions, say: Callable[[str], None]
) -> list[Bench]:
    """One bench per backbone; of several backbones, a method is measured on those it can use."""
    by_backbone: dict[str | None, list[RunConfig]] = {}
    for config in configs:
        by_backbone.setdefault(config.backbone, []).append(config)
    refused: dict[str, WsolbenchError] = {}

    def leave_out(config: RunConfig, error: WsolbenchError) -> None:
        refused.setdefault(config.method["name"], error)
        say(f"left out: {error}")

    unfit = leave_out if len(by_backbone) > 1 else None
    built = [
        Networks(group, conditions.device, conditions.size_HW, conditions.num_classes, unfit)
        for group in by_backbone.values()
    ]
    for name, error in refused.items():
        if not any(config.method["name"] == name for networks in built for config in networks.configs):
            raise error
    return [Bench(networks, numerics, conditions) for networks in built if networks.configs]


def _measure_all(
    benches: Sequence[Bench],
    request: Request,
    lines: list[Measurement],
    reporter: Reporter,
    save: Callable[[], object],
) -> None:
    """All lines, saved after every kind of work at every batch size."""
    steps = [
        (bench, batch_size, work)
        for bench in benches
        for batch_size in request.batch_sizes
        for work in request.works
        if bench.count(work) and (work != BOXES or batch_size == request.batch_sizes[0])
    ]
    total = sum(2 * bench.count(work) for bench, _, work in steps)
    with reporter.live(), reporter.bar("profile", total, unit="steps") as advance:
        for bench, batch_size, work in steps:
            what = work if work == BOXES else f"{work}, batch size {batch_size}"
            advance(0, what)
            if not reporter.console.is_terminal:
                reporter.message(f"measuring {what}" + (f", on {bench.backbone}" if bench.backbone else ""))
            bench.measure(work, batch_size, lines, advance)
            save()


def _facts(request: Request, device: torch.device, classes: int) -> dict[str, Any]:
    """What is the same for all lines: hardware, versions, command."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    if device.type == "cuda":
        versions["cuda"] = str(torch.version.cuda)
    seconds = {"repeats": request.repeats, "seconds": request.seconds}
    data = {"dataset": request.dataset, "classes": classes}
    return {**context(device), **data, **seconds, "command": request.command, "versions": versions}


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
