"""The published numbers: every line is sound, none was changed, and sources that disagree are found."""

from __future__ import annotations

import csv
from collections import defaultdict
from importlib.resources import files
from pathlib import Path

import pytest

from wsolbench.errors import WsolbenchError
from wsolbench.leaderboard.formats import show
from wsolbench.leaderboard.reported import BACKBONES, DATASETS, HEADER, METHODS, METRICS, contradictions, read_reported
from wsolbench.leaderboard.tables.reported import contradictions_document
from wsolbench.registry import DATASETS as DATASET_REGISTRY
from wsolbench.registry import METHODS as METHOD_REGISTRY

LINE = "CAM,2016,CVPR,VGG16,CUB-200-2011,Top-1 Loc,{value},note,{source}\n"


def write(folder: Path, *lines: str) -> Path:
    path = folder / "reported.csv"
    path.write_text(",".join(HEADER) + "\n" + "".join(lines))
    return path


def test_the_shipped_list_is_read_line_by_line_as_it_is_written() -> None:
    with (files("wsolbench.leaderboard") / "reported.csv").open(encoding="utf-8", newline="") as file:
        raw = list(csv.DictReader(file))
    entries = read_reported()
    assert len(entries) == len(raw) > 1000
    for entry, row in zip(entries, raw, strict=True):
        assert [getattr(entry, "text" if name == "value" else name) for name in HEADER] == [
            int(value) if name == "year" else value for name, value in row.items()
        ]


def test_no_line_stands_twice_and_each_says_its_source_and_protocol() -> None:
    entries = read_reported()
    assert len(set(entries)) == len(entries)
    assert all(entry.source and entry.protocol_note for entry in entries)
    years = defaultdict(set)
    for entry in entries:
        years[entry.method].add(entry.year)
    assert all(len(each) == 1 for each in years.values())


def test_within_a_source_localisation_only_gets_harder() -> None:
    """Top-1 Loc <= Top-5 Loc <= GT-known for one method, backbone, data set, source and protocol."""
    found = defaultdict(dict)
    for entry in read_reported():
        found[entry.method, entry.backbone, entry.dataset, entry.source, entry.protocol_note][entry.metric] = (
            entry.value
        )
    checked = 0
    for key, values in found.items():
        order = [values[name] for name in ("Top-1 Loc", "Top-5 Loc", "GT-known Loc") if name in values]
        assert order == sorted(order), key
        checked += len(order) > 1
    assert checked > 150


def test_names_of_ours_stand_for_names_that_were_printed() -> None:
    entries = read_reported()
    assert set(DATASETS.values()) <= {entry.dataset for entry in entries}
    assert set(METHODS.values()) <= {entry.method for entry in entries}
    assert set(BACKBONES.values()) <= {entry.backbone for entry in entries}
    assert set(METRICS) <= {entry.metric for entry in entries}
    assert set(DATASETS) <= set(DATASET_REGISTRY.names())
    assert set(METHODS) - {"bas"} <= set(METHOD_REGISTRY.names())  # bas: known to come


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["CAM,2016,CVPR\n"], r"line 2: expected 9 columns"),
        ([LINE.format(value="41.06", source="a"), LINE.format(value="n/a", source="b")], r"line 3: expected a number"),
        ([LINE.format(value="141.06", source="a")], r"line 2: expected a number, in percent or a cosine, got '141.06'"),
        ([LINE.format(value="nan", source="a")], r"line 2: expected a number"),
        ([LINE.format(value="41", source="")], r"line 2: expected a source without blanks around it, got ''"),
        ([LINE.format(value="41", source="a").replace("2016", "16")], r"line 2: expected a year, got '16'"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, lines: list[str], said: str) -> None:
    with pytest.raises(WsolbenchError, match=said):
        read_reported(write(tmp_path, *lines))


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(WsolbenchError, match="line 1: expected the columns method,year"):
        read_reported(tmp_path / "other.csv")
    with pytest.raises(WsolbenchError, match="could not be read"):
        read_reported(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("values", "disagree"),
    [
        (("41.06", "41.06"), False),
        (("41.06", "41.1"), False),  # rounding explains it
        (("41.06", "41.2"), True),
        (("41.06", "41.07"), True),
        (("41.149", "41.1"), False),
        (("41.25", "41.2", "41.3"), True),  # each agrees with the first, not with each other
    ],
)
def test_only_what_rounding_does_not_explain_is_a_contradiction(
    tmp_path: Path, values: tuple[str, ...], disagree: bool
) -> None:
    lines = [LINE.format(value=value, source=f"source {place}") for place, value in enumerate(values)]
    assert bool(contradictions(read_reported(write(tmp_path, *lines)))) is disagree


def test_one_source_that_prints_two_numbers_contradicts_nobody(tmp_path: Path) -> None:
    lines = [LINE.format(value=value, source="the same") for value in ("10", "20")]
    assert not contradictions(read_reported(write(tmp_path, *lines)))


def test_contradictions_of_the_shipped_list_name_their_sources() -> None:
    found = contradictions(read_reported())
    cells = {each.entries[0].cell for each in found}
    assert ("CUB-200-2011", "DeiT-S", "SAT", "GT-known Loc") in cells
    assert [each.spread for each in found] == sorted((each.spread for each in found), reverse=True)
    text = show(contradictions_document(found), "markdown") or ""
    [line] = [line for line in text.splitlines() if line.startswith("| CAM | CUB-200-2011 | ResNet50 | Top-1 Loc |")]
    assert "29.58 [" in line
    assert line.endswith("| 17.13 |")
    assert "PSOL CVPR 2020 poster" in text
    assert "No published numbers disagree." in (show(contradictions_document([]), "markdown") or "")
