"""Draws what the methods of finished runs see: one row per method, one column per test image drawn by seed.

    python results/draw_overlays.py results/overlays.png results/runs/badges/{cam,gradcam,tscam,sat,attention}/*/full/s0-*

Green: the true box. Yellow: the badge, where the data set knows parts. Red: the box at the threshold of the record. The
number is the IoU. Maps are those of the true class, normalised as the reference evaluator does it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from wsolbench import create_dataset, load_run
from wsolbench.boxes.maps import normalize_maps
from wsolbench.boxes.scan import boxes_at_threshold
from wsolbench.boxes.truth import iou_matrix, resize_boxes
from wsolbench.record import read_record


def main() -> None:
    """Write the picture named first, of the runs named after it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=8, help="images")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of images")
    chosen = parser.parse_args()
    records = [read_record(run / "record.json") for run in chosen.runs]
    options = {key: value for key, value in records[0].config["dataset"].items() if key != "name"}
    dataset = create_dataset(records[0].dataset, root=records[0].config["root"], **options)
    split, size_HW = dataset.split("test"), dataset.info.resolution_HW
    indices = np.random.RandomState(chosen.seed).permutation(len(split))[: chosen.count]
    samples = [split[int(i)] for i in indices]
    images_BCHW = torch.stack([sample.image_CHW for sample in samples])
    labels_B = torch.tensor([sample.label for sample in samples])

    figure = Figure(figsize=(1.25 * len(samples) + 1.1, 1.25 * (1 + len(records))), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1 + len(records), len(samples), squeeze=False)
    figure.subplots_adjust(left=0.11, right=0.995, top=0.97, bottom=0.005, wspace=0.04, hspace=0.04)
    low, high = images_BCHW.min(), images_BCHW.max()
    pictures = ((images_BCHW - low) / (high - low)).permute(0, 2, 3, 1).numpy()
    titles = ["image"]
    maps, thresholds = [], []
    for run, record in zip(chosen.runs, records, strict=True):
        maps.append(normalize_maps(load_run(run).localize(images_BCHW, labels_B).maps_Bhw, size_HW))
        thresholds.append(next(cell.threshold for cell in record.cells if cell.metric == "GT-known"))
        titles.append(f"{record.method}\n{record.backbone}\nthreshold {thresholds[-1]:.2f}")
    for column, sample in enumerate(samples):
        annotation = split.annotation(sample.id)
        assert annotation.boxes_N4 is not None
        truth_N4 = resize_boxes(annotation.boxes_N4, annotation.size_HW, size_HW)
        parts_N4 = split.part_box(sample.id) if hasattr(split, "part_box") else np.empty((0, 4), int)
        axes[0, column].set_title(dataset.info.class_names[sample.label], fontsize=8, pad=2)
        for row, ax in enumerate(axes[:, column]):
            picture = pictures[column]
            if row:
                map_HW = maps[row - 1][column]
                picture = 0.5 * picture + 0.5 * colormaps["inferno"](map_HW)[..., :3]
            ax.imshow(picture, interpolation="bilinear")
            ax.set_xticks([])
            ax.set_yticks([])
            _draw(ax, truth_N4, "lime", 1.4)
            _draw(ax, parts_N4, "yellow", 0.9)
            if row:
                box_14 = boxes_at_threshold(map_HW, thresholds[row - 1])
                _draw(ax, box_14, "red", 1.4)
                iou = iou_matrix(box_14, truth_N4).max()
                ax.text(
                    1, 5.5, f"{iou:.2f}", color="white", fontsize=7, bbox={"facecolor": "black", "pad": 0.8, "lw": 0}
                )
    for row, title in enumerate(titles):
        axes[row, 0].set_ylabel(title, fontsize=7, rotation=0, ha="right", va="center")
    figure.savefig(chosen.picture)


def _draw(ax: Any, boxes_N4: Any, colour: str, width: float) -> None:
    for x0, y0, x1, y1 in boxes_N4:
        ax.add_patch(Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=width))


if __name__ == "__main__":
    main()
