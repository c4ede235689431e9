"""`wsolbench profile`: methods on their backbones, measured line by line, printed, written and drawn."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from wsolbench.config.compose import expand
from wsolbench.config.schema import RunConfig
from wsolbench.data.dataset import create_dataset
from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.method.numerics import Numerics
from wsolbench.profile.accuracy import draw
from wsolbench.profile.bench import Bench, Conditions
from wsolbench.profile.device import context, device_name, pick_device
from wsolbench.profile.energy import energy_meter
from wsolbench.profile.memory import PeakServer
from wsolbench.profile.networks import Networks
from wsolbench.profile.request import Request
from wsolbench.profile.rows import Measurement, files_of, write_rows
from wsolbench.profile.table import print_profile
from wsolbench.profile.work import BOXES
from wsolbench.registry import slug
from wsolbench.system.environment import versions_of
from wsolbench.system.interrupt import Stopped, request_of
from wsolbench.system.progress import Reporter

PACKAGES = ("wsolbench", "torch", "torchvision", "timm", "numpy", "opencv-python-headless", "numba", "grad-cam")
"""What durations depend on: networks, what compiles loops (numba), whose code maps are made by (grad-cam). What numbers depend
on is another list, of `wsolbench.system.environment`: it has what reads images and weights, which is not timed here."""


def profile(request: Request) -> int:
    """Measure methods, print a table, write CSV and JSON, and draw accuracy against throughput where there is a leaderboard.

    Returns the exit status: 1 when a line failed, for another reason than memory, hardware or being compiled; 130 and above
    when it was stopped (see `wsolbench.cli.main`), what was finished is then written all the same.
    """
    request.check()
    device = pick_device(request.device)
    out = _file(request, device)
    size_HW, classes, own_size = _data(request)
    configs = expand(list(request.methods), dataset=request.dataset, backbone=request.backbone)
    facts = _facts(request, device, classes)
    lines: list[Measurement] = []
    reporter = Reporter()
    with PeakServer() as server:
        peaks, meter = server if request.memory else None, energy_meter(device)
        conditions = Conditions(device, size_HW, classes, request.repeats, request.seconds, meter, peaks)
        benches = _benches(configs, request.numerics(), conditions, reporter.message)
        stopped = _measure_all(benches, request, lines, reporter, lambda: write_rows(out, lines, facts, complete=False))
    written = write_rows(out, lines, facts, complete=stopped is None)
    print_profile(lines, facts)
    print(f"written to {written} and {written.with_suffix('.json')}")
    if stopped is not None:
        print(f"{stopped.why}: these {len(lines)} lines were finished; the others were not measured", file=sys.stderr)
        return stopped.status
    draw(lines, request.results, request.dataset if own_size else None, written)
    return int(any(line.status.startswith("failed:") for line in lines))


def _file(request: Request, device: torch.device) -> Path:
    """Where the lines go; a name that cannot be meant is refused."""
    default = Path("results", "profile", f"{slug(device_name(device)).lower()}.csv")
    out = default if request.out is None else request.out
    files_of(out)
    return out


def _data(request: Request) -> tuple[tuple[int, int], int, bool]:
    """Image size, number of classes, and whether they are the data set's own; it is opened only where one is not given."""
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
) -> Stopped | None:
    """All lines, saved after every kind of work at every batch size; what stopped it, if anything did."""
    steps = [
        (bench, batch_size, work)
        for bench in benches
        for batch_size in request.batch_sizes
        for work in request.works
        if bench.count(work) and (work != BOXES or batch_size == request.batch_sizes[0])
    ]
    total = sum(2 * bench.count(work) for bench, _, work in steps)
    try:
        with reporter.live(), reporter.bar("profile", total, unit="steps") as advance:
            for bench, batch_size, work in steps:
                what = work if work == BOXES else f"{work}, batch size {batch_size}"
                advance(0, what)
                if not reporter.console.is_terminal:
                    reporter.message(f"measuring {what}" + (f", on {bench.backbone}" if bench.backbone else ""))
                bench.measure(work, batch_size, lines, advance)
                save()
    except KeyboardInterrupt as error:
        return request_of(error)
    return None


def _facts(request: Request, device: torch.device, classes: int) -> dict[str, Any]:
    """What is the same for all lines: hardware, versions, command."""
    versions = versions_of(PACKAGES)
    if device.type == "cuda":
        versions["cuda"] = str(torch.version.cuda)
    seconds = {"repeats": request.repeats, "seconds": request.seconds}
    data = {"dataset": request.dataset, "classes": classes}
    return {**context(device), **data, **seconds, "command": request.command, "versions": versions}
