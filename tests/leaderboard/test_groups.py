from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from wsolbench.config.identity import idle_keys, young_keys
from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.leaderboard.groups import summarise
from wsolbench.leaderboard.records import load_records
from wsolbench.leaderboard.standings import Column, Group, Row
from wsolbench.leaderboard.view import render, write_results
from wsolbench.record import SCHEMA, Cell, Ledger, RunRecord, as_json

GT = Column("GT-known@val", "GT-known", False)


def record(
    method: str = "cam",
    gt_known: float | None = 0.5,
    *,
    backbone: str = "vit",
    protocol: str = "full",
    seed: int = 0,
    cells: list[Cell] | None = None,
    training: str = "own",
    fingerprint: str = "f00d",
    commit: str = "c0ffee",
    created: str = "2026-01-01",
    test_selected: bool = False,
    train: dict[str, Any] | None = None,
    dataset: dict[str, Any] | None = None,
    device: str = "cpu",
    out: str = "results",
    **options: Any,
) -> RunRecord:
    if cells is None:
        cells = (
            [] if gt_known is None else [Cell("GT-known", gt_known, gt_known - 0.02, gt_known + 0.03, 0.2, "val-boxes")]
        )
    return RunRecord(
        method=method,
        dataset="badges",
        backbone=backbone,
        protocol=protocol,
        seed=seed,
        hash=f"{seed:08x}",
        config={
            "method": {"name": method, **options},
            "dataset": {"name": "badges", **(dataset or {})},
            "train": {"epochs": 3, "workers": seed, **(train or {})},
            "seed": seed,
            "out": out,
        },
        cells=cells,
        ledger=Ledger(training=training, test_images=600),
        cost={"train_seconds": None if training == "none" else 10.0 + seed, "eval_images_per_second": 100.0},
        provenance={"commit": commit, "data_fingerprint": fingerprint, "device": device, "created": created},
        test_selected=test_selected,
    )


def baseline(value: float = 0.3, **more: Any) -> RunRecord:
    return record("center-box", value, backbone="-", training="none", **more)


def row_of(group: Group, label: str) -> Row:
    [row] = [row for row in group.rows if row.label == label]
    return row


def write(record: RunRecord, folder: Path) -> Path:
    folder.mkdir(parents=True)
    path = folder / "record.json"
    path.write_text(json.dumps(as_json(record)))
    return path


def printed(records: list[RunRecord], width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    assert render(records, "table", console) is None
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


# --- loading


def test_records_are_read_back_as_written(tmp_path: Path) -> None:
    runs = [record("cam"), record("sat", area=0.3)]
    for run in runs:
        write(run, tmp_path / "runs" / "badges" / run.method)
    assert load_records(tmp_path) == runs
    assert load_records(tmp_path / "runs" / "badges" / "sat") == runs[1:]


def test_damaged_foreign_and_newer_records_are_named_and_skipped(tmp_path: Path) -> None:
    good = record()
    write(good, tmp_path / "runs" / "good")
    half = write(record(), tmp_path / "runs" / "half")
    half.write_text(half.read_text()[:100])
    foreign = write(record(), tmp_path / "runs" / "foreign")
    foreign.write_text('{"accuracy": 1}')
    lacking = write(record(), tmp_path / "runs" / "lacking")
    lacking.write_text(json.dumps({"schema": SCHEMA, "method": "cam", "cells": []}))
    newer = write(record(), tmp_path / "runs" / "newer")
    newer.write_text(json.dumps(as_json(record()) | {"schema": SCHEMA + 1}))
    messages: list[str] = []
    assert load_records(tmp_path, messages.append) == [good]
    assert len(messages) == 4
    for path, word in (
        (half, "damaged"),
        (foreign, "not a record"),
        (lacking, "damaged"),
        (newer, f"schema {SCHEMA + 1}"),
    ):
        [message] = [message for message in messages if str(path) in message]
        assert word in message
        assert "\n" not in message


def test_skipped_records_are_said_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(record(), tmp_path / "runs" / "a").write_text("{")
    assert load_records(tmp_path) == []
    captured = capsys.readouterr()
    assert "record.json' could not be read" in captured.err
    assert captured.out == ""


def test_shared_classifiers_are_no_runs(tmp_path: Path) -> None:
    write(record(), tmp_path / "runs" / "badges" / "_classifiers" / "01234567")
    assert load_records(tmp_path) == []


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WsolbenchError, match=r"there is no results folder .*nowhere"):
        load_records(tmp_path / "nowhere")


# --- grouping


def test_groups_are_data_x_backbone_x_protocol() -> None:
    groups = summarise(
        [
            record(),
            record("sat"),
            record(backbone="cnn"),
            record(protocol="10shot"),
            record(protocol="5shot"),
            record(fingerprint="beef", dataset={"clutter": 0.2}),
        ]
    )
    assert [group.title for group in groups] == [
        "badges (clutter=0.2) | vit | full",
        "badges (data f00d) | vit | 5shot",
        "badges (data f00d) | vit | 10shot",
        "badges (data f00d) | cnn | full",
        "badges (data f00d) | vit | full",
    ]
    assert [row.label for row in groups[-1].rows] == ["cam", "sat"]


def test_mean_and_sample_standard_deviation_over_seeds() -> None:
    [group] = summarise([record(gt_known=value, seed=seed) for seed, value in enumerate((0.50, 0.53, 0.59))])
    [row] = group.rows
    stat = row.values[GT]
    assert stat.mean == pytest.approx(0.54)
    assert stat.std == pytest.approx(0.0458257569)  # sqrt((.04^2 + .01^2 + .05^2) / 2)
    assert (stat.n, stat.low, stat.high) == (3, None, None)
    assert row.cost["train_seconds"].mean == pytest.approx(11)
    text = render([record(gt_known=value, seed=seed) for seed, value in enumerate((0.50, 0.53, 0.59))], "markdown")
    assert text is not None
    assert "| cam | 3 | 54.0 ± 4.6 | 11 | 100 |" in text


def test_one_seed_shows_its_bootstrap_interval() -> None:
    text = render([record(gt_known=0.5)], "markdown")
    assert text is not None
    assert "| cam | 1 | 50.0 [48.0, 53.0] |" in text
    assert "bootstrap" in text
    assert "standard deviation" not in text


def test_different_settings_are_different_rows_and_idle_ones_are_not() -> None:
    [group] = summarise(
        [
            record("sat", 0.6, seed=0),
            record("sat", 0.7, seed=1, out="elsewhere"),
            record("sat", 0.5, area=0.3),
            record("sat", 0.4, train={"epochs": 9}),
        ]
    )
    assert [(row.label, row.seeds) for row in group.rows] == [
        ("sat (epochs=3)", (0, 1)),
        ("sat (area=0.3, epochs=3)", (0,)),
        ("sat (epochs=9)", (0,)),
    ]


IDLE_KEYS = [(*key.split("."), 7) for key in idle_keys() if "." in key and key != "protocol.pseudo_boxes"]
YOUNG_KEYS = [(*key.split("."), default) for key, default in young_keys().items()]


@pytest.mark.parametrize(("owner", "key", "default"), [*YOUNG_KEYS, *IDLE_KEYS])
def test_a_record_from_before_a_key_existed_is_in_the_row_of_its_default(owner: str, key: str, default: Any) -> None:
    older, newer, other = record(seed=0), record(seed=1), record(seed=2)
    newer.config[owner] = newer.config.get(owner, {}) | {key: default}
    other.config[owner] = other.config.get(owner, {}) | {key: "another"}
    [group] = summarise([older, newer, other])
    together = (0, 1, 2) if (owner, key, 7) in IDLE_KEYS else (0, 1)
    assert together in {row.seeds for row in group.rows}


def test_files_named_outside_the_hash_tell_rows_apart_by_content_not_by_path() -> None:
    def started(seed: int, path: str, sha256: str) -> RunRecord:
        made = record(seed=seed)
        made.config["checkpoint"] = path
        made.ledger.start = {"path": path, "sha256": sha256}
        return made

    [group] = summarise(
        [started(0, "a.pth", "01234567ab"), started(1, "b.pth", "01234567ab"), started(2, "a.pth", "f00d")]
    )
    assert {row.label: row.seeds for row in group.rows} == {
        "cam (checkpoint=01234567)": (0, 1),
        "cam (checkpoint=f00d)": (2,),
    }


def test_runs_of_different_devices_are_not_averaged() -> None:
    [group] = summarise([record(seed=0), record(seed=1, device="NVIDIA H200")])
    assert sorted(row.label for row in group.rows) == ["cam (device=NVIDIA H200)", "cam (device=cpu)"]


def test_runs_from_different_weights_or_method_versions_are_not_averaged() -> None:
    other_weights, other_version = record(seed=1), record(seed=2)
    other_weights.provenance["weights_sha256"] = "0123456789abcdef"
    other_version.provenance["method_version"] = 2
    [group] = summarise([record(), other_weights, other_version])
    assert all(row.values[GT].n == 1 for row in group.rows)
    assert len({row.label for row in group.rows}) == 3


def test_what_a_record_notes_stands_below_its_table() -> None:
    noted = record()
    noted.notes.append("training was cut short.")
    [group] = summarise([noted])
    assert group.notes == ("cam: training was cut short",)


def test_a_seed_counts_once_and_the_newest_is_said_to_be_shown() -> None:
    [group] = summarise([record(gt_known=0.9, created="2026-02-01"), record(gt_known=0.1, created="2026-01-01")])
    [row] = group.rows
    assert (row.values[GT].mean, row.values[GT].n) == (0.9, 1)
    assert "1 older record" in group.notes[0]


def test_untrained_runs_count_once_whatever_the_seed_or_training_settings() -> None:
    [group] = summarise([baseline(seed=0), baseline(seed=1), baseline(seed=2, train={"epochs": 9})])
    [row] = group.rows
    assert row.deterministic
    assert row.seeds == (0,)
    text = render([baseline(seed=0), baseline(seed=1)], "markdown")
    assert text is not None
    assert "| center-box | fixed | 30.0 [28.0, 33.0] |" in text


def test_untrained_runs_that_differ_between_seeds_are_not_called_fixed() -> None:
    [group] = summarise([baseline(0.3, seed=0), baseline(0.4, seed=1)])
    assert not group.rows[0].deterministic
    assert group.rows[0].values[GT].n == 2


def test_equal_results_of_trained_runs_are_not_called_fixed() -> None:
    [group] = summarise([record(seed=0), record(seed=1)])
    assert not group.rows[0].deterministic
    assert group.rows[0].values[GT].std == 0


def test_methods_without_a_network_stand_apart_and_are_repeated_as_references() -> None:
    records = [record(gt_known=0.1), record("sat", 0.2), baseline(0.3), record("cam", backbone="cnn", protocol="1shot")]
    oneshot, full, any_backbone = summarise(records)
    assert any_backbone.title == "badges | any backbone | full"
    assert not row_of(any_backbone, "center-box").reference
    assert row_of(full, "center-box").reference
    assert [row.label for row in full.rows] == ["sat", "cam", "center-box"]
    assert [row.label for row in oneshot.rows] == ["cam"]  # the baseline was not run under this protocol
    assert row_of(full, "center-box").best == frozenset()
    assert row_of(full, "sat").best == {GT}  # though the reference is higher


# --- columns and marks


def test_selectors_never_share_a_column() -> None:
    [group] = summarise(
        [
            record("cam", cells=[Cell("GT-known", 0.5, threshold_by="val-boxes")]),
            record("sat", cells=[Cell("GT-known", 0.9, threshold_by="test-oracle", oracle=True)]),
            record("bas", cells=[Cell("GT-known", 0.8, threshold_by="otsu")]),
            record("acol", cells=[Cell("GT-known", 0.7, threshold_by="val-boxes", oracle=True)]),
        ]
    )
    assert [(column.title, column.oracle) for column in group.columns] == [
        ("GT-known@otsu", False),
        ("GT-known@val", False),
        ("GT-known@test-oracle", True),
        ("GT-known@val", True),
    ]
    assert all(len(row.values) == 1 for row in group.rows)


def test_conventions_never_share_a_column_and_stand_behind_the_reference() -> None:
    names = ("tscam", "bas")
    foreign = [Cell("GT-known", 0.9, None, None, 0.2, "fixed:0.2", convention=name) for name in names]
    foreign += [Cell("mean Loc@.3/.5/.7", 0.8, None, None, 0.3, "test-oracle", True, convention="sat")]
    own = Cell("GT-known", 0.5, None, None, 0.1, "fixed:0.2")
    pixels = Cell("PxAP", 0.4)
    records = [record("cam", cells=[*foreign, pixels, own]), record("sat", cells=[Cell(**vars(own) | {"value": 0.6})])]
    [group] = summarise(records)
    assert [column.title for column in group.columns] == [
        "GT-known@fixed:0.2",
        "PxAP",
        "GT-known@fixed:0.2 [bas]",
        "mean Loc@.3/.5/.7@test-oracle [sat]",
        "GT-known@fixed:0.2 [tscam]",
    ]
    assert [row.label for row in group.rows] == ["sat", "cam"]  # ordered by the reference's number
    text = render(records, "markdown") or ""
    assert "GT-known@fixed:0.2 | PxAP | GT-known@fixed:0.2 [bas] | mean Loc† .3/.5/.7@test-oracle [sat]" in text
    assert "[bas], [sat], [tscam]: scored by that paper's own rules" in text
    assert "own rules" not in (render([record()], "markdown") or "")
    table = pd.read_csv(io.StringIO(render(records, "csv")))
    assert table["GT-known@fixed:0.2 [bas] mean"].dropna().tolist() == [0.9]
    assert "mean Loc" in printed(records, 200)
    assert "mean Loc" not in printed(records, 40).split("Not shown")[0]


def test_best_is_marked_inside_each_group_only() -> None:
    groups = summarise(
        [record("cam", 0.5), record("sat", 0.6), record("cam", 0.8, backbone="cnn"), record("sat", 0.7, backbone="cnn")]
    )
    assert {(group.backbone, row.method) for group in groups for row in group.rows if row.best} == {
        ("vit", "sat"),
        ("cnn", "cam"),
    }


def test_the_best_of_one_is_not_marked_and_equals_share_the_mark() -> None:
    [alone] = summarise([record()])
    assert not alone.rows[0].best
    [equal] = summarise([record("cam", 0.5), record("sat", 0.5), record("bas", 0.4)])
    assert [row.method for row in equal.rows if row.best] == ["cam", "sat"]


def test_rows_selected_on_test_boxes_do_not_beat_honest_ones() -> None:
    records = [record("cam", 0.5), record("sat", 0.6), record("bas", 0.9, test_selected=True)]
    [group] = summarise(records)
    assert [row.method for row in group.rows if row.best] == ["sat"]
    text = render(records, "markdown")
    assert text is not None
    assert "| bas ‡ |" in text
    assert "‡ the checkpoint or the hyper-parameters saw test boxes" in text


def test_missing_and_non_finite_values_print_a_dash() -> None:
    records = [record("cam", 0.5), record("sat", None), record("bas", float("nan"))]
    text = render(records, "markdown")
    assert text is not None
    assert "| sat | 1 | - |" in text
    assert "| bas | 1 | - |" in text


def test_a_value_that_some_seeds_lack_is_said() -> None:
    [group] = summarise([record(seed=0), record(gt_known=None, seed=1)])
    assert group.notes == ("cam: not every seed has a value for GT-known@val",)


# --- formats


def full_cells(value: float) -> list[Cell]:
    """All columns of a run, as the engine writes them."""
    chosen = [
        Cell(name, value, value - 0.01, value + 0.01, 0.2, "val-boxes")
        for name in ("GT-known", "Top-1 Loc", "Top-5 Loc")
    ]
    names = ("MaxBoxAccV2", "MaxBoxAccV2@.7", "MaxBoxAccV2@.3", "MaxBoxAccV2@.5", "MaxBoxAcc")
    oracle = [Cell(name, value, value - 0.01, value + 0.01, 0.2, "test-oracle", True) for name in names]
    return [Cell("PxAP", value), *oracle, *chosen, Cell("Top-1 Cls", 0.9, 0.89, 0.91)]


def test_markdown_reads_as_expected() -> None:
    text = render([record("cam", cells=full_cells(0.4)), record("sat", cells=full_cells(0.6)), baseline()], "markdown")
    assert text is not None
    lines = text.splitlines()
    [head] = [line for line in lines if line.startswith("| method") and "Top-1 Cls" in line]
    assert head == (
        "| method | seeds | Top-1 Cls | GT-known@val | Top-1 Loc@val | Top-5 Loc@val | MaxBoxAcc† | MaxBoxAccV2† .3 "
        "| MaxBoxAccV2† .5 | MaxBoxAccV2† .7 | MaxBoxAccV2† mean | PxAP | train s | images/s |"
    )
    below = lines[lines.index(head) + 1 :]
    assert below[0].count("|") == head.count("|")
    assert below[1].startswith("| sat | 1 | **90.0** [89.0, 91.0] | **60.0** [59.0, 61.0] |")
    assert below[2].startswith("| cam | 1 | **90.0** [89.0, 91.0] | 40.0 [39.0, 41.0] |")
    assert below[3].startswith("| center-box (ref) | fixed | - | 30.0 [28.0, 33.0] | - |")
    assert (
        "data fingerprint f00d; 600 test images; commit c0ffee; seed 0; device cpu; weights before training unknown."
        in text
    )
    assert "@val: the boxes of val chose the threshold" in text
    assert "† test boxes or masks choose the threshold" in text


def test_the_caption_says_what_the_networks_started_from_and_how_they_were_tuned() -> None:
    pretrained, scratch = record("cam"), record("sat")
    pretrained.provenance["weights_sha256"] = "0123456789abcdef"
    scratch.config["pretrained"] = False
    for each in (pretrained, scratch):
        each.ledger.search = "none (untuned)"
    text = render([pretrained, scratch], "markdown")
    assert text is not None
    assert "weights before training 01234567, random; hyper-parameter search: none (untuned)." in text


def test_a_cost_that_no_row_has_is_no_column() -> None:
    text = render([baseline()], "markdown")
    assert text is not None
    assert "train s" not in text
    assert "images/s" in text


def test_csv_is_tidy_and_keeps_full_precision() -> None:
    third = 1 / 3
    records = [record("sat", third, seed=0), record("sat", 0.5, seed=1), record("cam", third), baseline()]
    text = render(records, "csv")
    assert text is not None
    frame = pd.read_csv(io.StringIO(text)).set_index("method")
    assert len(frame) == 3  # the reference is not repeated
    assert frame.loc["cam", "GT-known@val mean"] == pytest.approx(third, rel=1e-15)
    assert f",{third!r}," in text
    assert frame.loc["cam", "GT-known@val low"] == pytest.approx(third - 0.02, rel=1e-15)
    assert frame.loc["sat", "GT-known@val mean"] == pytest.approx((third + 0.5) / 2, rel=1e-15)
    assert frame.loc["sat", "GT-known@val n"] == 2
    assert frame.loc["sat", "GT-known@val std"] == pytest.approx((0.5 - third) / 2**0.5)
    assert pd.isna(frame.loc["sat", "GT-known@val low"])
    assert frame.loc["center-box", "backbone"] == "-"
    assert bool(frame.loc["center-box", "deterministic"])
    assert set(frame["commit"]) == {"c0ffee"}
    assert set(frame["data_fingerprint"]) == {"f00d"}


def test_csv_names_oracle_columns() -> None:
    cells = [Cell("MaxBoxAccV2", 0.5, threshold_by="test-oracle", oracle=True), Cell("PxAP", 0.4, oracle=True)]
    text = render([record(cells=cells)], "csv")
    assert text is not None
    assert "MaxBoxAccV2@test-oracle mean" in text
    assert "PxAP (test-oracle) mean" in text


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("seeds", [1, 3])
def test_terminal_table_fits(width: int, seeds: int) -> None:
    records = [
        record(method, cells=full_cells(value + seed / 50), seed=seed)
        for method, value in (("gradcam", 0.4), ("sat", 0.6))
        for seed in range(seeds)
    ]
    text = printed([*records, baseline()], width)
    assert max(map(len, text.splitlines())) <= width
    assert "GT-known" in text
    assert "…" not in text
    assert ("Not shown for want of width" in text) == ("V2† .3" not in text.split("Not shown")[0])
    assert "62.0*" in text if seeds == 3 else "60.0*" in text


def test_a_narrow_terminal_says_what_it_leaves_out() -> None:
    text = printed([record(cells=full_cells(0.4)), record("sat", cells=full_cells(0.5))], 80)
    [note] = [" ".join(text.split()).split("Not shown for want of width: ")[1]]
    assert "MaxBoxAccV2† .3" in note
    assert "markdown" in note


def curves(plateau: float, area: float) -> list[Cell]:
    return [Cell("BoxAcc plateau", plateau, plateau, plateau, oracle=True), Cell("BoxAcc area", area, area, area)]


def test_what_describes_a_curve_is_never_marked_and_orders_nothing() -> None:
    oracle = [Cell("GT-known", 0.5, threshold_by="test-oracle", oracle=True)]
    better = [Cell("GT-known", 0.6, threshold_by="test-oracle", oracle=True)]
    [group] = summarise([record("flat", cells=oracle + curves(1, 0.4)), record("sat", cells=better + curves(0.1, 0.3))])
    assert [row.label for row in group.rows] == ["sat", "flat"]
    assert [{column.metric for column in row.best} for row in group.rows] == [{"GT-known"}, set()]


@pytest.mark.parametrize("width", [80, 120, 160, 200, 400])
def test_what_describes_a_curve_costs_a_terminal_nothing_else(width: int) -> None:
    before = [record(name, cells=full_cells(value)) for name, value in (("cam", 0.4), ("sat", 0.6))]
    after = [record(name, cells=full_cells(value) + curves(0.2, 0.3)) for name, value in (("cam", 0.4), ("sat", 0.6))]
    old, new = printed(before, width), printed(after, width)
    shown = "20.0" in new
    assert shown == (width == 400) == ("share of all thresholds" in " ".join(new.split()))
    if not shown:
        assert new.split("Not shown")[0].rstrip() == old.split("Not shown")[0].rstrip()
        assert "Not shown for want of width: " in " ".join(new.split())
    for format in ("csv", "markdown"):
        text = render(after, format)
        assert text is not None
        assert "BoxAcc plateau" in text
        assert "BoxAcc area" in text


def test_no_records_are_said() -> None:
    assert "No finished runs" in printed([], 80)
    text = render([], "markdown")
    assert text is not None
    assert "No finished runs" in text
    assert isinstance(render([], "csv"), str)


def test_unknown_format_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="unknown format 'markdow', did you mean 'markdown'"):
        render([], "markdow")


def test_results_are_written_with_their_command(tmp_path: Path) -> None:
    paths = write_results([record()], tmp_path / "results", "wsolbench run --methods cam")
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["leaderboard.csv", "leaderboard.md"]
    assert "```\nwsolbench run --methods cam\n```" in paths[0].read_text()
    assert pd.read_csv(paths[1]).loc[0, "command"] == "wsolbench run --methods cam"


def test_an_unwritable_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(WsolbenchError, match=r"could not be written to '.*taken'"):
        write_results([record()], tmp_path / "taken", "wsolbench run")
