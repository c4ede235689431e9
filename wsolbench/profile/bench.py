"""Methods on one backbone, measured together: every number format, compiled or not, in turns; memory and energy alone."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace

import torch

from wsolbench.errors import WsolbenchError
from wsolbench.method.numerics import Numerics
from wsolbench.options import Named
from wsolbench.profile.device import synchroniser, unsupported
from wsolbench.profile.energy import Meter, joules_per_call
from wsolbench.profile.memory import CPU_PEAK, CUDA_PEAK, PeakServer, Setting, cuda_peak
from wsolbench.profile.networks import Networks, is_convolutional
from wsolbench.profile.rows import Measurement, timed, under, with_flops
from wsolbench.profile.timing import Subject, status_of, time_in_turns
from wsolbench.profile.work import (
    BOXED_IMAGES,
    BOXES,
    FORWARD,
    PLAIN,
    boxes_subject,
    does,
    flops_per_image,
    random_batch,
    reads_classifier,
    sizes_of,
    subject_of,
)


@dataclass(frozen=True)
class Conditions:
    """What all lines of a profile share. `meter`: the energy counter, or why there is none; `peaks`: None for no memory."""

    device: torch.device
    size_HW: tuple[int, int]
    num_classes: int
    repeats: int
    seconds: float
    meter: Meter | str
    peaks: PeakServer | None

    @property
    def image_size(self) -> str:
        """Height first, as text."""
        return f"{self.size_HW[0]}x{self.size_HW[1]}"


@dataclass
class Entrant:
    """A line in the making. `same`: lines of other methods that are measured by the same network, and share its figures."""

    line: Measurement
    at: int  # of the config
    numerics: Numerics
    subject: Subject
    same: list[Measurement] = field(default_factory=list)


class Bench:
    """The methods of `networks`, at least one, to be measured under `numerics`."""

    def __init__(self, networks: Networks, numerics: Sequence[Numerics], conditions: Conditions) -> None:
        self.conditions = conditions
        self.configs, self.methods = networks.configs, networks.methods
        self.backbone = self.configs[0].backbone
        self.numerics = list(numerics) if self.backbone is not None else [PLAIN]  # no network, nothing to choose
        if not is_convolutional(self.backbone):
            self.numerics = [each for each in self.numerics if not each.channels_last]
        self._unsupported = {each.dtype: unsupported(each, conditions.device) for each in self.numerics}
        self._flops: dict[tuple[int, str], float | None] = {}
        self._networks = networks

    def count(self, work: str) -> int:
        """How many lines are measured one by one at each batch size."""
        doing = sum(does(method, work) for method in self.methods)
        return doing * (1 if work == BOXES else len(self.numerics))

    def measure(
        self, work: str, batch_size: int, lines: list[Measurement], advance: Callable[[int], object] = lambda n: None
    ) -> None:
        """Append the lines of one kind of work; when it is interrupted, those whose timing is complete.

        `advance` is told of twice `count(work)` steps.
        """
        if any(each.compile for each in self.numerics):
            torch._dynamo.reset()  # or what follows would be compiled for any batch size
        entrants: list[Entrant] = []
        try:
            entrants += self._entrants(work, batch_size)
            advance(2 * (self.count(work) - len(entrants)))
            self._time(entrants, advance)
            for entrant in entrants:
                self._measure_alone(entrant, in_company=len(entrants) > 1)
                advance(1)
        finally:
            for entrant in entrants:
                if entrant.subject.done:
                    lines += [
                        replace(entrant.line, method=line.method, network=line.network)
                        for line in (entrant.line, *entrant.same)
                    ]
            self._networks.release()
            self._networks.restore()

    # --- who takes part

    def _entrants(self, work: str, batch_size: int) -> list[Entrant]:
        entrants: list[Entrant] = []
        measured: dict[Hashable, list[Entrant]] = {}
        for at, (config, method) in enumerate(zip(self.configs, self.methods, strict=True)):
            if not does(method, work):
                continue
            name = str(config.method["name"])
            blank = Measurement(name, self.backbone or "-", work, batch_size, self.conditions.image_size)
            key = self._networks.same_work(at, work)
            if work == FORWARD:
                blank = replace(blank, network="classifier" if reads_classifier(method) else "plain")
            if key in measured:
                for entrant in measured[key]:
                    entrant.same.append(blank)
                continue
            if work == BOXES:
                measured[key] = [self._entrant(replace(blank, batch_size=1, dtype="fp64"), at, PLAIN)]
            else:
                measured[key] = [self._entrant(under(blank, each), at, each) for each in self.numerics]
            entrants += measured[key]
        return entrants

    def _entrant(self, line: Measurement, at: int, numerics: Numerics) -> Entrant:
        nothing = Subject(_nothing, done=True)
        try:
            parameters, trainable = sizes_of(self._networks.get(at, line.work, PLAIN))
            line = replace(line, parameters=parameters, trainable=trainable)
            if line.work != BOXES and (reason := self._unsupported[numerics.dtype]):
                return Entrant(replace(line, status=f"not measured: {reason}"), at, numerics, nothing)
            return Entrant(line, at, numerics, self._subject(at, line, numerics))
        except WsolbenchError as error:  # the backbone is no network by itself
            return Entrant(replace(line, status=f"not measured: {error}"), at, numerics, nothing)
        except Exception as error:  # noqa: BLE001 - images that do not fit, a network that cannot be compiled
            return Entrant(replace(line, status=status_of(error.with_traceback(None))), at, numerics, nothing)

    def _subject(self, at: int, line: Measurement, numerics: Numerics) -> Subject:
        device, size_HW, classes = self.conditions.device, self.conditions.size_HW, self.conditions.num_classes
        if line.work == BOXES:
            images = random_batch(BOXED_IMAGES, size_HW, classes, device)
            return boxes_subject(self.methods[at], images.images_BCHW, images.labels_B, size_HW)
        target, train = self._networks.get(at, line.work, numerics), self.configs[at].train
        batch = self._networks.batch(line.batch_size, numerics.channels_last)
        return subject_of(target, line.work, batch, train, numerics)

    # --- what is measured

    def _time(self, entrants: Sequence[Entrant], advance: Callable[[int], object]) -> None:
        waiting = [entrant for entrant in entrants if not entrant.subject.done]
        advance(len(entrants) - len(waiting))
        try:
            time_in_turns(
                {number: entrant.subject for number, entrant in enumerate(waiting)},
                repeats=self.conditions.repeats,
                seconds=self.conditions.seconds,
                synchronise=synchroniser(self.conditions.device),
                on_done=lambda: advance(1),
            )
        finally:
            for entrant in waiting:
                if entrant.subject.done:
                    entrant.line = timed(entrant.line, entrant.subject)
                    entrant.subject = Subject(_nothing, done=True)  # its optimizer would count as the next one's memory

    def _measure_alone(self, entrant: Entrant, *, in_company: bool) -> None:
        """FLOPs, energy and peak memory, with no other network on a CUDA device; what did not fit beside others is tried again."""
        line = entrant.line
        if line.work == BOXES or line.status not in ("ok", "out of memory"):
            return
        if in_company and not line.ok:
            self._networks.clear_device()
            try:
                entrant.subject = self._subject(entrant.at, line, entrant.numerics)
            except Exception:  # noqa: BLE001 - not even its images fit
                return
            entrant.line = replace(line, status="ok")
            self._time([entrant], lambda n: None)
        if entrant.line.ok:
            entrant.line = with_flops(entrant.line, self._flops_of(entrant.at, line.work))
            self._networks.clear_device()
            self._measure_energy(entrant)
            self._networks.clear_device()
            self._measure_memory(entrant)

    def _flops_of(self, at: int, work: str) -> float | None:
        conditions, key = self.conditions, (at, work)
        if key not in self._flops:
            eager, train = self._networks.get(at, work, PLAIN), self.configs[at].train
            self._flops[key] = flops_per_image(
                lambda batch: subject_of(eager, work, batch, train),
                conditions.size_HW,
                conditions.num_classes,
                conditions.device,
            )
            eager.zero_grad(set_to_none=True)
        return self._flops[key]

    def _measure_energy(self, entrant: Entrant) -> None:
        conditions, line = self.conditions, entrant.line
        if isinstance(conditions.meter, str):
            entrant.line = replace(line, energy_is=f"not measured: {conditions.meter}")
            return
        subject = self._subject(entrant.at, line, entrant.numerics)
        joules = joules_per_call(subject, conditions.meter, synchroniser(conditions.device))
        told = conditions.meter.what if joules is not None else "not measured: the counter did not move"
        entrant.line = replace(
            line, energy_is=told, joules_per_image=None if joules is None else joules / line.batch_size
        )

    def _measure_memory(self, entrant: Entrant) -> None:
        conditions, line, config = self.conditions, entrant.line, self.configs[entrant.at]
        if conditions.peaks is None or conditions.device.type not in ("cuda", "cpu"):
            return
        setting = Setting(
            type(self.methods[entrant.at]).__module__,
            *Named.of(config.method),
            config.backbone,
            config.train,
            line.work,
            line.batch_size,
            conditions.size_HW,
            conditions.num_classes,
            torch.get_num_threads(),
            entrant.numerics,
            plain=line.network == "plain",
        )
        if conditions.device.type == "cuda":
            target = self._networks.get(entrant.at, line.work, entrant.numerics)
            entrant.line = cuda_peak(target, setting, conditions.device).into(line, CUDA_PEAK)
        elif entrant.numerics.compile:
            entrant.line = replace(line, memory_is="not measured: compiling takes most of a process's memory")
        else:
            entrant.line = conditions.peaks.ask(setting).into(line, CPU_PEAK)


def _nothing() -> None:
    """The call of a line that is not measured, or no more."""
