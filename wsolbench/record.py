"""`RunRecord`: the schema-versioned summary of a finished run; written last, its presence means done."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
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
    ledger: dict[str, Any]  # what touched the numbers: labels, boxes of which split for what, weights, seeds
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
    return json.dumps(asdict(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_record(path: str | Path) -> RunRecord:
    """Read a `record.json`; one of a newer schema, or a damaged one, is a `WsolbenchError`."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        schema = int(content["schema"])
        if schema <= SCHEMA:
            content["cells"] = [_checked(Cell(**cell)) for cell in content["cells"]]
            content["matrix"] = [_checked(Cell(**cell)) for cell in content.get("matrix", ())]
            return _checked(RunRecord(**content))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise WsolbenchError(
            f"record '{path}' could not be read ({type(error).__name__}: {error}): it is damaged or not a record of "
            "wsolbench; move it away, or run again with --rerun"
        ) from error
    raise WsolbenchError(
        f"record '{path}' has schema {schema}, this version of wsolbench reads up to {SCHEMA}: upgrade wsolbench, "
        "or write to another --out"
    )


_Stored = TypeVar("_Stored", Cell, RunRecord)


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
    content = asdict(record)
    content["cost"] = {name: value for name, value in content["cost"].items() if name not in TIMES}
    content["config"] = {name: value for name, value in content["config"].items() if name != "out"}
    content["provenance"] = {name: value for name, value in content["provenance"].items() if name != "created"}
    return content
