"""A request to score maps from files that makes sense: data opened, every map found, identity known; nothing is scored yet."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsolbench.boxes.arrays import Contours
from wsolbench.config.identity import plugin_identity
from wsolbench.config.schema import EvaluateConfig
from wsolbench.conventions import Convention, Geometry, check_convention, get_convention
from wsolbench.data.dataset import Dataset, create_dataset
from wsolbench.data.split import Split
from wsolbench.errors import UsageError, WsolbenchError, unknown
from wsolbench.external.logit_files import check_logits_path
from wsolbench.external.map_files import MapFiles, MapKind, find_maps
from wsolbench.options import Named, build_dataset_config
from wsolbench.registry import DATASETS
from wsolbench.runs.directory import RunDirectory, run_path
from wsolbench.system.hashing import digest, file_sha256

VERSION = 1  # moves when the same maps would give other numbers
DEFAULT_INTERVAL = EvaluateConfig().interval


@dataclass(frozen=True)
class Request:
    """What is to be scored and how: the flags of `wsolbench evaluate`."""

    maps: str  # folder or .npz
    dataset: dict[str, Any]  # {"name": ..., option: value}
    root: str | None = None
    split: str = "test"
    logits: str | None = None
    map_kind: MapKind = "score"
    convention: str = "reference"
    geometry: Geometry = "resize"
    interval: float = DEFAULT_INTERVAL
    contours: Contours = "single"
    name: str | None = None  # of the method; default: that of the folder or .npz
    backbone: str = "-"
    val_maps: str | None = None
    out: str = "results"

    @property
    def method(self) -> str:
        path = Path(self.maps).resolve()
        return self.name or (path.stem if path.suffix == ".npz" else path.name)

    def command(self) -> str:
        """The command line that repeats it."""
        words = ["wsolbench", "evaluate", "--dataset", self.dataset["name"]]
        for flag, default in Request(self.maps, self.dataset).__dict__.items():
            value = getattr(self, flag)
            if flag == "maps" or (flag != "dataset" and value != default):
                words += [f"--{flag.replace('_', '-')}", str(value)]
        return shlex.join(words)


@dataclass
class ExternalJob:
    """A request that was found to make sense: data opened, every map found, identity known; nothing is scored yet."""

    request: Request
    dataset: Dataset
    fingerprint: str
    splits: dict[str, Split]
    files: dict[str, MapFiles]
    convention: Convention | None  # beside the reference
    protocol: str
    directory: RunDirectory
    warnings: list[str]

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Those of the convention on this data set with this backbone."""
        if self.convention is None:
            return ()
        return self.convention.thresholds_for(self.request.dataset["name"], self.request.backbone)

    @property
    def stamp(self) -> str:
        """Changes when any map file does: names, sizes and times, since reading 20 GB to find out takes as long as scoring."""
        return digest({name: files.stamp() for name, files in self.files.items()})


def open_request(request: Request) -> ExternalJob:
    """Open the data and find every map.

    Raises:
        UsageError: a name or a value that cannot be; a place that does not exist.
        WsolbenchError: data or maps that do not fit together.
    """
    _check(request)
    convention = get_convention(request.convention)
    check_convention(convention, map_kind=request.map_kind, geometry=request.geometry)
    name, options = Named.of(request.dataset)
    wanted = {request.split: request.maps} | ({"val": request.val_maps} if request.val_maps else {})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = create_dataset(name, root=request.root, **options)
        fingerprint = dataset.fingerprint()
        splits = {split: dataset.split(split) for split in wanted}
    said = list(dict.fromkeys(str(each.message) for each in caught if issubclass(each.category, UserWarning)))
    for split_name, split in splits.items():
        _check_truth(dataset, split, f"{name}/{split_name}")
    if convention.name != "reference" and not dataset.info.has_boxes:
        raise UsageError(f"convention '{convention.name}' compares boxes, but {name} has masks and no boxes")
    files = {split: find_maps(path, splits[split].ids, f"{name}/{split}") for split, path in wanted.items()}
    said += _say_extra(files, wanted, name)
    numbers = ("split", "map_kind", "convention", "geometry", "interval", "contours")
    hash = digest(
        {
            "external": VERSION,
            "method": request.method,
            "backbone": request.backbone,
            "dataset": plugin_identity(build_dataset_config, DATASETS.get(name), request.dataset),
            "data": fingerprint,
            "maps": {split: str(Path(path).resolve()) for split, path in wanted.items()},
            "logits": request.logits and file_sha256(request.logits),
            **{number: getattr(request, number) for number in numbers},
        }
    )
    protocol = "external" if request.split == "test" else f"external-{request.split}"
    directory = RunDirectory(run_path(request.out, name, request.method, request.backbone, protocol, 0, hash), hash)
    emulated = None if convention.name == "reference" else convention
    return ExternalJob(request, dataset, fingerprint, splits, files, emulated, protocol, directory, said)


def _check_truth(dataset: Dataset, split: Split, where: str) -> None:
    """Refuse a split that has nothing to compare maps with; its first image stands for all of them."""
    if dataset.info.has_boxes or dataset.info.has_masks:
        truth = split.annotation(split.ids[0])
        if truth.boxes_N4 is not None or truth.mask_HW is not None:
            return
    raise WsolbenchError(f"the images of {where} have neither boxes nor masks to compare maps with")


def _say_extra(files: Mapping[str, MapFiles], places: Mapping[str, str], dataset: str) -> list[str]:
    """A sentence for every place with maps that belong to no image; test and val may share one."""
    said = []
    for place in dict.fromkeys(places.values()):
        here = [split for split, path in places.items() if path == place]
        used = {name for split in here for name in files[split].names}
        extra = [name for name in files[here[0]].extra if name not in used]
        if extra:
            splits = " or ".join(f"{dataset}/{split}" for split in here)
            said.append(
                f"maps in '{place}' that belong to no image of {splits} are left out: {len(extra)}, first '{extra[0]}'"
            )
    return said


def _check(request: Request) -> None:
    for flag, value, known in (
        ("split", request.split, ("val", "test")),
        ("map-kind", request.map_kind, ("score", "raw")),
        ("geometry", request.geometry, ("resize", "centre-crop")),
        ("contours", request.contours, ("single", "multi")),
    ):
        if value not in known:
            raise unknown(f"--{flag}", value, known)
    if request.logits is not None:
        check_logits_path(request.logits)
    if not 0 < request.interval < 1:
        raise UsageError(f"--interval {request.interval}: expected a step between thresholds in (0, 1), e.g. 0.001")
    if request.val_maps and request.split == "val":
        raise UsageError("--val-maps choose the threshold for --split test: leave them out with --split val")
    if request.val_maps and request.geometry != "resize":
        raise UsageError("--val-maps choose the reference's threshold, which needs --geometry resize")
    if not request.method.strip("."):
        raise UsageError(f"'{request.maps}' gives the method no name: say one with --name NAME")
