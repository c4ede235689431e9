"""The cells that describe a curve: they are the numbers of the module that defines them, and say what they looked at."""

from __future__ import annotations

import pytest
from metric_cases import COUNT, inputs

from wsolbench.boxes.maps import threshold_grid
from wsolbench.data.annotations import AnnotationReader
from wsolbench.evaluation.cells import compute_cells
from wsolbench.evaluation.levels import Levels
from wsolbench.evaluation.scoring import score_maps
from wsolbench.evaluation.threshold import Threshold
from wsolbench.metrics.robustness import robustness


@pytest.fixture(scope="module")
def levels() -> Levels:
    case = inputs()
    return score_maps(case["maps_BHW"], case["boxes"], [0] * COUNT, None, None, [str(i) for i in range(COUNT)])


def test_plateau_and_area_are_those_of_the_curve_of_maxboxacc(levels: Levels) -> None:
    reader = AnnotationReader()
    cells = {cell.metric: cell for cell in compute_cells(levels, Threshold(0.4, "val-boxes", False), reader, 0.01)}
    curve = robustness(levels.box_summary())[0.5]
    plateau, area = cells["BoxAcc plateau"], cells["BoxAcc area"]
    assert (plateau.value, area.value) == (curve.width, curve.area)
    assert area.value == pytest.approx(levels.box_accuracy(threshold_grid(0.01)).mean())
    assert 0 < area.value < cells["MaxBoxAcc"].value
    for cell in (plateau, area):
        assert cell.low is not None
        assert cell.high is not None
        assert cell.low <= cell.value <= cell.high
        assert cell.low < cell.high
        assert cell.threshold is None
    # the plateau lies where test boxes say that the best threshold is; the area chooses nothing
    assert (plateau.oracle, area.oracle) == (True, False)
    assert [use["purpose"] for use in reader.uses() if "plateau" in use["purpose"]] == [
        "plateau around the best threshold (BoxAcc plateau)"
    ]
