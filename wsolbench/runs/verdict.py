"""From outcomes to numbers: who chose the threshold, what became of each image, the cells. For runs and for maps from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wsolbench.config.selectors import PSEUDO, Selector, Settings
from wsolbench.data.annotations import AnnotationReader
from wsolbench.data.split import Split
from wsolbench.evaluation.cells import compute_cells
from wsolbench.evaluation.frame import Frame
from wsolbench.evaluation.levels import Levels, save_levels
from wsolbench.evaluation.parts import Parts
from wsolbench.evaluation.per_image import judge_images, outcomes_csv
from wsolbench.evaluation.threshold import Threshold
from wsolbench.protocols.select import choose_threshold
from wsolbench.record import Cell
from wsolbench.system.files import write_bytes


@dataclass(frozen=True)
class Scored:
    """A split whose maps are scored."""

    split: Split
    frame: Frame
    parts: Parts


@dataclass(frozen=True)
class Verdict:
    """What was chosen, and the numbers it gives."""

    levels: dict[str, Levels]
    threshold: Threshold | None
    cells: list[Cell]
    errors: dict[str, dict[str, int]]  # images of the evaluated split per error class


def judge(
    folder: Path,
    scored: Mapping[str, Scored],
    reader: AnnotationReader,
    selector: Selector,
    settings: Settings,
    *,
    has_boxes: bool,
    evaluated: str = "test",
    pseudo: Levels | None = None,
) -> Verdict:
    """Choose the threshold and look the numbers up; leaves `levels.npz` and `images.csv.gz` in `folder`.

    Args:
        folder: of the run.
        scored: the splits by name, "val" and "test" or one of them.
        reader: notes what is looked at.
        selector: who chooses the threshold.
        settings: what its argument means, and the spacing of the thresholds.
        has_boxes: of the data set; without boxes no threshold is chosen.
        evaluated: the split whose numbers are reported.
        pseudo: val's outcomes against pseudo-boxes.
    """
    levels = {name: each.parts.levels() for name, each in scored.items()}
    if pseudo is not None:
        levels[PSEUDO] = pseudo
    save_levels(folder / "levels.npz", levels)
    threshold = choose_threshold(reader, selector, levels, settings) if has_boxes else None
    judged = {
        name: judge_images(name, each.parts, each.split, each.frame, threshold, reader)
        for name, each in scored.items()
        if each.split.annotated
    }
    write_bytes(folder / "images.csv.gz", outcomes_csv(judged))
    cells = compute_cells(levels[evaluated], threshold, reader, settings.interval, evaluated)
    return Verdict(levels, threshold, cells, judged[evaluated].error_counts())
