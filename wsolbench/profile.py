"""What a method costs: images per second, latency, peak memory and parameters, of `localize` and of a training step.

All methods are timed in turns, so that a machine which slows down or is shared hits all alike. The figures are for fixed
random images; the time of an attention block or a convolution does not depend on what it sees.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from wsolbench.config import RunConfig, TrainConfig
from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.method import Method, create_method
from wsolbench.types import Batch

WARMUP = 3  # untimed calls at most: lazy initialisation, caches, autotuning
FEWEST = 20  # durations from which a narrow interval is believed; it is looked at after every call
PRECISION = 0.03  # stop when the 95 % interval of the median is within this share of it
LOCALIZE, TRAIN = "localize", "train step"


@dataclass(frozen=True)
class Timing:
    """Distribution of one call's duration, in milliseconds. `settled`: the median is known to a few percent."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    calls: int
    settled: bool

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        """Summarise durations in seconds.

        >>> Timing.of([0.003, 0.001, 0.002]).median_ms
        2.0
        """
        ordered = sorted(1000 * value for value in seconds)
        last = len(ordered) - 1
        return cls(
            median(ordered), ordered[round(0.1 * last)], ordered[round(0.9 * last)], len(ordered), is_settled(seconds)
        )


@dataclass(frozen=True)
class Measurement:
    """One line of a profile; durations are of a whole batch. `status` is "ok" or says why there are no figures."""

    method: str
    backbone: str
    work: str  # LOCALIZE: forward and map; TRAIN: forward, backward and optimizer step
    batch_size: int
    image_size: str  # "64x64", height first
    status: str = "ok"
    images_per_second: float | None = None
    median_ms: float | None = None
    p10_ms: float | None = None
    p90_ms: float | None = None
    calls: int = 0
    settled: bool = False
    peak_memory_mib: float | None = None
    memory_floor_mib: float | None = (
        None  # of the peak, what was there once the method was built: weights, on CPU libraries too
    )
    memory_is: str = ""  # what the peak counts, see `wsolbench.profile_memory`
    parameters: int = 0
    trainable: int = 0


@dataclass
class Subject:
    """A call to be timed: `prepare` runs before it, untimed."""

    call: Callable[[], object]
    prepare: Callable[[], object] = lambda: None
    seconds: list[float] = field(default_factory=list)
    error: Exception | None = None


def is_settled(seconds: Sequence[float]) -> bool:
    """Whether the 95 % interval of the median (by order statistics, so for any distribution) is narrow."""
    n = len(seconds)
    reach = 0.98 * n**0.5
    low, high = int(n / 2 - reach) - 1, int(n / 2 + reach) + 1
    if n < FEWEST:
        return False
    ordered = sorted(seconds)
    return ordered[high] - ordered[low] <= 2 * PRECISION * median(ordered)


def time_in_turns(
    subjects: Mapping[Hashable, Subject], *, repeats: int, seconds: float, synchronise: Callable[[], None]
) -> None:
    """Time every subject in rounds of shuffled order until it is settled, was called `repeats` times or used `seconds`.

    A subject that raises keeps its error and leaves the rounds; three calls are made whatever they take.
    """
    order = random.Random(0)  # a fixed order would give each subject the same neighbour's caches
    for subject in subjects.values():
        end = time.perf_counter() + seconds
        for _ in range(WARMUP):
            _attempt(subject, synchronise)
            if subject.error is not None or time.perf_counter() > end:  # one call of a slow method warms it up
                break
    waiting = [subject for subject in subjects.values() if subject.error is None]
    while waiting:
        order.shuffle(waiting)
        for subject in waiting:
            _attempt(subject, synchronise, keep=True)
        waiting = [
            subject
            for subject in waiting
            if subject.error is None
            and len(subject.seconds) < repeats
            and not is_settled(subject.seconds)
            and (len(subject.seconds) < 3 or sum(subject.seconds) < seconds)
        ]


def _attempt(subject: Subject, synchronise: Callable[[], None], *, keep: bool = False) -> None:
    try:
        subject.prepare()
        synchronise()
        start = time.perf_counter()
        subject.call()
        synchronise()
        if keep:
            subject.seconds.append(time.perf_counter() - start)
    except Exception as error:  # noqa: BLE001 - one method's failure is a line of the table, not the end of the others
        # Without its traceback: the frames would keep the tensors that did not fit.
        subject.error = error.with_traceback(None)
    if subject.error is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an accelerator or the CPU's allocator ran out of memory."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def random_batch(batch_size: int, image_size_HW: tuple[int, int], num_classes: int, device: torch.device) -> Batch:
    """Fixed random images [B, 3, H, W] and labels [B]; not zeros, with which some kernels take short cuts."""
    generator = torch.Generator().manual_seed(0)
    images_BCHW = torch.randn(batch_size, 3, *image_size_HW, generator=generator)
    labels_B = torch.randint(num_classes, (batch_size,), generator=generator)
    return Batch([str(index) for index in range(batch_size)], images_BCHW, labels_B).to(device)


def subject_of(method: Method, work: str, batch: Batch, train: TrainConfig) -> Subject:
    """The call for one kind of work: LOCALIZE under inference_mode with labels given, or a TRAIN step with AdamW."""
    if work == LOCALIZE:

        def localize() -> Tensor:
            with torch.inference_mode():
                return method.localize(batch.images_BCHW, batch.labels_B).maps_Bhw

        return Subject(localize, lambda: method.train(False))

    optimizer: list[torch.optim.Optimizer] = []

    def step() -> None:
        if not optimizer:  # made in the first, untimed call: an error in it belongs to this subject
            optimizer.append(torch.optim.AdamW(method.param_groups(train), lr=train.lr))
        loss = torch.stack(list(method(batch).values())).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer[0].step()
        optimizer[0].zero_grad()

    return Subject(step, lambda: method.train(True))


def synchroniser(device: torch.device) -> Callable[[], None]:
    """What to call so that all work given to `device` is done."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    if device.type == "mps":
        return torch.mps.synchronize
    return lambda: None


def measure(
    method: Method,
    images_BCHW: Tensor,
    labels_B: Tensor | None = None,
    *,
    work: str = LOCALIZE,
    train: TrainConfig | None = None,
    repeats: int = 200,
    seconds: float = 3.0,
) -> Measurement:
    """Time one method on given images (on their device); prints and writes nothing, measures no memory.

    Args:
        labels_B: classes whose maps are wanted and trained on; zeros where not given.
        repeats: timed calls at most.
        seconds: time spent in timed calls, about; at least three are made.
    """
    count = len(images_BCHW)
    labels_B = torch.zeros(count, dtype=torch.int64, device=images_BCHW.device) if labels_B is None else labels_B
    batch = Batch([str(index) for index in range(count)], images_BCHW, labels_B)
    subject = subject_of(method, work, batch, train or TrainConfig())
    time_in_turns({0: subject}, repeats=repeats, seconds=seconds, synchronise=synchroniser(images_BCHW.device))
    height, width = images_BCHW.shape[-2:]
    blank = Measurement(_name(method), method.backbone or "-", work, count, f"{height}x{width}")
    return _filled(blank, method, subject)


def _name(method: Method) -> str:
    return str(getattr(method, "registered_name", type(method).__name__))


def _filled(blank: Measurement, method: Method, subject: Subject) -> Measurement:
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in method.parameters()]
    blank = replace(blank, parameters=sum(n for n, _ in sizes), trainable=sum(n for n, learns in sizes if learns))
    if subject.error is not None:
        return replace(blank, status=_status(subject.error))
    timing = Timing.of(subject.seconds)
    return replace(blank, images_per_second=1000 * blank.batch_size / timing.median_ms, **asdict(timing))


def _status(error: BaseException) -> str:
    if is_out_of_memory(error):
        return "out of memory"
    first = (str(error).splitlines() or [""])[0]
    return f"failed: {type(error).__name__}: {first}"


def profile(
    methods: list[str],
    *,
    dataset: str = "badges",
    backbone: str | None = None,
    device: str = "auto",
    batch_sizes: Sequence[int] = (1, 16),
    image_size: int | None = None,
    out: Path | None = None,
    repeats: int = 200,
    seconds: float = 3.0,
    memory: bool = True,
) -> int:
    """Measure methods, print a table and write CSV to `out` (default: `results/profile/<device>.csv`).

    Returns the exit status: 1 when a method failed for another reason than memory.
    """
    from wsolbench.compose import expand
    from wsolbench.data import create_dataset
    from wsolbench.profile_memory import memory_peaks
    from wsolbench.profile_table import print_profile, write_profile

    if repeats < 1 or not batch_sizes or min(batch_sizes) < 1:
        raise UsageError("repeats and batch sizes must be at least 1")
    if image_size is not None and image_size < 1:
        raise UsageError(f"image size {image_size} is impossible: give pixels a side")
    target = pick_device(device)
    configs = expand(methods, dataset=dataset, backbone=backbone)
    info = create_dataset(dataset).info  # no image is read
    size_HW = info.resolution_HW if image_size is None else (image_size, image_size)
    built = [(config, _build(config, info.num_classes, target)) for config in configs]
    lines: list[Measurement] = []
    for batch_size in batch_sizes:
        lines += _time_all(built, batch_size, size_HW, info.num_classes, target, repeats, seconds)
    if memory:
        print("measuring peak memory, each setting alone", file=sys.stderr)
        lines = memory_peaks(lines, built, size_HW, info.num_classes, target)
    print_profile(lines, target)
    path = write_profile(lines, target, dataset, out)
    print(f"written to {path}")
    return int(any(line.status.startswith("failed") for line in lines))


def _build(config: RunConfig, num_classes: int, device: torch.device) -> Method:
    options = {key: value for key, value in config.method.items() if key != "name"}
    try:
        return create_method(config.method["name"], num_classes=num_classes, backbone=config.backbone, **options).to(
            device
        )
    except WsolbenchError:
        raise
    except Exception as error:
        raise WsolbenchError(
            f"method '{config.method['name']}' could not be built on backbone '{config.backbone}': {_status(error)[8:]}"
        ) from error


def _time_all(
    built: Sequence[tuple[RunConfig, Method]],
    batch_size: int,
    size_HW: tuple[int, int],
    num_classes: int,
    device: torch.device,
    repeats: int,
    seconds: float,
) -> list[Measurement]:
    """One line per method and kind of work at one batch size, methods timed in turns."""
    lines = []
    for work in (LOCALIZE, TRAIN):
        fitting = [(c, m) for c, m in built if work == LOCALIZE or type(m).training_for(m.backbone) != "none"]
        print(f"timing {work} of {len(fitting)} methods at batch size {batch_size}", file=sys.stderr)
        try:
            batch = random_batch(batch_size, size_HW, num_classes, device)
            subjects: dict[Hashable, Subject] = {
                index: subject_of(method, work, batch, config.train) for index, (config, method) in enumerate(fitting)
            }
            time_in_turns(subjects, repeats=repeats, seconds=seconds, synchronise=synchroniser(device))
        except (RuntimeError, MemoryError) as error:  # the images themselves do not fit
            if not is_out_of_memory(error):
                raise
            subjects = {index: Subject(lambda: None, error=error.with_traceback(None)) for index in range(len(fitting))}
        for index, (config, method) in enumerate(fitting):
            blank = Measurement(
                config.method["name"], method.backbone or "-", work, batch_size, f"{size_HW[0]}x{size_HW[1]}"
            )
            lines.append(_filled(blank, method, subjects[index]))
            method.zero_grad(set_to_none=True)
    return lines


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
    import platform

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
