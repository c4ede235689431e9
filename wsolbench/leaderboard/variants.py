"""Which records of a method are one row of a table but for their seed, and what tells its rows apart."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Sequence
from typing import Any

from wsolbench.config.identity import deciding_values
from wsolbench.record import RunRecord

_SAID = re.compile(r"seed|backbone|dataset(\..*)?|method\.name|protocol\.name")
"""Deciding options that the table or the seeds stand for."""


def untrained(record: RunRecord) -> bool:
    """Nothing was trained for the run: a control or a trivial baseline."""
    training = record.ledger.training
    if training is not None:
        return bool(training == "none")
    return not record.cost.get("train_seconds") and not record.cost.get("trainable")


def device(record: RunRecord) -> str:
    """The device a run used and its name, as one text."""
    kind, name = record.provenance.get("device"), record.provenance.get("device_name")
    return f"{kind or 'unknown device'} ({name})" if name else str(kind or "unknown device")


def flat(options: dict[str, Any], prefix: str = "") -> dict[str, Hashable]:
    """Nested options as dotted keys with hashable values; None is left out, as if never given."""
    result: dict[str, Hashable] = {}
    for key, value in options.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            result[f"{prefix}{key}"] = json.dumps(value) if isinstance(value, list) else value
    return result


def variant_of(record: RunRecord) -> dict[str, Hashable]:
    """All that makes a run what it is, but for the seed and what its table says.

    Options are those that are in a run's hash (`wsolbench.config.identity`); of those that are not, what followed from them.
    """
    options = {key: value for key, value in flat(deciding_values(record.config)).items() if not _SAID.fullmatch(key)}
    search = _section(record.config, "search")
    found = _section(search, "found")
    if found:  # the search decides: its seeds are one row, whatever each of them chose
        options = {key: value for key, value in options.items() if key not in found["distributions"]}
        options["search.space"] = f"{found['space']} {found['space_sha256'][:8]}"
    elif search.get("space"):
        options["search.space"] = search["space"]
    options |= {f"search.{key}": search[key] for key in ("trials", "by") if search.get(key) is not None}
    if untrained(record):  # a sweep over training settings does not make a second centre box
        options = {key: value for key, value in options.items() if not key.startswith("train.")}
    return options | _consequences(record) | _made_by(record)


def _section(options: dict[str, Any], name: str) -> dict[str, Any]:
    """A part of the options; empty where it is absent, as in older records."""
    found = options.get(name)
    return found if isinstance(found, dict) else {}


def _consequences(record: RunRecord) -> dict[str, str]:
    """What files led to that are named outside the hash: by content where the record knows it, else by path."""
    config, ledger = record.config, record.ledger
    pseudo_boxes = _section(config, "protocol").get("pseudo_boxes")
    named = {
        "checkpoint": (config.get("checkpoint"), ledger.start),
        "pseudo_boxes": (pseudo_boxes, ledger.pseudo_boxes),
        "subset": (_section(config, "data").get("subset"), ledger.subset),
    }
    found = {key: _content(path, of) for key, (path, of) in named.items() if path is not None or of}
    return found | ({"on_bad_image": "skip"} if ledger.skipped else {})


def _content(path: object, ledger: object) -> str:
    sha256 = ledger.get("sha256") if isinstance(ledger, dict) else None
    return str(sha256)[:8] if sha256 else str(path)


def _made_by(record: RunRecord) -> dict[str, str]:
    weights = str(record.provenance.get("weights_sha256") or "none")[:8]
    version = str(record.provenance.get("method_version"))
    made = {"device": device(record), "weights": weights, "version": version}
    return made | {"data": str(record.provenance.get("data_fingerprint") or "")[:8]}


def differences(options: Sequence[dict[str, Hashable]], limit: int = 3) -> list[str]:
    """For each of several option sets, the options in which they differ, as "key=value, ..." with short keys.

    >>> differences([{"train.lr": 0.1, "train.epochs": 3}, {"train.lr": 0.2, "train.epochs": 3}])
    ['lr=0.1', 'lr=0.2']
    """
    missing = object()
    keys = sorted({key for each in options for key in each})
    differing = [key for key in keys if len({each.get(key, missing) for each in options}) > 1]
    tails = [key.rsplit(".", 1)[-1] for key in differing]
    names = {key: tail if tails.count(tail) == 1 else key for key, tail in zip(differing, tails, strict=True)}
    texts = []
    for each in options:
        parts = [f"{names[key]}={each[key]}" for key in differing if key in each]
        texts.append(", ".join(parts[:limit]) + (f", {len(parts) - limit} more" if len(parts) > limit else ""))
    return texts
