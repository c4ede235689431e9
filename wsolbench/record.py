"""`RunRecord`: the schema-versioned summary of a finished run; written last, its presence means done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from wsolbench.errors import WsolbenchError

SCHEMA = 1
TIMES = (
    "train_seconds",
    "train_images_per_second",
    "eval_images_per_second",
    "selection_seconds",
    "search_train_seconds",
)  # keys of `RunRecord.cost`


@dataclass(frozen=True)
class Cell:
    """One number and who chose what it depends on. Values of different selectors never share a column."""

    metric: str  # "Top-1 Cls", "GT-known", "Top-1 Loc", "MaxBoxAccV2@.5", ...
    value: float  # fraction in [0, 1]
    low: float | None = None  # 95 % bootstrap interval over images
    high: float | None = None
    threshold: float | None = None
    threshold_by: str | None = None  # val-boxes | test-oracle | fixed:0.1 | None: the metric has no threshold
    oracle: bool = False  # test boxes chose its threshold; set by the code path that read them
    convention: str = "reference"  # whose evaluator is emulated
    checkpoint_by: str | None = None  # who chose the checkpoint, in a protocol matrix; None: the row's protocol

    @property
    def column(self) -> str:
        """Column title: metric@selector, and the convention in brackets where it is not the reference.

        >>> Cell("GT-known", 0.5, threshold_by="val-boxes").column
        'GT-known@val'
        >>> Cell("GT-known", 0.5, threshold_by="fixed:0.15", convention="bas").column
        'GT-known@fixed:0.15 [bas]'
        """
        selector = "" if self.threshold_by is None else f"@{self.threshold_by}"
        convention = "" if self.convention == "reference" else f" [{self.convention}]"
        return f"{self.metric}{'@val' if selector == '@val-boxes' else selector}{convention}"


WHERE_KNOWN = {"written": "where known"}  # left out of the JSON where there is nothing to say
NOT_ELSEWHERE = {"written": "unless trained elsewhere"}  # left out where nobody here can know
ELSEWHERE = "elsewhere"


@dataclass
class Ledger:
    """What touched the numbers of a run. Field names are the keys in `record.json`, in this order."""

    training: str | None = None  # own | classifier | none | elsewhere: maps that other code made
    labels: dict[str, int] | None = None  # images per split whose class label was used
    optimizer_steps: int | None = None
    annotations: list[dict[str, Any]] = field(
        default_factory=list
    )  # localisation ground truth: split, kind, purpose, images
    val_source: str | None = None  # where val comes from, if it is a hold-out from train: its size and seed
    checkpoint: str | None = None  # who chose it
    checkpoint_step: int | None = field(default=None, metadata=NOT_ELSEWHERE)
    checkpoints: int | None = field(default=None, metadata=NOT_ELSEWHERE)  # among how many was chosen
    threshold: str | None = None  # who chose it
    weights: dict[str, Any] | None = None  # before training: name, sha256, source
    pretraining_overlap: str | None = field(default=None, metadata=WHERE_KNOWN)  # what they have seen of the data
    pseudo_boxes: dict[str, Any] | None = field(default=None, metadata=WHERE_KNOWN)  # source, sha256, external models
    start: dict[str, Any] | None = None  # the checkpoint a run started from: path, sha256
    seeds: list[int] = field(default_factory=list)
    search: dict[str, Any] | str | None = (
        None  # `wsolbench.protocols.search.Found` as plain values, or why there is none
    )
    test_images: int | None = None
    subset: dict[str, Any] | None = field(default=None, metadata=WHERE_KNOWN)  # a given list: path, sha256, images
    skipped: dict[str, Any] | None = field(default=None, metadata=WHERE_KNOWN)  # images that cannot be read, and why
    weights_file: str | None = field(default=None, metadata=NOT_ELSEWHERE)  # in the run's folder
    matrix: list[dict[str, Any]] | None = field(default=None, metadata=WHERE_KNOWN)  # annotations of a protocol matrix
    more: dict[str, Any] = field(default_factory=dict)  # keys of another version

    @property
    def is_elsewhere(self) -> bool:
        """The maps were made by other code: who trained and who chose is not known."""
        return self.training == ELSEWHERE

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Ledger:
        """Read what `as_json` gave, or an older version."""
        known = {option.name for option in fields(cls)} - {"more"}
        ours = {key: value for key, value in content.items() if key in known}
        return cls(**ours, more={key: value for key, value in content.items() if key not in known})

    def as_json(self) -> dict[str, Any]:
        """As `record.json` holds it.

        >>> Ledger("elsewhere", test_images=3).as_json().keys() & {"checkpoint_step", "subset", "test_images"}
        {'test_images'}
        """
        written = {}
        for option in fields(self):
            value, says = getattr(self, option.name), option.metadata.get("written")
            is_left_out = (says == WHERE_KNOWN["written"] and value is None) or (
                says == NOT_ELSEWHERE["written"] and self.is_elsewhere
            )
            if option.name != "more" and not is_left_out:
                written[option.name] = value
        return written | self.more


@dataclass
class RunRecord:
    """What a run was and what came out. Field names are the keys of `record.json`."""

    method: str
    dataset: str
    backbone: str  # "-" for methods without a network
    protocol: str
    seed: int
    hash: str
    config: dict[str, Any]
    cells: list[Cell]
    ledger: Ledger
    cost: dict[
        str, float | None
    ]  # train_seconds, train_images_per_second, eval_images_per_second, parameters, trainable
    provenance: dict[str, Any]  # commit, dirty, versions, device, created, weights_sha256, data_fingerprint
    test_selected: bool = False  # the checkpoint or hyper-parameters saw test boxes: marks the row
    notes: list[str] = field(default_factory=list)
    errors: dict[str, dict[str, int]] = field(
        default_factory=dict
    )  # test images per error class, of GT-known, of Top-1
    matrix: list[Cell] = field(default_factory=list)  # every checkpoint selector with every threshold selector
    schema: int = SCHEMA


def to_json(record: RunRecord) -> str:
    """The text of `record.json`."""
    return json.dumps(as_json(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_json(record: RunRecord) -> dict[str, Any]:
    """The content of `record.json`."""
    return asdict(record) | {"ledger": record.ledger.as_json()}


def read_record(path: str | Path) -> RunRecord:
    """Read a `record.json`; one of a newer schema, or a damaged one, is a `WsolbenchError`."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        schema = int(content["schema"])
        if schema <= SCHEMA:
            content["cells"] = [_checked(Cell(**cell)) for cell in content["cells"]]
            content["matrix"] = [_checked(Cell(**cell)) for cell in content.get("matrix", ())]
            content["ledger"] = _checked(Ledger.of(content["ledger"]))
            return _checked(RunRecord(**content))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise WsolbenchError(
            f"record '{path}' could not be read ({type(error).__name__}: {error}): it is damaged or not a record of "
            "wsolbench; move it away, or run again with --rerun"
        ) from error
    raise WsolbenchError(
        f"record '{path}' has schema {schema}, this version of wsolbench reads up to {SCHEMA}: upgrade wsolbench, "
        "or write to another --out"
    )


_Stored = TypeVar("_Stored", Cell, Ledger, RunRecord)


def _checked(stored: _Stored) -> _Stored:
    """The same, after a `TypeError` for a field that holds something else than its annotation says."""
    kind: Any = type(stored)  # hashable, which mypy doubts
    for name, hint in _hints(kind).items():
        value = getattr(stored, name)
        if not _fits(value, hint):
            raise TypeError(f"{name} is {str(value)[:40]!r}")
    return stored


@lru_cache
def _hints(of: Any) -> dict[str, Any]:
    return get_type_hints(of)


def _fits(value: object, hint: Any) -> bool:
    parts = get_args(hint)
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_fits(item, parts[0]) for item in value)
    if get_origin(hint) is dict:
        return isinstance(value, dict) and all(_fits(item, parts[1]) for item in value.values())
    if parts:
        return any(_fits(value, part) for part in parts)
    if hint is Any:
        return True
    if isinstance(value, bool):  # is an int, in Python
        return hint is bool
    return isinstance(value, int | float if hint is float else hint)


def search_text(search: object) -> str:
    """What a ledger's `search` says, in a few words; other than the values chosen, which are a note of each run.

    >>> search_text({"trials": 8, "by": "val-boxes", "space": "badges", "space_sha256": "0123456789", "defaults": "experiment badges"})
    '8 trials by val-boxes in space badges (01234567), the rest from experiment badges'
    """
    if not isinstance(search, dict):
        return str(search or "")
    if not search.get("trials"):
        return "nothing to search"
    space = f"{search.get('space')} ({str(search.get('space_sha256'))[:8]})"
    return f"{search['trials']} trials by {search.get('by')} in space {space}, the rest from {search.get('defaults')}"


def comparable(record: RunRecord) -> dict[str, Any]:
    """The record without what may differ between two equal runs: times, when it was made, and where it lies."""
    content = as_json(record)
    content["cost"] = {name: value for name, value in content["cost"].items() if name not in TIMES}
    content["config"] = {name: value for name, value in content["config"].items() if name != "out"}
    content["provenance"] = {name: value for name, value in content["provenance"].items() if name != "created"}
    return content
