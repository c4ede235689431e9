"""`RunConfig`: everything that decides a run's numbers, composed by Hydra from dataclasses, YAML and overrides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import PurePath
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from wsolbench.conventions import get_convention
from wsolbench.errors import UsageError, unknown
from wsolbench.protocols.select import parse_checkpoint, parse_search, parse_threshold


class Optimizer(Enum):
    adamw = "adamw"
    sgd = "sgd"


class Schedule(Enum):
    constant = "constant"
    cosine = "cosine"
    step = "step"


class Dtype(Enum):
    """fp32: as it is; tf32: fp32 whose matrix products round their factors (CUDA); bf16, fp16: autocast."""

    fp32 = "fp32"
    tf32 = "tf32"
    bf16 = "bf16"
    fp16 = "fp16"


class Budget(Enum):
    steps = "steps"
    epochs = "epochs"


class OnBadImage(Enum):
    error = "error"
    skip = "skip"


@dataclass
class TrainConfig:
    """How a network is trained. `steps` (optimizer steps in all) wins over `epochs` where it is given."""

    epochs: int = 30
    steps: int | None = None
    batch_size: int = 64
    optimizer: Optimizer = Optimizer.adamw
    lr: float = 1e-4
    head_lr_scale: float = 1.0
    weight_decay: float = 0.05
    momentum: float = 0.9
    schedule: Schedule = Schedule.constant
    warmup_steps: int = 0
    milestones: list[int] = field(default_factory=list)  # epochs at which lr is multiplied by gamma (schedule=step)
    gamma: float = 0.1
    workers: int = 0
    dtype: Dtype = Dtype.fp32  # of forward and backward passes; weights and optimizer stay float32 (docs/speed.md)
    compile: bool = False  # torch.compile the loss
    channels_last: bool = False  # memory layout, for CNNs on a GPU
    accumulate: int = 1  # parts into which a batch is split, one after another in memory
    checkpoint_gradients: bool = False  # compute activations again in the backward pass instead of keeping them


@dataclass
class ProtocolConfig:
    """Training data x checkpoint selector x threshold selector (DESIGN: semantics of a protocol)."""

    name: str = "full"
    shots: int | None = None  # training images per class; None: all
    fraction: float | None = None  # of every class's training images, at least one; None: all
    budget: Budget = Budget.steps  # what a k-shot run shares with the full run: optimizer steps, or epochs
    checkpoint: str = "last"  # who chooses the checkpoint (wsolbench.protocols.select)
    threshold: str = "val-boxes"  # who chooses the threshold
    val_per_class: int | None = None  # boxed val images per class used for selection; None: all
    select_every: int = 1  # epochs between the checkpoints among which is chosen; one before training is among them
    pseudo_boxes: str | None = None  # folder of pseudo-boxes of val, for val-pseudo
    matrix: bool = False  # also score every checkpoint selector with every threshold selector


@dataclass
class DataConfig:
    """Which images of the data set are used. What follows from it is part of a run's identity, not how it was said."""

    on_bad_image: OnBadImage = OnBadImage.error  # skip: leave out images that cannot be read; the record names them
    subset: str | None = None  # file of the images to train on: subset.json of a run, or one id per line


@dataclass
class EvaluateConfig:
    """How maps are made and scored; numbers do not depend on `workers`, `threads` and `save_every`."""

    batch_size: int = 64
    interval: float = 0.01  # spacing of the thresholds among which a selector chooses
    convention: str = "reference"  # whose evaluator scores test in addition, in columns of its own (docs/metrics.md)
    workers: int = 0
    threads: int = 1  # batches of maps that are scored at a time, beside the forward pass
    save_every: float = 30.0  # seconds between saved parts of an unfinished evaluation
    dtype: Dtype = Dtype.fp32  # of the forward pass; maps are scored in float64 whatever it is
    compile: bool = False  # torch.compile the localisation
    channels_last: bool = False  # memory layout, for CNNs on a GPU


@dataclass
class SearchConfig:
    """Hyper-parameter search (`wsolbench.runs.search`): as many trials for every method; without `trials` a run is untuned."""

    trials: int | None = None
    by: str | None = None  # who chooses among the trials (a checkpoint selector); None: the protocol's, else val-boxes
    space: str | None = (
        None  # what is searched: a name in config/presets/search or a file; None: the data set's, else realistic
    )
    found: dict[str, Any] | None = None  # what the search chose, and how: in the config.yaml of a run that searched


@dataclass
class RunConfig:
    """One run: a method on a data set under a protocol, with a seed.

    `method` and `dataset` are {"name": ..., option: value, ...}; their options are those of the plug-in's `Config`.
    """

    method: dict[str, Any]
    dataset: dict[str, Any]
    backbone: str | None = None
    pretrained: bool = True
    checkpoint: str | None = None
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    data: DataConfig = field(default_factory=DataConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    seed: int = 0
    device: str = "auto"
    root: str | None = None  # where the data set lies
    out: str = "results"  # runs are written below out/runs
    track: str | None = None  # where the run can be watched (wsolbench.runs.track)
    experiment: str | None = None  # the recipe file the values came from
    recipe: str | None = None  # and its variant, e.g. paper; None: what the authors' code does


# What the field of a plug-in's Config says about itself, as `field(default=..., metadata=IDLE)`.
IDLE = {"decides": "nothing"}  # a path, a speed: the same numbers whatever its value
YOUNG = {"decides": "unless default"}  # added when there were runs already: their hashes hold at the default


def deciding(config: Any) -> dict[str, Any]:
    """The options of a plug-in that decide numbers: without IDLE fields, and without YOUNG ones that have their default.

    >>> @dataclass
    ... class Config:
    ...     proxy: bool = False
    ...     geometry: str = field(default="resize", metadata=YOUNG)
    ...     cache: str | None = field(default=None, metadata=IDLE)
    >>> deciding(Config(cache="pixels")), deciding(Config(geometry="centre-crop"))
    ({'proxy': False}, {'proxy': False, 'geometry': 'centre-crop'})
    """
    kept = {}
    for option in fields(config):
        value, decides = getattr(config, option.name), option.metadata.get("decides")
        if decides is None or (decides == YOUNG["decides"] and value != option.default):
            kept[option.name] = value
    return kept


def deciding_text(config: Any) -> str:
    """`deciding` as text, in the form of a dataclass's `repr`."""
    return f"{type(config).__qualname__}({', '.join(f'{name}={value!r}' for name, value in deciding(config).items())})"


def to_yaml(config: RunConfig) -> str:
    """The run as plain YAML, the content of `config.yaml`."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def from_yaml(text: str, source: str = "config.yaml") -> RunConfig:
    """The run that `to_yaml` wrote; anything else is refused in one sentence that names `source`."""
    from wsolbench.registry import DATASETS, METHODS

    try:
        content = OmegaConf.create(text)
        if not isinstance(content, DictConfig) or not {"method", "dataset", "protocol"} <= {*content}:
            raise UsageError(f"'{source}' is not the config.yaml of a run: it has no method, dataset and protocol")
        config = cast(DictConfig, OmegaConf.merge(OmegaConf.structured(RunConfig), content))
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        raise UsageError(f"'{source}' is not the config.yaml of a run: {reason(error)}") from error
    for owner, registry, build in (
        ("method", METHODS, build_method_config),
        ("dataset", DATASETS, build_dataset_config),
    ):
        values = cast(dict[str, Any], OmegaConf.to_container(config[owner], resolve=True))
        name = values.pop("name", None)
        if not isinstance(name, str):
            raise UsageError(f"'{source}' is not the config.yaml of a run: its {owner} has no name")
        config[owner] = {"name": name, **plain(OmegaConf.structured(build(registry.get(name), name, values)))}
    return checked(config)


def checked(config: DictConfig) -> RunConfig:
    """The typed run, after refusing values that no run can have."""
    try:
        run = cast(RunConfig, OmegaConf.to_object(config))
    except OmegaConfBaseException as error:
        raise UsageError(reason(error)) from error
    for key, least in (
        ("train.epochs", 0),
        ("train.steps", 0),
        ("train.batch_size", 1),
        ("train.workers", 0),
        ("train.accumulate", 1),
        ("train.warmup_steps", 0),
        ("train.lr", 0),
        ("protocol.shots", 1),
        ("protocol.val_per_class", 1),
        ("protocol.select_every", 1),
        ("search.trials", 1),
        ("evaluate.batch_size", 1),
        ("evaluate.workers", 0),
        ("evaluate.threads", 1),
        ("seed", 0),
    ):
        value = OmegaConf.select(config, key)
        if value is not None and not value >= least:  # nan is not
            raise UsageError(f"{key}={value} is impossible: the least is {least}")
    get_convention(run.evaluate.convention)
    if not 0 < run.evaluate.interval < 1:
        raise UsageError(f"evaluate.interval={run.evaluate.interval} is impossible: it lies between 0 and 1")
    if run.protocol.fraction is not None and not 0 < run.protocol.fraction <= 1:
        raise UsageError(f"protocol.fraction={run.protocol.fraction} is impossible: it lies in (0, 1]")
    if run.protocol.fraction is not None and run.protocol.shots is not None:
        raise UsageError("protocol.shots and protocol.fraction contradict each other: give one of them")
    parse_checkpoint(run.protocol.checkpoint)
    parse_threshold(run.protocol.threshold)
    if run.search.by is not None:
        parse_search(run.search.by)
    if run.search.trials is None and (run.search.by, run.search.space) != (None, None):
        raise UsageError("search.by and search.space say how to search, but nothing is searched: add --search 8")
    return run


def plain(config: DictConfig) -> dict[str, Any]:
    """Structured options as YAML can hold them: enums by name, paths as text."""
    return cast(dict[str, Any], _without_paths(OmegaConf.to_container(config, resolve=True, enum_to_str=True)))


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_paths(held) for key, held in value.items()}
    if isinstance(value, list):
        return [_without_paths(held) for held in value]
    return value.as_posix() if isinstance(value, PurePath) else value


def reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _filled(config_class: type[Any], owner: str, values: Mapping[str, Any]) -> Any:
    config = OmegaConf.structured(config_class)
    for key in values:
        if key not in config:
            raise unknown(f"option of {owner}", key, map(str, config))
    try:
        return OmegaConf.to_object(OmegaConf.merge(config, dict(values)))
    except OmegaConfBaseException as error:
        raise UsageError(f"option of {owner}: {reason(error)}") from error


def build_method_config(cls: type[Any], name: str, values: Mapping[str, Any]) -> Any:
    """The method's Config with `values` set; unknown keys are errors with suggestions."""
    return _filled(cls.Config, f"method '{name}'", values)


def build_dataset_config(cls: type[Any], name: str, values: Mapping[str, Any]) -> Any:
    """The data set's Config with `values` set; unknown keys are errors with suggestions."""
    return _filled(cls.Config, f"data set '{name}'", values)
