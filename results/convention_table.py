r"""Puts the table between the CONVENTIONS marks of docs/metrics.md: one set of maps, scored as each paper's code would.

    RUNS=results/runs/badges
    python results/convention_table.py docs/metrics.md $RUNS/{sat,cam}/badges_vit.s0/full/s{0,1,2}-* \
        $RUNS/center-gaussian/-/full/s0-*

The runs named are read once more on test. "box rule only" rows score the very maps of the reference's rows. The rows of
whole conventions that crop have maps of their own, of images resized to R + 2 margins and cropped to R.
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsolbench import create_dataset, load_run
from wsolbench.boxes.maps import normalize_maps
from wsolbench.boxes.truth import resize_boxes
from wsolbench.conventions import CONVENTIONS, Convention, Geometry, get_convention
from wsolbench.data.annotations import AnnotationReader
from wsolbench.data.loading import eval_batches
from wsolbench.data.split import Split
from wsolbench.evaluation.by_convention import ConventionOutcomes, score_convention
from wsolbench.evaluation.cells import convention_cells
from wsolbench.method.base import Method
from wsolbench.metrics import GTKnownLoc, TopKLoc, label_rank
from wsolbench.record import RunRecord, read_record
from wsolbench.types import Batch, Prediction

PAPERS = sorted(map(get_convention, CONVENTIONS[1:]), key=lambda convention: not convention.box_rule_only)
Row = tuple[str, str]  # convention, threshold
Values = dict[Row, dict[str, float]]


def main() -> None:
    """Rewrite the page named first with the runs named after it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    chosen = parser.parse_args()
    found: dict[str, list[Values]] = defaultdict(list)
    for run in chosen.runs:
        record = read_record(run / "record.json")
        found[record.method].append(score(load_run(run), record))
        print(f"{record.method} seed {record.seed} done", flush=True)
    text = chosen.page.read_text(encoding="utf-8")
    marks = re.compile(r"(<!-- CONVENTIONS -->\n).*?(<!-- /CONVENTIONS -->)", re.DOTALL)
    assert marks.search(text), f"{chosen.page} has no CONVENTIONS marks"
    chosen.page.write_text(marks.sub(lambda part: part[1] + table(found) + part[2], text), encoding="utf-8")


def score(method: Method, record: RunRecord) -> Values:
    """GT-known and Top-1 Loc of one run under every convention."""
    options = {key: value for key, value in record.config["dataset"].items() if key != "name"}
    dataset = create_dataset(record.dataset, root=record.config["root"], **options)
    split, size_HW = dataset.split("test"), dataset.info.resolution_HW
    at = next(cell.threshold for cell in record.cells if cell.metric == "GT-known")
    known = {"val": GTKnownLoc(threshold=at), "test-oracle": GTKnownLoc(threshold="oracle")}
    top1 = {"val": TopKLoc(k=1, threshold=at), "test-oracle": TopKLoc(k=1, threshold="oracle")}
    parts: dict[Convention, list[ConventionOutcomes]] = defaultdict(list)
    has_logits = False
    for geometry in ("resize", "centre-crop"):
        for batch, prediction in predictions(method, split, size_HW, geometry):
            truth = [split.annotation(id) for id in batch.ids]
            scores = normalize_maps(prediction.maps_Bhw, size_HW)
            ranks = None
            if prediction.logits_BK is not None:
                has_logits, ranks = True, label_rank(prediction.logits_BK, batch.labels_B)
            for convention in PAPERS:
                if convention.geometry != geometry:
                    continue
                maps = scores if convention.box_rule_only else prediction.maps_Bhw.numpy()
                parts[convention].append(
                    score_convention(convention, maps, truth, batch.labels_B, ranks, batch.ids, size_HW, record.dataset)
                )
            if geometry == "resize":
                boxes = [resize_boxes(np.asarray(each.boxes_N4), each.size_HW, size_HW) for each in truth]
                for by, metric in known.items():
                    metric.update(scores, boxes)
                    if prediction.logits_BK is not None:
                        top1[by].update(scores, boxes, prediction.logits_BK, batch.labels_B)
    values: Values = {}
    for by in known:
        values["reference", by] = {"GT-known": known[by].compute()["value"]}
        if has_logits:
            values["reference", by]["Top-1 Loc"] = top1[by].compute()["value"]
    for convention in PAPERS:
        outcomes = ConventionOutcomes.concat(parts[convention])
        own = outcomes.thresholds
        by = f"fixed {own[0]:g}" if len(own) == 1 else f"test-oracle of {', '.join(f'{each:g}' for each in own)}"
        values[convention.name, by] = {
            cell.metric: cell.value for cell in convention_cells(outcomes, AnnotationReader())
        }
    return values


def predictions(
    method: Method, split: Split, size_HW: tuple[int, int], geometry: Geometry
) -> Iterator[tuple[Batch, Prediction]]:
    """Class scores and raw maps of the true class, on the whole images or on their centre crops."""
    margins = get_convention("sat").margins_HW(size_HW)
    for batch in eval_batches(split, batch_size=50):
        images = batch.images_BCHW if geometry == "resize" else centre_crop(batch.images_BCHW, margins)
        with torch.inference_mode():
            answer = method.localize(images, batch.labels_B)
        yield batch, Prediction(answer.logits_BK, answer.maps_Bhw.float())


def centre_crop(images_BCHW: Tensor, margins: tuple[int, int]) -> Tensor:
    """Enlarge by the margins, then cut them off."""
    height, width = images_BCHW.shape[-2:]
    top, left = margins
    size = (height + 2 * top, width + 2 * left)
    larger = F.interpolate(images_BCHW, size=size, mode="bilinear", align_corners=False, antialias=True)
    return larger[..., top : top + height, left : left + width]


def table(found: dict[str, list[Values]]) -> str:
    """Markdown: a row per convention, two columns per method; mean and sample standard deviation over runs."""
    columns = [(method, metric) for method in found for metric in ("GT-known", "Top-1 Loc")]
    columns = [(method, metric) for method, metric in columns if metric in next(iter(found[method][0].values()))]
    lines = [f"| convention | threshold | {' | '.join(' '.join(column) for column in columns)} |"]
    lines.append("|---|---|" + "---:|" * len(columns))
    for row in next(iter(found.values()))[0]:
        cells = [_cell([values[row][metric] for values in found[method]]) for method, metric in columns]
        lines.append(f"| {' | '.join((*row, *cells))} |")
    return "\n".join(lines) + "\n"


def _cell(values: list[float]) -> str:
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):.1f}{spread}"


if __name__ == "__main__":
    main()
