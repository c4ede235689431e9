"""A configuration opened: names resolved, data opened, images drawn, identity known; nothing is computed yet."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from wsolbench import distributed
from wsolbench.config.check import check_run
from wsolbench.config.identity import deciding_run, plugin_identity
from wsolbench.config.naming import full_name
from wsolbench.config.schema import ProtocolConfig, RunConfig
from wsolbench.config.selectors import PSEUDO, Selector, parse_checkpoint, parse_threshold
from wsolbench.conventions import CONVENTIONS, Convention, get_convention
from wsolbench.data.bad_images import BadImages
from wsolbench.data.dataset import Dataset, create_dataset
from wsolbench.data.split import Split
from wsolbench.errors import UsageError
from wsolbench.method.base import Method
from wsolbench.options import Named, build_dataset_config, build_method_config
from wsolbench.protocols.images import Chosen, choose_images
from wsolbench.protocols.needs import check_annotated
from wsolbench.protocols.search import open_search
from wsolbench.pseudo_boxes.folder import PseudoBoxes, read_pseudo_boxes
from wsolbench.registry import DATASETS, METHODS
from wsolbench.runs.directory import RunDirectory, run_path
from wsolbench.runs.job import Job
from wsolbench.runs.track import check_tracker
from wsolbench.system.hashing import digest, file_sha256
from wsolbench.system.preflight import check_device, check_writable
from wsolbench.system.progress import Reporter, Silent
from wsolbench.training.plan import training_plan


@dataclass
class Session:
    """What the runs of one command share: opened data sets, and which classifiers were trained by it."""

    reporter: Reporter = field(default_factory=Silent)
    datasets: dict[str, tuple[Dataset, str]] = field(default_factory=dict)  # with their fingerprints
    trained: set[Path] = field(default_factory=set)
    bad_images: BadImages = field(init=False)

    def __post_init__(self) -> None:
        self.bad_images = BadImages(self.reporter)

    def dataset(self, config: RunConfig) -> tuple[Dataset, str]:
        key = digest([config.dataset, config.root])
        if key not in self.datasets:
            name, options = Named.of(config.dataset)
            dataset = create_dataset(name, root=config.root, **options)
            self.datasets[key] = dataset, dataset.fingerprint()
        return self.datasets[key]


def open_job(config: RunConfig, session: Session, device: torch.device | None = None) -> Job:
    """Resolve every name, open the data, draw the images; `UsageError` if something does not exist or fit.

    A `device` that is given is another machine's: it is not looked for here.
    """
    check_run(config)
    check_tracker(config.track)
    device = device or resolve_device(config.device)
    method_class: type[Method] = METHODS.get(config.method["name"])
    backbone = config.backbone or method_class.default_backbone
    plugins = {
        "method": plugin_identity(build_method_config, method_class, config.method),
        "dataset": plugin_identity(build_dataset_config, DATASETS.get(config.dataset["name"]), config.dataset),
        "backbone": backbone,
    }
    check_writable(Path(config.out))

    dataset, fingerprint = session.dataset(config)
    chosen = choose_images(config, dataset, fingerprint, session.bad_images)
    choosing = _choosing(config, dataset, chosen, is_trained=method_class.training != "none")
    convention, convention_split = _convention(config, dataset, chosen, session)
    plan = training_plan(config.train, config.protocol.budget, len(chosen.indices), len(chosen.train_split))
    search = None
    if config.search.trials is not None:
        trains = plan.steps > 0 and method_class.training_for(backbone) != "none"
        search = open_search(
            config, backbone, choosing.checkpoint, choosing.there, dataset.info.has_boxes, trains=trains
        )

    name = full_name(
        config.protocol.name, subset=choosing.subset, boxes=choosing.boxes, search=search.part if search else ""
    )
    config = replace(config, protocol=replace(config.protocol, name=name))
    weights = _weights(config, backbone)
    identity = {"config": deciding_run(config) | plugins, "data": fingerprint, "method_version": method_class.version}
    identity |= {"weights": weights, "device": device.type} | _files(config, chosen, choosing.pseudo)
    return Job(
        config=config,
        method_class=method_class,
        backbone=backbone,
        dataset=dataset,
        fingerprint=fingerprint,
        device=device,
        chosen=chosen,
        convention=convention,
        convention_split=convention_split,
        checkpoint=choosing.checkpoint,
        threshold=choosing.threshold,
        pseudo=choosing.pseudo,
        plan=plan,
        weights=weights,
        identity=identity,
        directory=_directory(config, backbone, identity if search is None else search.identity(identity)),
        search=search,
    )


@dataclass(frozen=True)
class _Choosing:
    """Who chooses, and by what."""

    checkpoint: Selector
    threshold: Selector
    pseudo: PseudoBoxes | None
    subset: str  # SHA-256 of a list of images that makes the protocol another one
    there: dict[str | None, bool]  # annotations, by what a selector looks at

    @property
    def boxes(self) -> str:
        """Whose pseudo-boxes are chosen by; boxes of another source make another protocol."""
        is_asked = PSEUDO in (self.checkpoint.name, self.threshold.name)
        return self.pseudo.source if self.pseudo is not None and is_asked else ""


def _choosing(config: RunConfig, dataset: Dataset, chosen: Chosen, *, is_trained: bool) -> _Choosing:
    """The protocol's selectors; refused where what they look at is not there."""
    annotated = {"val": chosen.val_split.annotated, "test": chosen.test_split.annotated}
    subset = chosen.names_protocol(config.protocol)
    protocol = replace(config.protocol, name=full_name(config.protocol.name, subset=subset))
    check_annotated(protocol, config.dataset["name"], annotated, dataset.info.has_boxes, is_trained=is_trained)
    pseudo = read_pseudo_boxes(protocol.pseudo_boxes, chosen.val_split) if protocol.pseudo_boxes else None
    there = {None: True, "test": True, "val": annotated["val"], PSEUDO: pseudo is not None}
    return _Choosing(*_selectors(protocol, pseudo), pseudo, subset, there)


def _files(config: RunConfig, chosen: Chosen, pseudo: PseudoBoxes | None) -> dict[str, Any]:
    """What the files that a configuration names hold, as far as it decides numbers."""
    checkpoint = config.checkpoint and file_sha256(config.checkpoint)
    return {"checkpoint": checkpoint, **chosen.identity()} | ({"pseudo_boxes": pseudo.sha256} if pseudo else {})


def _directory(config: RunConfig, backbone: str | None, identity: dict[str, Any]) -> RunDirectory:
    """Where the run lies: its path tells what it is, and ends in the hash of all that decides it."""
    hash = digest(identity)
    dataset, method, protocol = config.dataset["name"], config.method["name"], config.protocol.name
    path = run_path(config.out, dataset, method, backbone or "-", protocol, config.seed, hash)
    return RunDirectory(path, hash)


def _selectors(protocol: ProtocolConfig, pseudo: PseudoBoxes | None) -> tuple[Selector, Selector]:
    """The protocol's selectors; one that goes by pseudo-boxes says whose, and refuses those of another source."""
    chosen = []
    for selector in (parse_checkpoint(protocol.checkpoint), parse_threshold(protocol.threshold)):
        if selector.name == PSEUDO and pseudo:
            if selector.argument not in ("", pseudo.source):
                raise UsageError(
                    f"protocol '{protocol.name}' chooses by '{selector}', but '{protocol.pseudo_boxes}' holds "
                    f"pseudo-boxes of '{pseudo.source}'"
                )
            selector = Selector(selector.name, pseudo.source)
        chosen.append(selector)
    return chosen[0], chosen[1]


def _convention(
    config: RunConfig, dataset: Dataset, chosen: Chosen, session: Session
) -> tuple[Convention | None, Split]:
    """The convention asked for beside the reference, and test as it must see it."""
    convention, name = get_convention(config.evaluate.convention), config.dataset["name"]
    if convention.name == "reference":
        return None, chosen.test_split
    if not dataset.info.has_boxes:
        raise UsageError(f"convention '{convention.name}' compares boxes, but {name} has masks and no boxes")
    if convention.geometry == dataset.info.geometry:
        return convention, chosen.test_split
    if "geometry" not in {option.name for option in fields(type(dataset).Config)}:
        alone = " or ".join(f"'{other}'" for other in CONVENTIONS if other.startswith(f"{convention.name} ("))
        raise UsageError(
            f"evaluate.convention={convention.name} needs images cut as its authors do, and data set '{name}' shows them "
            f"one way only: take {alone}, which scores the same maps"
        )
    other, _ = session.dataset(replace(config, dataset=config.dataset | {"geometry": convention.geometry}))
    return convention, chosen.without_bad("test", other.split("test"))


def resolve_device(name: str) -> torch.device:
    """auto: CUDA if there is any, else the CPU. Among several processes each takes a GPU of its own.

    >>> resolve_device("cpu").type
    'cpu'
    """
    check_device(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and distributed.world() > 1:
        return torch.device("cuda", distributed.local_rank())
    return torch.device(name)


def _weights(config: RunConfig, backbone: str | None) -> dict[str, Any] | None:
    """Name, SHA-256 and source of the pretrained weights a run starts from."""
    if backbone is None or not config.pretrained:
        return None
    from wsolbench.backbones.embedded import weights_sha256

    sha256 = weights_sha256(backbone)
    return {"name": backbone, "sha256": sha256, "source": "timm" if sha256 is None else "wsolbench"}
