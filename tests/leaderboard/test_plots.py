"""Figures: what is drawn is what the records say, and no label is cut off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from board_cases import make_record
from matplotlib.figure import Figure
from PIL import Image

from wsolbench.leaderboard import plots
from wsolbench.leaderboard.few_shot import few_shot_points
from wsolbench.leaderboard.groups import summarise
from wsolbench.record import Cell, RunRecord

ERRORS = {"GT-known": {"hit": 6, "part": 3, "more": 1, "several instances": 0, "wrong place": 0}}
METHODS = ("sat", "tscam", "a-method-of-a-rather-long-name")


def runs() -> list[RunRecord]:
    made = []
    for at, method in enumerate(METHODS):
        for seed in (0, 1):
            value = 0.2 + 0.2 * at + 0.02 * seed
            cells = [Cell("GT-known", value, 0.1, 0.9, 0.3 + 0.1 * seed, "val-boxes")]
            made.append(replace(make_record(method, cells, seed=seed), errors=ERRORS))
    return made


def straight(record: RunRecord) -> plots.Curves:
    """A curve that falls from 100 % to 0, whatever the run."""
    return dict.fromkeys((0.3, 0.5, 0.7), 1 - plots.GRID)


def uncut(figure: Figure, path: Path) -> None:
    """Nothing is drawn where the picture ends: a clipped label would be."""
    plots.save(figure, path)
    picture = np.asarray(Image.open(path).convert("L"))
    edges = [picture[0], picture[-1], picture[:, 0], picture[:, -1]]
    assert all((edge == 255).all() for edge in edges)


def test_curves_mark_the_threshold_of_each_seed(tmp_path: Path) -> None:
    (group,) = summarise(runs())
    figure = plots.box_accuracy(group, straight)
    assert figure is not None
    assert [ax.get_title() for ax in figure.axes] == ["IoU ≥ 0.3", "IoU ≥ 0.5", "IoU ≥ 0.7"]
    marked = {
        (float(line.get_xdata()[0]), round(float(line.get_ydata()[0]), 6))
        for line in figure.axes[1].lines
        if len(line.get_xdata()) == 1
    }
    assert marked == {(0.3, 70.0), (0.4, 60.0)}
    uncut(figure, tmp_path / "curves.png")


def test_a_run_whose_outcomes_are_gone_is_left_out() -> None:
    (group,) = summarise(runs())
    assert plots.box_accuracy(group, lambda record: None) is None
    figure = plots.box_accuracy(group, lambda record: straight(record) if record.method == "sat" else None)
    assert figure is not None
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["sat"]


def test_error_classes_add_up(tmp_path: Path) -> None:
    (group,) = summarise(runs())
    figure = plots.error_classes(group)
    assert figure is not None
    widths: dict[float, float] = {}
    for bar in figure.axes[0].patches:
        widths[bar.get_y()] = widths.get(bar.get_y(), 0) + bar.get_width()
    assert list(widths.values()) == pytest.approx([100] * len(METHODS))
    uncut(figure, tmp_path / "errors.png")
    assert plots.error_classes(group, "Top-1") is None


def test_throughput_and_few_shot_and_matrix(tmp_path: Path) -> None:
    records = runs()
    for each in list(records):
        each.cost["eval_images_per_second"] = 120.0 + 10 * each.seed
        each.matrix = [
            Cell("GT-known", 0.5, threshold_by="val-boxes", checkpoint_by="last"),
            Cell("GT-known", 0.25, threshold_by="otsu", checkpoint_by="last"),
        ]
        records.append(replace(each, protocol="1shot", hash=each.hash[::-1]))
    groups = summarise(records)
    figures = {
        "throughput": plots.throughput(groups),
        "few": plots.few_shot(records),
        "matrix": plots.protocol_matrix(records),
        "steps": plots.protocol_steps(records),
    }
    for name, figure in figures.items():
        assert figure is not None, name
        uncut(figure, tmp_path / f"{name}.png")
    few: Any = figures["few"]
    assert [label.get_text() for label in few.axes[0].get_xticklabels()] == ["1", "all"]
    matrix: Any = figures["matrix"]
    assert {text.get_text() for text in matrix.axes[0].texts} == {"50.0", "25.0"}
    assert plots.few_shot(runs()[:1]) is None
    assert plots.protocol_matrix(runs()) is None


def test_few_shots_of_other_settings_are_another_curve_and_a_repeated_seed_counts_once() -> None:
    made = [replace(each, protocol=protocol) for each in runs()[:2] for protocol in ("1shot", "full")]
    again = [replace(each, provenance=each.provenance | {"created": "2026-01-01"}) for each in made]
    other = [replace(each, config=each.config | {"train": {"lr": 0.5}}) for each in made]
    points = few_shot_points([*made, *again, *other])["equal steps"]
    assert {key: [*map(len, values.values())] for key, values in points.items()} == {
        ("sat", "vit"): [2, 2], ("sat (lr=0.5)", "vit"): [2, 2]
    }  # fmt: skip


def test_all_images_are_those_of_full_or_of_a_matrix_with_more_seeds() -> None:
    made = [replace(each, protocol=protocol) for each in runs()[:2] for protocol in ("1shot", "matrix")]
    assert few_shot_points(made)["equal steps"]["sat", "vit"][0] == pytest.approx([20, 22])
    (full,) = (
        replace(each, protocol="full", cells=[Cell("GT-known", 0.5, threshold_by="val-boxes")]) for each in runs()[:1]
    )
    assert few_shot_points([*made, full])["equal epochs"].get(("sat", "vit")) is None
    assert few_shot_points([full, *made])["equal steps"]["sat", "vit"][0] == pytest.approx([20, 22])
    both = [full, replace(full, seed=1, hash="1")]
    assert few_shot_points([*made, *both])["equal steps"]["sat", "vit"][0] == [50, 50]


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_the_same_figure_is_the_same_file(suffix: str, tmp_path: Path) -> None:
    (group,) = summarise(runs())
    contents = []
    for _ in range(2):
        figure = plots.error_classes(group)
        assert figure is not None
        contents.append(plots.save(figure, tmp_path / f"figure.{suffix}").read_bytes())
    assert contents[0] == contents[1]


def test_methods_are_told_apart_without_colour() -> None:
    style = plots.Style(map(str, range(40)))
    looks = {(look["marker"], str(look["linestyle"])) for look in (style.of(str(at)) for at in range(7))}
    assert len(looks) == 7
    assert len({tuple(map(str, style.of(str(at)).values())) for at in range(40)}) == 40
