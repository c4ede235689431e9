"""Who chooses: what selectors look at, how they break ties, and that no choice on test goes unmarked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import wsolbench.protocols.select
from wsolbench.config.selectors import (
    KINDS,
    LAST,
    Kind,
    Selector,
    Settings,
    kinds_of,
    parse_checkpoint,
    parse_threshold,
)
from wsolbench.data.annotations import AnnotationReader
from wsolbench.errors import UsageError
from wsolbench.evaluation.levels import Levels
from wsolbench.evaluation.scoring import score_maps
from wsolbench.protocols.select import CHECKPOINTS, THRESHOLDS, Look, choose_checkpoint, choose_threshold

COUNT = 40


def outcomes(seed: int, classes: bool = True) -> Levels:
    """Scores of blobs that cover their boxes more or less."""
    random = np.random.RandomState(seed)
    corners = random.randint(0, 12, (COUNT, 2))
    boxes = [np.array([[x, y, x + random.randint(5, 12), y + random.randint(5, 12)]]) for x, y in corners]
    at_y, at_x = np.mgrid[:24, :24]
    widths = random.uniform(3, 8, COUNT)
    maps = np.stack(
        [
            np.exp(-((at_x - x - 4) ** 2 + (at_y - y - 4) ** 2) / width**2) * random.uniform(0.5, 1)
            for (x, y), width in zip(corners, widths, strict=True)
        ]
    )
    ranks = random.randint(0, 3, COUNT) if classes else None
    labels = random.randint(0, 5, COUNT)
    return score_maps(maps, boxes, labels, ranks, labels if classes else None, [f"{i:02d}" for i in range(COUNT)])


VAL, TEST, PSEUDO = outcomes(0), outcomes(1), outcomes(2)
ALL = {"val": VAL, "test": TEST, "val-pseudo": PSEUDO}


@pytest.mark.parametrize(
    ("text", "value", "by", "oracle", "looked"),
    [
        ("val-boxes", VAL.select_threshold(), "val-boxes", False, [("val", "boxes")]),
        ("val-pseudo:rpn", PSEUDO.select_threshold(), "val-pseudo:rpn", False, [("val", "pseudo-boxes")]),
        ("test-oracle", TEST.select_threshold(), "test-oracle", True, [("test", "boxes")]),
        ("otsu", None, "otsu", False, []),
        ("fixed:0.25", 0.25, "fixed:0.25", False, []),
        ("fixed:tscam", 0.1, "fixed:0.1", False, []),
    ],
)
def test_a_threshold_says_who_chose_it(
    text: str, value: float | None, by: str, oracle: bool, looked: list[tuple[str, str]]
) -> None:
    reader, selector = AnnotationReader(), parse_threshold(text)
    found = choose_threshold(reader, selector, ALL, selector.settings("cub", "deit_small", 0.01))
    assert (found.value, found.by, found.oracle) == (value, by, oracle)
    assert [(use["split"], use["kind"]) for use in reader.uses()] == looked


def test_hits_of_a_threshold_are_those_of_the_stored_outcomes() -> None:
    fixed = choose_threshold(AnnotationReader(), Selector("fixed", "0.3"), ALL, Settings(candidates=(0.3,)))
    assert np.array_equal(fixed.hits(TEST), TEST.hits(0.3))
    otsu = choose_threshold(AnnotationReader(), Selector("otsu"), ALL, Settings())
    assert np.array_equal(otsu.hits(TEST), TEST.hits_otsu())
    assert otsu.hits(TEST).any()
    assert not otsu.hits(TEST).all()


def test_sats_list_is_searched_by_the_sum_of_gt_known_and_top1_loc() -> None:
    selector = parse_threshold("test-oracle:sat")
    settings = selector.settings("cub", "-", 0.01)
    assert settings.candidates == (0.3, 0.35, 0.4, 0.45)
    found = choose_threshold(AnnotationReader(), selector, ALL, settings)
    sums = [TEST.gt_known_loc(at) + TEST.topk_loc(1, at) for at in settings.candidates]
    assert found.value == settings.candidates[int(np.argmax(sums))]
    assert (found.by, found.oracle) == ("test-oracle:sat", True)
    blind = {**ALL, "test": outcomes(1, classes=False)}
    found = choose_threshold(AnnotationReader(), selector, blind, settings)
    assert found.value == settings.candidates[int(np.argmax([TEST.gt_known_loc(at) for at in settings.candidates]))]


@pytest.mark.parametrize(
    ("text", "score", "oracle"),
    [
        ("class-accuracy", lambda levels: levels["val"].topk_accuracy(1), False),
        ("val-boxes", lambda levels: levels["val"].max_box_acc(), False),
        ("val-pseudo", lambda levels: levels["val-pseudo"].max_box_acc(), False),
        ("test-oracle", lambda levels: levels["test"].max_box_acc(), True),
        (
            "test-oracle:0.2/0.5",
            lambda levels: max(levels["test"].gt_known_loc(at) + levels["test"].topk_loc(1, at) for at in (0.2, 0.5)),
            True,
        ),
    ],
)
def test_the_checkpoint_with_the_best_score_wins(text: str, score, oracle: bool) -> None:
    found = {10 * step: {name: outcomes(7 * step + at) for at, name in enumerate(ALL)} for step in range(1, 7)}
    selector = parse_checkpoint(text)
    chosen = choose_checkpoint(
        AnnotationReader(),
        selector,
        list(found),
        lambda step, name: found[step][name],
        selector.settings("", "-", 0.01),
    )
    scores = {step: score(levels) for step, levels in found.items()}
    assert chosen.step == max(scores, key=lambda step: (scores[step], -step))
    assert chosen.score == pytest.approx(scores[chosen.step], abs=1e-12)
    assert (chosen.by, chosen.oracle, chosen.candidates) == (text, oracle, 6)
    assert len({round(value, 9) for value in scores.values()}) > 1, "all scores are equal: nothing was chosen"


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_earliest_checkpoint_wins_a_tie(name: str) -> None:
    chosen = choose_checkpoint(AnnotationReader(), Selector(name), [3, 6, 9], lambda step, name: ALL[name], Settings())
    assert chosen.step == 3


def test_the_last_checkpoint_looks_at_nothing() -> None:
    reader = AnnotationReader()

    def outcomes_of(step: int, name: str) -> Levels:
        raise AssertionError("nothing is to be looked at")

    chosen = choose_checkpoint(reader, Selector("last"), [3, 6, 9], outcomes_of, Settings())
    assert (chosen.step, chosen.by, chosen.oracle, reader.uses()) == (9, "last", False, [])


@pytest.mark.parametrize("look", ["boxes", "labels"])
def test_a_selector_that_looks_at_test_is_marked_whatever_it_is_called(
    monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    """The attempt to cheat: `val-boxes` chooses on test. Outcomes come through `Look` alone, which tells."""

    def cheat(through: Look, settings: Settings) -> float:
        return getattr(through, look)("test").select_threshold()

    monkeypatch.setitem(THRESHOLDS, "val-boxes", cheat)
    monkeypatch.setitem(CHECKPOINTS, "val-boxes", cheat)
    reader = AnnotationReader()
    assert choose_threshold(reader, Selector("val-boxes"), ALL, Settings()).oracle
    assert choose_checkpoint(reader, Selector("val-boxes"), [1, 2], lambda step, name: ALL[name], Settings()).oracle
    assert {(use["split"], use["kind"], use["purpose"]) for use in reader.uses()} == {
        ("test", look, "threshold selection"),
        ("test", look, "checkpoint selection"),
    }


def test_a_choice_by_pseudo_boxes_is_made_without_boxes() -> None:
    """What stands in for ground truth is all that is looked at: other true boxes give the same choice."""
    other = {**ALL, "val": replace(VAL, packed=np.zeros_like(VAL.packed))}
    selector = Selector("val-pseudo")
    found = [choose_threshold(AnnotationReader(), selector, levels, Settings()).value for levels in (ALL, other)]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (parse_checkpoint, "lst", "unknown protocol.checkpoint 'lst', did you mean 'last'"),
        (parse_checkpoint, "last:3", "'last' takes no argument"),
        (parse_threshold, "otsu:3", "'otsu' takes no argument"),
        (parse_threshold, "fixed", "expected one threshold, e.g. fixed:0.2"),
        (parse_threshold, "fixed:", "expected one threshold"),
        (parse_threshold, "fixed:0.1/0.2", "expected one threshold"),
        (parse_threshold, "fixed:sat", "expected one threshold"),
        (parse_threshold, "fixed:1.5", r"thresholds lie in \[0, 1\)"),
        (parse_threshold, "fixed:nan", r"thresholds lie in \[0, 1\)"),
        (parse_threshold, "fixed:high", "'high' is neither a threshold .* nor a convention: reference, sat"),
        (parse_threshold, "class-accuracy", "unknown protocol.threshold 'class-accuracy'"),
    ],
)
def test_what_is_no_selector_is_named(parse, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(text)


def test_the_table_of_selectors_and_the_functions_that_choose_belong_together() -> None:
    """A row of the table says what a function does; one without the other would be asked for and not found."""
    assert {kind.name for kind in kinds_of("checkpoint")} == {LAST, *CHECKPOINTS}
    assert {kind.name for kind in kinds_of("threshold")} == {*THRESHOLDS}
    for kind in KINDS:
        text = f"{kind.name}:0.2" if kind.argument == "threshold" else kind.name
        for choice, parse in (("checkpoint", parse_checkpoint), ("threshold", parse_threshold)):
            if choice in kind.chooses:
                assert parse(text).kind is kind
            else:
                with pytest.raises(UsageError, match="unknown"):
                    parse(text)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_selector_looks_at_what_its_row_says(kind: Kind) -> None:
    noted: list[tuple[str, str]] = []

    class Noting(AnnotationReader):
        def choose_on(self, name: str, levels: Any, purpose: str, kind: str = "boxes") -> bool:
            noted.append((name, kind))
            return super().choose_on(name, levels, purpose, kind)

    look = Look(Noting(), ALL.__getitem__, "test")
    for functions in (CHECKPOINTS, THRESHOLDS):
        if kind.name in functions:
            functions[kind.name](look, Settings(0.01, (0.2,) if kind.argument == "threshold" else ()))
    annotations = {("val", "boxes"): "val", ("test", "boxes"): "test", ("val", "pseudo-boxes"): "val-pseudo"}
    assert {annotations[each] for each in noted if each in annotations} == ({kind.looks_at} - {None})


def test_the_module_needs_no_torch() -> None:
    assert "torch" not in vars(wsolbench.protocols.select)
