"""record.json: what is written is what is read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from wsolbench.errors import WsolbenchError
from wsolbench.record import SCHEMA, Cell, Ledger, RunRecord, comparable, read_record, to_json


def record() -> RunRecord:
    return RunRecord(
        method="sat",
        dataset="badges",
        backbone="-",
        protocol="full",
        seed=0,
        hash="ab",
        config={"out": "here", "seed": 0},
        cells=[Cell("GT-known", 0.1 + 0.2, 0.0, 1.0, 0.07, "val-boxes")],
        ledger=Ledger(),
        cost={"train_seconds": 1.0, "train_images_per_second": 2.0, "eval_images_per_second": 3.0, "parameters": 4},
        provenance={"created": "now", "commit": "c"},
    )


def test_round_trip_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(to_json(record()))
    assert read_record(path) == record()


def test_a_record_without_error_classes_is_still_read(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    content = json.loads(to_json(replace(record(), errors={"GT-known": {"hit": 1}})))
    assert content.pop("errors") == {"GT-known": {"hit": 1}}  # as written before there were any
    path.write_text(json.dumps(content))
    assert read_record(path) == record()


def test_a_record_from_before_conventions_is_the_reference(tmp_path: Path) -> None:
    content = json.loads(to_json(record()))
    assert content["cells"][0].pop("convention") == "reference"
    path = tmp_path / "record.json"
    path.write_text(json.dumps(content))
    assert read_record(path) == record()


def test_not_a_number_is_never_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(replace(record(), cost={"train_seconds": float("nan")}))


def test_a_newer_schema_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    content = json.loads(to_json(record())) | {"schema": SCHEMA + 1, "new_field": 1}
    path.write_text(json.dumps(content))
    with pytest.raises(WsolbenchError, match=rf"has schema {SCHEMA + 1}, .* reads up to {SCHEMA}: upgrade"):
        read_record(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": 1}', '{"schema": 1, "cells": [], "what": 0}'])
def test_a_damaged_record_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(WsolbenchError, match=r"could not be read .* damaged or not a record"):
        read_record(path)


def test_comparable_drops_times_and_place_and_nothing_else() -> None:
    one = record()
    times = {"train_seconds": 9.0, "train_images_per_second": 9.0, "eval_images_per_second": 9.0}
    other = replace(
        one,
        cost=one.cost | times,
        provenance=one.provenance | {"created": "later"},
        config=one.config | {"out": "there"},
    )
    assert comparable(one) == comparable(other)
    for changed in (
        replace(one, seed=1),
        replace(one, cells=[replace(one.cells[0], value=0.3)]),
        replace(one, cost=one.cost | {"parameters": 5}),
        replace(one, provenance=one.provenance | {"commit": "d"}),
        replace(one, config=one.config | {"seed": 1}),
    ):
        assert comparable(one) != comparable(changed)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("config", 3), ("ledger", None), ("seed", "zero"), ("seed", True), ("cost", {"train_seconds": "long"}),
        ("notes", "one"), ("matrix", 5), ("matrix", [3]), ("errors", {"GT-known": 1}), ("test_selected", None),
        ("cells", [{"metric": "GT-known", "value": "much"}]), ("cells", [{"metric": "GT-known", "value": None}]),
        ("cells", [{"metric": "GT-known"}]),
    ],
)  # fmt: skip
def test_a_field_of_another_type_is_a_damaged_record(tmp_path: Path, where: str, value: object) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps(json.loads(to_json(record())) | {where: value}))
    with pytest.raises(WsolbenchError, match=r"record.json' could not be read \(\w+Error: .*damaged"):
        read_record(path)
