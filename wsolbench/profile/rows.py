"""The lines of a profile, and their files: one CSV and one JSON of the same content, whole or absent."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.method.numerics import Numerics
from wsolbench.profile.timing import Subject, Timing, status_of

SUFFIXES = (".csv", ".json")


@dataclass(frozen=True)
class Measurement:
    """One line of a profile; durations are of a whole batch. `status` is "ok" or says why there are no figures."""

    method: str
    backbone: str
    work: str  # see `wsolbench.profile.work`
    batch_size: int
    image_size: str  # "64x64", height first
    dtype: str = "fp32"
    compiled: bool = False
    channels_last: bool = False
    network: str = ""  # of a forward line: whose it is
    status: str = "ok"
    images_per_second: float | None = None
    median_ms: float | None = None
    p10_ms: float | None = None
    p90_ms: float | None = None
    calls: int = 0
    settled: bool = False
    flops_per_image: float | None = None
    gflops_per_second: float | None = None  # reached: FLOPs per image times images per second
    joules_per_image: float | None = None
    energy_is: str = ""  # what counted it, or why nothing did
    peak_memory_mib: float | None = None
    # Of the peak, what was there once the network was built: weights, on CPU libraries too.
    memory_floor_mib: float | None = None
    memory_is: str = ""  # what the peak counts, see `wsolbench.profile.memory`
    parameters: int = 0
    trainable: int = 0

    @property
    def ok(self) -> bool:
        """Whether there are figures."""
        return self.status == "ok"

    @property
    def numerics(self) -> str:
        """Number format, compilation and layout in a few letters.

        >>> Measurement("cam", "resnet50", "train", 1, "8x8", dtype="bf16", compiled=True).numerics
        'bf16 compiled'
        """
        return self.dtype + " compiled" * self.compiled + " channels-last" * self.channels_last


def timed(line: Measurement, subject: Subject) -> Measurement:
    """The line with what timing found."""
    if subject.error is not None:
        status = status_of(subject.error)
        if line.compiled and status.startswith("failed"):  # compiled, a method may break in its own code
            status = status.replace("failed", "failed when compiled", 1)
        return replace(line, status=status)
    timing = Timing.of(subject.seconds)
    return replace(line, images_per_second=1000 * line.batch_size / timing.median_ms, **asdict(timing))


def with_flops(line: Measurement, flops: float | None) -> Measurement:
    """The line with the FLOPs of an image and what share of a second's work that makes."""
    if flops is None or line.images_per_second is None:
        return replace(line, flops_per_image=flops)
    return replace(line, flops_per_image=flops, gflops_per_second=flops * line.images_per_second / 1e9)


def under(line: Measurement, numerics: Numerics) -> Measurement:
    """The line as computed with `numerics`."""
    return replace(line, dtype=numerics.dtype.value, compiled=numerics.compile, channels_last=numerics.channels_last)


def files_of(path: Path) -> tuple[Path, Path]:
    """The CSV and the JSON file that belong to either name.

    >>> [file.name for file in files_of(Path("out/gpu.json"))]
    ['gpu.csv', 'gpu.json']
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"--out '{path}': expected a file name that ends in .csv or .json; both are written")
    csv, json_file = (path.with_suffix(suffix) for suffix in SUFFIXES)
    return csv, json_file


def write_rows(path: Path, lines: Sequence[Measurement], facts: Mapping[str, Any], *, complete: bool) -> Path:
    """Write both files, each row with the hardware and versions it depends on; returns the CSV.

    Args:
        facts: what is the same for all lines: `wsolbench.profile.device.context`, data set, command, versions.
        complete: whether everything that was asked for is among the lines; the JSON says so.
    """
    import pandas as pd

    from wsolbench.system.files import write_json, write_text

    csv, json_file = files_of(path)
    repeated = {key: facts[key] for key in ("device", "device_name", "torch", "threads") if key in facts}
    first = {key: facts[key] for key in ("dataset", "classes") if key in facts}
    rows = [{**first, **asdict(line), **repeated} for line in lines]
    columns = [*first, *(field.name for field in fields(Measurement)), *repeated]
    context = {key: value for key, value in facts.items() if key != "dtype"}  # torch's default; rows have their own
    try:
        csv.parent.mkdir(parents=True, exist_ok=True)
        write_text(csv, pd.DataFrame(rows, columns=columns).to_csv(index=False, lineterminator="\n"))
        write_json(json_file, {"complete": complete, "context": context, "rows": [asdict(line) for line in lines]})
    except OSError as error:
        raise WsolbenchError(f"the profile could not be written to '{csv}': {error.strerror}") from error
    return csv


def read_rows(path: Path) -> list[Measurement]:
    """The lines of a CSV or JSON file that `write_rows` wrote."""
    import pandas as pd

    if path.suffix == ".json":
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    else:
        frame = pd.read_csv(path, keep_default_na=False, na_values={name: [""] for name in _numbers()})
        rows = [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]
    names = {field.name for field in fields(Measurement)}
    return [Measurement(**_present(row, names)) for row in rows]


def _numbers() -> list[str]:
    return [field.name for field in fields(Measurement) if "float" in str(field.type)]


def _present(row: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    def is_absent(value: Any) -> bool:
        return isinstance(value, float) and math.isnan(value)

    return {name: None if is_absent(value) else value for name, value in row.items() if name in names}
