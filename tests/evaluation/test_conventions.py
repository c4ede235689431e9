"""Conventions: the numbers of the released evaluators, and every switch on its own.

tests/golden/conventions.npz holds what the released code itself made of the maps of tests/support/convention_inputs.py,
run on a CPU with numpy 1.26.4, OpenCV 4.10.0 and scikit-image 0.22.0, without an edit to any rule:

- SAT 702290d and BAS-Extension bd1bfa8: `val_loc_one_epoch` of evaluator.py behind a model that returns the given maps and
  logits, with ground truth from `load_test_bbox` of DataLoader/CUB_200_2011.py and ILSVRC.py; IoU recorded at
  `IoU`, accuracies as printed (two decimals);
- TS-CAM 25aece4: `evaluate_cls_loc` of lib/cams_deit.py, ground truth from lib/datasets/cub.py and imagenet.py, IoU
  recorded at `cal_iou`; the given map is that of the true class;
- BAS 54c395e: the scripts CUB/BAS_inference.py and ILSVRC/BAS_inference.py whole, on blank images of the given sizes (the
  latter with 200 classes instead of 1000), IoU recorded at `IoU`, accuracies as printed.

"cub" has the first box of an image only, "ilsvrc" all of them. SAT and BAS-Extension round most IoUs of CUB to float32.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from convention_inputs import cases

from wsolbench.boxes.by_convention import best_iou, boxes_of_map, truth_boxes
from wsolbench.boxes.maps import normalize, normalize_batch, normalize_maps
from wsolbench.conventions import CONVENTIONS, Convention, check_convention, get_convention
from wsolbench.data.annotations import AnnotationReader
from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.evaluation.by_convention import ConventionOutcomes, score_convention
from wsolbench.evaluation.cells import convention_cells
from wsolbench.types import Annotation

SAT, TSCAM, BAS, JOURNAL = map(get_convention, ("sat", "tscam", "bas", "bas-journal"))
GOLDEN = Path(__file__).parents[1] / "golden" / "conventions.npz"
FRAME = (224, 224)


def annotation(*boxes: tuple[int, int, int, int], size: tuple[int, int] = FRAME) -> Annotation:
    return Annotation("a", size, np.array(boxes, np.int64))


def outcomes(convention: Convention, iou: npt.ArrayLike, labels: list[int], ranks: list[int]) -> ConventionOutcomes:
    """Outcomes with the given IoU [n, T]."""
    values = np.array(iou, np.float64)
    n, count = values.shape
    columns = (np.array([str(i) for i in range(n)]), np.array(labels, np.int32), np.array(ranks, np.int32))
    thresholds = tuple(0.1 * (1 + i) for i in range(count))
    return ConventionOutcomes(convention, thresholds, *columns, np.zeros((n, count, 4), np.int32), values)


# --- against the released evaluators ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", ["cub", "ilsvrc"])
@pytest.mark.parametrize("name", ["sat", "tscam", "bas", "bas-journal"])
def test_released_evaluators_say_the_same(name: str, dataset: str) -> None:
    with np.load(GOLDEN, allow_pickle=False) as file:
        golden = {key: file[f"{name}.{dataset}/{key}"] for key in ("boxes", "iou", "truth", "printed", "threshold")}
    convention, images = get_convention(name), cases()
    truth = [each.annotation for each in images]
    if dataset == "cub":
        truth = [replace(each, boxes_N4=each.boxes_N4[:1]) for each in truth if each.boxes_N4 is not None]
    halves = [
        score_convention(
            convention,
            [each.raw_hw for each in images[part]],
            truth[part],
            [each.label for each in images[part]],
            [each.rank for each in images[part]],
            [each.id for each in truth[part]],
            FRAME,
            dataset,
            backbone="resnet50" if name == "bas" else "mobilenet",
        )
        for part in (slice(150), slice(150, None))
    ]
    ours = ConventionOutcomes.concat(halves)

    np.testing.assert_array_equal(ours.boxes, golden["boxes"])
    frame = np.concatenate([truth_boxes(convention, each, FRAME) for each in truth])
    np.testing.assert_array_equal(frame, golden["truth"])
    in_float32 = dataset == "cub" and name in ("sat", "bas-journal")
    np.testing.assert_allclose(ours.iou, golden["iou"], rtol=2.0**-24 if in_float32 else 0, atol=0)
    cells = convention_cells(ours, AnnotationReader())
    decimals = 2 if name in ("sat", "bas-journal") else 10
    assert [round(100 * cell.value, decimals) for cell in cells] == golden["printed"].round(decimals).tolist()
    if np.isfinite(golden["threshold"]):
        assert cells[0].threshold == golden["threshold"]
    # the inputs are worth something: no convention is all right, all wrong or all empty
    assert 0.1 < ours.accuracy().max() < 0.9
    assert len(np.unique(ours.boxes.reshape(-1, 4), axis=0)) > 100
    assert (frame[:, 2:] < frame[:, :2]).any() == (convention.geometry == "centre-crop")


# --- every switch ----------------------------------------------------------------------------------------------------

RING = np.zeros((20, 20))
RING[1:8, 1:8] = 1
RING[2:7, 2:7] = 0  # 24 pixels round an area of 36
RING[10:15, 12:17] = 1  # 25 pixels, an area of 16
DIAGONAL = np.zeros((8, 8))
DIAGONAL[[1, 2, 3], [1, 2, 3]] = 1
DIAGONAL[6, 5:7] = 1
CORNER = np.zeros((8, 8))
CORNER[4:, 5:] = 1
PEAK = np.zeros((14, 14))
PEAK[4, 4] = 1
HALF = outcomes(BAS, [[0.5], [0.9]], [0, 1], [0, 0])


def box(convention: Convention, map_HW: Any, threshold: float = 0.3) -> list[int]:
    found: list[int] = boxes_of_map(convention, np.array(map_HW), [threshold])[0].tolist()
    return found


def row(convention: Convention, raw: list[float], width: int) -> list[float]:
    return [round(float(value), 4) for value in normalize(convention, np.array([raw]), (1, width))[0]]


def corners(convention: Convention, *box_4: int, size: int) -> list[float]:
    return truth_boxes(convention, annotation(box_4, size=(size, size)), FRAME).round(3)[0].tolist()


def metrics(convention: Convention) -> list[str]:
    return [cell.metric for cell in convention_cells(replace(HALF, convention=convention), AnnotationReader())]


def per_class(convention: Convention) -> float:
    return float(outcomes(convention, [[0.9], [0.9], [0.1]], [0, 0, 1], [0, 0, 0]).accuracy()[0])


def chosen(convention: Convention) -> int:
    return outcomes(convention, [[0.9, 0.9], [0.1, 0.9]], [0, 1], [0, 0]).chosen()


SWITCHES: dict[str, tuple[Convention, Any, Callable[[Convention], Any], Any, Any]] = {
    # field: convention, other setting, what is read, what it gives, what it gives with the other setting
    "geometry": (SAT, "resize", lambda c: corners(c, 100, 100, 150, 150, size=256), [84, 84, 134, 134], [87, 87, 131, 131]),
    "box_rule_only": (SAT, True, lambda c: normalize(c, PEAK, FRAME).max() == 1, False, True),
    "minmax": (TSCAM, "before resize", lambda c: normalize(c, PEAK, FRAME).max() == 1, True, False),
    "epsilon": (SAT, 0.0, lambda c: row(c, [0, 1e-5], 2), [0, 0.5], [0, 1]),
    "interpolation": (BAS, "bicubic", lambda c: row(c, [0, 1], 4), [0, 0.25, 0.75, 1], [-0.1055, 0.2266, 0.7734, 1.1055]),
    "dtype": (
        BAS,
        "float64",
        lambda c: box(c, normalize(c, np.array([[0, 0.1 + 0.2, 1]]), (1, 3))),
        [2, 0, 3, 1],
        [1, 0, 3, 1],
    ),
    "quantised": (TSCAM, False, lambda c: box(c, [[1, 0.1005, 0]], 0.1), [0, 0, 1, 1], [0, 0, 2, 1]),
    "thresholds": (BAS, {"": (0.2,)}, lambda c: c.thresholds_for("cub"), (0.15,), (0.2,)),
    "relative": (TSCAM, False, lambda c: box(c, [[0.5, 0.2, 0]]), [0, 0, 2, 1], [0, 0, 1, 1]),
    "comparison": (SAT, ">=", lambda c: box(c, [[1, 0.3, 0]]), [0, 0, 1, 1], [0, 0, 2, 1]),
    "region": (SAT, "largest contour", lambda c: box(c, RING), [12, 10, 17, 15], [1, 1, 8, 8]),
    "connectivity": (SAT, 4, lambda c: box(c, DIAGONAL), [1, 1, 4, 4], [5, 6, 7, 7]),
    "corners": (TSCAM, "clipped", lambda c: box(c, CORNER), [5, 4, 8, 8], [5, 4, 7, 7]),
    "empty": (SAT, "(0, 0, 1, 1)", lambda c: box(c, np.zeros((6, 8))), [0, 0, 8, 6], [0, 0, 1, 1]),
    "truth": (TSCAM, "multiply first", lambda c: corners(c, 61, 7, 111, 112, size=112), [121, 14, 222, 223], [122, 14, 222, 224]),
    "extent": (SAT, 0, lambda c: best_iou(np.array([[0, 0, 4, 4]]), np.array([[0.0, 0, 9, 4]]), c.extent)[0], 0.5, 4 / 9),
    "gt_known": (BAS, ">=", lambda c: replace(HALF, convention=c).hits().ravel().tolist(), [False, True], [True, True]),
    "top_k": (BAS, ">=", lambda c: replace(HALF, convention=c).hits(top_k=1).ravel().tolist(), [False, True], [True, True]),
    "averaging": (BAS, "images", per_class, 1 / 2, 2 / 3),
    "selection": (SAT, "fixed", chosen, 1, 0),
    "v2": (BAS, "mean Loc@.3/.5/.7", lambda c: metrics(c)[3:], [], ["Loc@.3", "Loc@.5", "Loc@.7", "mean Loc@.3/.5/.7"]),
}  # fmt: skip


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_switch_alone_changes_the_answer(switch: str) -> None:
    convention, other, read, expected, changed = SWITCHES[switch]
    assert read(convention) == expected
    assert read(replace(convention, **{switch: other})) == changed


def test_no_switch_is_untested() -> None:
    assert {each.name for each in fields(Convention)} == {"name", "source", *SWITCHES}


def test_scoring_reads_the_switches_of_iou_and_ground_truth() -> None:
    """`best_iou` is given the extent by `score_convention`: a box of 4 in one of 9 pixels."""
    map_HW = np.zeros((16, 16))
    map_HW[:4, :4] = 1
    rule = get_convention("sat (box rule only)")
    truth = annotation((0, 0, 9, 4), size=(16, 16))
    for convention, expected in ((rule, 0.5), (replace(rule, extent=0), 4 / 9)):
        out = score_convention(convention, [map_HW], [truth], [0], None, ["a"], (16, 16), thresholds=[0.3])
        assert out.iou.tolist() == [[expected]]


def test_fractional_ground_truth_is_not_truncated() -> None:
    assert corners(BAS, 10, 100, 150, 299, size=300) == [0, 69.333, 112, 224]
    assert corners(SAT, 10, 100, 150, 299, size=300) == [0, 69, 112, 223]
    assert corners(JOURNAL, 10, 100, 150, 299, size=300) == [0, 69, 112, 223]


def test_contours_are_8_connected() -> None:
    with pytest.raises(ValueError, match="8-connected"):
        replace(TSCAM, connectivity=4)


# --- components and odd maps -----------------------------------------------------------------------------------------


def flood(binary: npt.NDArray[np.bool_]) -> list[int] | None:
    """The largest 8-connected component by plain flooding in raster order: the first of the largest wins."""
    left, best, most = binary.copy(), None, 0
    for y, x in np.argwhere(binary):
        if not left[y, x]:
            continue
        stack, found = [(y, x)], []
        left[y, x] = False
        while stack:
            cy, cx = stack.pop()
            found.append((cy, cx))
            for ny in range(max(cy - 1, 0), min(cy + 2, binary.shape[0])):
                for nx in range(max(cx - 1, 0), min(cx + 2, binary.shape[1])):
                    if left[ny, nx]:
                        left[ny, nx] = False
                        stack.append((ny, nx))
        if len(found) > most:
            ys, xs = zip(*found, strict=True)
            most, best = len(found), [min(xs), min(ys), max(xs) + 1, max(ys) + 1]
    return best


def test_the_largest_component_is_the_first_of_equals_in_raster_order() -> None:
    random, ties = np.random.RandomState(3), 0
    for _ in range(600):
        height, width = random.randint(1, 24, 2)
        binary = random.rand(height, width) < random.choice([0.05, 0.15, 0.3, 0.6])
        expected = flood(binary)
        ties += expected is not None and flood(binary[::-1, ::-1]) != [
            width - expected[2],
            height - expected[3],
            width - expected[0],
            height - expected[1],
        ]
        assert box(SAT, binary.astype(np.float64)) == (expected or [0, 0, width, height])
    assert ties > 100  # so many maps have another answer from the other end


@pytest.mark.parametrize("value", [7.0, np.nan, np.inf])
@pytest.mark.parametrize(
    ("convention", "empty"), [(SAT, [0, 0, 224, 224]), (BAS, [0, 0, 224, 224]), (TSCAM, [0, 0, 1, 1])]
)
def test_constant_and_broken_maps_are_maps_without_foreground(
    convention: Convention, empty: list[int], value: float
) -> None:
    raw = np.full((14, 14), 7.0)
    raw[3, 4] = value
    assert not normalize(convention, raw, FRAME).any()
    assert box(convention, normalize(convention, raw, FRAME)) == empty


def test_an_almost_constant_map_is_empty_for_sat_alone() -> None:
    raw = PEAK * 1e-6
    assert box(SAT, normalize(SAT, raw, FRAME)) == [0, 0, 224, 224]
    assert box(BAS, normalize(BAS, raw, FRAME)) != [0, 0, 224, 224]


def test_maps_of_a_batch_are_normalised_one_by_one() -> None:
    raw = np.random.RandomState(0).rand(3, 7, 9)
    maps = normalize_batch(TSCAM, raw, (20, 30))
    assert maps.dtype == np.float64
    assert maps.shape == (3, 20, 30)
    np.testing.assert_array_equal(maps[1], normalize(TSCAM, raw[1], (20, 30)))
    np.testing.assert_array_equal(
        normalize_batch(get_convention("bas (box rule only)"), raw, (20, 30)), normalize_maps(raw, (20, 30))
    )
    for name in ("tscam", "sat"):
        np.testing.assert_array_equal(
            normalize_maps(raw, (20, 30), convention=name), normalize_batch(get_convention(name), raw, (20, 30))
        )
    with pytest.raises(ValueError, match=r"shape \[B, h, w\]"):
        normalize_batch(TSCAM, raw[0], (20, 30))


def test_margins_grow_with_the_resolution() -> None:
    assert SAT.margins_HW((224, 448)) == (16, 32)
    assert SAT.margins_HW((64, 64)) == (5, 5)
    truth = truth_boxes(SAT, annotation((0, 0, 74, 37), size=(74, 74)), (64, 64))
    assert truth.tolist() == [[0, 0, 63, 32]]
    wide = truth_boxes(SAT, annotation((100, 100, 300, 150), size=(256, 512)), (224, 448))
    assert wide.tolist() == [[68, 84, 268, 134]]


# --- names, refusals -------------------------------------------------------------------------------------------------


def test_names() -> None:
    assert CONVENTIONS == (
        "reference",
        "sat",
        "tscam",
        "bas",
        "bas-journal",
        "sat (box rule only)",
        "tscam (box rule only)",
        "bas (box rule only)",
        "bas-journal (box rule only)",
    )
    assert [get_convention(name).name for name in CONVENTIONS] == list(CONVENTIONS)
    with pytest.raises(UsageError, match="unknown convention 'bas-jounal', did you mean 'bas-journal'"):
        get_convention("bas-jounal")


@pytest.mark.parametrize("name", ["sat", "tscam", "bas", "bas-journal"])
def test_the_box_rule_keeps_the_rule_and_takes_the_frame_of_the_reference(name: str) -> None:
    whole, rule, reference = (
        get_convention(name),
        get_convention(f"{name} (box rule only)"),
        get_convention("reference"),
    )
    frame = {"geometry", "minmax", "epsilon", "interpolation", "dtype", "truth"}
    for each in fields(Convention):
        if each.name not in ("name", "box_rule_only"):
            origin = reference if each.name in frame else whole
            assert getattr(rule, each.name) == getattr(origin, each.name), each.name


WHOLE, CROP = (
    "the whole image resized to the evaluation frame",
    "the centre crop of a larger resized image (224 of 256)",
)


@pytest.mark.parametrize(
    ("name", "map_kind", "geometry", "message"),
    [
        ("reference", "score", "resize", None),
        ("reference", "raw", "resize", None),
        ("reference", "raw", "centre-crop", (f"'reference' needs maps of {WHOLE}, these are of {CROP}: compute the maps "
         "that way")),
        ("sat", "raw", "centre-crop", None),
        ("sat", "raw", "resize", (f"'sat' needs maps of {CROP}, these are of {WHOLE}: compute the maps that way, or "
         "--convention 'sat (box rule only)'")),
        ("sat", "score", "resize", (f"'sat' needs raw maps and maps of {CROP}, these are score maps of {WHOLE}: compute the "
         "maps that way, or --convention 'sat (box rule only)'")),
        ("bas", "score", "centre-crop", "'bas' needs raw maps, these are score maps: use --map-kind raw with raw maps"),
        ("tscam", "raw", "resize", None),
        ("tscam", "score", "resize", ("'tscam' needs raw maps, these are score maps: use --map-kind raw with raw maps, or "
         "--convention 'tscam (box rule only)'")),
        ("tscam", "raw", "centre-crop", f"'tscam' needs maps of {WHOLE}, these are of {CROP}: compute the maps that way"),
        ("bas-journal (box rule only)", "score", "resize", None),
        ("bas-journal (box rule only)", "raw", "resize", None),
        ("bas-journal (box rule only)", "score", "centre-crop", ("'bas-journal (box rule only)' needs maps of "
         f"{WHOLE}, these are of {CROP}: compute the maps that way")),
    ],
)  # fmt: skip
def test_maps_that_do_not_suffice_are_refused(name: str, map_kind: Any, geometry: Any, message: str | None) -> None:
    if message is None:
        check_convention(get_convention(name), map_kind=map_kind, geometry=geometry)
        return
    with pytest.raises(UsageError) as error:
        check_convention(get_convention(name), map_kind=map_kind, geometry=geometry)
    assert str(error.value) == f"convention {message}"


def test_thresholds_by_data_set_and_backbone() -> None:
    assert SAT.thresholds_for("cub") == (0.3, 0.35, 0.4, 0.45)
    assert SAT.thresholds_for("ilsvrc") == (0.3,)
    assert [TSCAM.thresholds_for(name) for name in ("cub", "ilsvrc", "badges")] == [(0.1,), (0.12,), (0.2,)]
    assert BAS.thresholds_for("cub", "inception_v3") == (0.1,)
    assert BAS.thresholds_for("ilsvrc", "inception_v3") == (0.3,)
    assert BAS.thresholds_for("ilsvrc", "vgg16") == (0.5,)
    assert JOURNAL.thresholds_for("ilsvrc", "vgg16") == (0.45,)
    assert JOURNAL.thresholds_for("cub", "vgg16") == (0.1,)


def test_what_cannot_be_scored_is_said() -> None:
    raw, truth = np.eye(14), annotation((0, 0, 99, 99))

    def score(convention: Convention, **more: Any) -> ConventionOutcomes:
        given: dict[str, Any] = {"maps": [raw], "annotations": [truth], "labels": [0], "ranks": None, "ids": ["a"]}
        return score_convention(convention, **{**given, "resolution_HW": FRAME, **more})

    with pytest.raises(UsageError, match="'bas' has one fixed threshold and chooses none: got 2, give one"):
        score(BAS, thresholds=[0.1, 0.2])
    with pytest.raises(UsageError, match=r"thresholds in \[0, 1\), got \[1.0\]"):
        score(SAT, thresholds=[1])
    with pytest.raises(UsageError, match="thresholds in"):
        score(SAT, thresholds=[])
    with pytest.raises(WsolbenchError, match="image 'a' has no boxes"):
        score(SAT, annotations=[Annotation("a", FRAME)])
    with pytest.raises(ValueError, match="reference convention is scored by"):
        score(get_convention("reference"))
    with pytest.raises(ValueError, match="expected a score map of 224x224"):
        score(get_convention("sat (box rule only)"))
    with pytest.raises(ValueError, match=r"score maps in \[0, 1\]"):
        score(get_convention("sat (box rule only)"), maps=[np.full(FRAME, np.nan)])
    with pytest.raises(ValueError, match="expected 1 annotations and ids, got 2 and 1"):
        score(SAT, annotations=[truth, truth])
    with pytest.raises(ValueError, match=r"labels of shape \[1\], got \[2\]"):
        score(SAT, labels=[0, 1])
    with pytest.raises(ValueError, match="at least one part"):
        ConventionOutcomes.concat([])
    with pytest.raises(ValueError, match="one convention and the same thresholds"):
        ConventionOutcomes.concat([score(SAT), score(SAT, thresholds=[0.4])])


def test_declaring_and_scoring_need_no_torch() -> None:
    code = "import sys, wsolbench.conventions, wsolbench.evaluation.by_convention; sys.exit('torch' in sys.modules)"
    paths = [str(Path(__file__).parents[2])]
    subprocess.run([sys.executable, "-c", f"import sys; sys.path[:0] = {paths}; {code}"], check=True)


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_sat_chooses_by_the_sum_and_reads_everything_there() -> None:
    # GT-known is best at the second threshold, the sum with Top-1 Loc at the third, which ties with the fourth
    iou = [[0.2, 0.5, 0.6, 0.9], [0.2, 0.6, 0.7, 0.7], [0.1, 0.9, 0.1, 0.1], [0.1, 0.9, 0.4, 0.4]]
    out = outcomes(SAT, iou, [0, 1, 2, 3], [0, 0, 7, 2])
    assert out.chosen() == 1
    out = replace(out, iou=np.array(iou)[:, [0, 2, 3, 1]])
    assert out.chosen() == 3
    out = replace(out, iou=out.iou[:, :3], thresholds=out.thresholds[:3])
    assert out.chosen() == 1
    cells = {cell.metric: cell for cell in convention_cells(out, AnnotationReader())}
    assert {name: cell.value for name, cell in cells.items()} == pytest.approx(
        {
            "GT-known": 2 / 4,
            "Top-1 Loc": 2 / 4,
            "Top-5 Loc": 2 / 4,
            "Loc@.3": 3 / 4,
            "Loc@.5": 2 / 4,
            "Loc@.7": 1 / 4,
            "mean Loc@.3/.5/.7": 2 / 4,
        }
    )
    assert {(cell.threshold, cell.threshold_by, cell.oracle, cell.convention) for cell in cells.values()} == {
        (0.2, "test-oracle", True, "sat")
    }
    # only Top-1 Loc tells the two apart
    assert outcomes(SAT, [[0.9, 0.1], [0.1, 0.9]], [0, 1], [1, 0]).chosen() == 1
    # without class scores the choice is by GT-known Loc, and there is no Top-k Loc
    blind = outcomes(SAT, [[0.9, 0.1], [0.1, 0.9]], [0, 1], [-1, -1])
    assert blind.chosen() == 0
    assert [cell.metric for cell in convention_cells(blind, AnnotationReader())] == [
        "GT-known",
        "Loc@.3",
        "Loc@.5",
        "Loc@.7",
        "mean Loc@.3/.5/.7",
    ]
    with pytest.raises(UsageError, match="Top-k Loc needs logits"):
        blind.hits(top_k=1)


def test_tscam_counts_one_half_for_gt_known_alone() -> None:
    cells = {
        cell.column: cell
        for cell in convention_cells(outcomes(TSCAM, [[0.5], [0.6], [0.6]], [0, 0, 0], [0, 0, 4]), AnnotationReader())
    }
    assert {column: cell.value for column, cell in cells.items()} == pytest.approx(
        {
            "GT-known@fixed:0.1 [tscam]": 1.0,
            "Top-1 Loc@fixed:0.1 [tscam]": 1 / 3,
            "Top-5 Loc@fixed:0.1 [tscam]": 2 / 3,
        }
    )
    assert not any(cell.oracle for cell in cells.values())


def test_batches_and_kinds_of_arrays_change_nothing() -> None:
    import torch

    images = cases()[:40]
    maps = [each.raw_hw for each in images]
    truth = [each.annotation for each in images]
    labels, ranks = [each.label for each in images], [each.rank for each in images]
    ids = [each.id for each in truth]
    whole = score_convention(SAT, maps, truth, labels, ranks, ids, FRAME)
    parts = [
        score_convention(
            SAT,
            [torch.from_numpy(each) for each in maps[i : i + 7]],
            truth[i : i + 7],
            torch.tensor(labels[i : i + 7]),
            np.array(ranks[i : i + 7]),
            ids[i : i + 7],
            FRAME,
        )
        for i in range(0, 40, 7)
    ]
    joined = ConventionOutcomes.concat(parts)
    for name in ("ids", "labels", "ranks", "boxes", "iou"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))
    assert convention_cells(joined, AnnotationReader()) == convention_cells(whole, AnnotationReader())
    assert len(whole) == 40
