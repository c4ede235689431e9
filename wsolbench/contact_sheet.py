"""A sheet of a split's images with what the annotations say, to look at before any number is believed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsolbench.errors import UsageError, unknown

if TYPE_CHECKING:
    from wsolbench.data import Dataset, Split

COLUMNS = 8


def write_contact_sheet(dataset: Dataset, split: str, path: Path, count: int = 24, seed: int = 0) -> Path:
    """Draw `count` images of a split, chosen by `seed`, and write them as a PNG.

    True boxes are green, mask outlines cyan, badge or other part boxes (where the split has `part_box`) yellow; the title
    is the class. Images are shown as the network sees them in evaluation, scaled to the full range of their own values.
    """
    if split not in dataset.splits:
        raise unknown("split", split, dataset.splits)
    if count < 1:
        raise UsageError(f"a contact sheet of {count} images was asked for; it needs at least one")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    content = dataset.split(split)
    count = min(count, len(content))
    chosen = np.random.RandomState(seed).permutation(len(content))[:count]
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    # the figure is built without pyplot, whose global state and display back end a library should not touch
    figure = Figure(figsize=(1.8 * columns, 2.0 * rows), dpi=100, layout="tight")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
        ax.set_axis_off()
    for ax, index in zip(axes, chosen, strict=False):
        _draw(ax, content, int(index), dataset.info.class_names)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
    return path


def _draw(ax: Any, split: Split, index: int, class_names: tuple[str, ...]) -> None:
    from matplotlib.patches import Rectangle

    sample = split[index]
    annotation = split.annotation(sample.id)
    height, width = annotation.size_HW
    image = sample.image_CHW.permute(1, 2, 0).numpy()
    image = (image - image.min()) / max(float(image.max() - image.min()), 1e-6)
    # the frame of the annotation: boxes and masks are in original pixels, whatever the network's input size
    ax.imshow(image, extent=(0, width, height, 0), interpolation="nearest")
    if annotation.mask_HW is not None and (annotation.mask_HW == 1).any():
        grid_x, grid_y = np.arange(width) + 0.5, np.arange(height) + 0.5
        ax.contour(grid_x, grid_y, annotation.mask_HW == 1, levels=[0.5], colors="cyan", linewidths=0.8)
    boxes = [(box, "lime") for box in (() if annotation.boxes_N4 is None else annotation.boxes_N4)]
    part_box = getattr(split, "part_box", None)
    if part_box is not None:
        boxes += [(box, "yellow") for box in part_box(sample.id)]
    for (x0, y0, x1, y1), colour in boxes:
        ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=colour, linewidth=1.2))
    ax.set_title(f"{class_names[sample.label]}  ({sample.id})", fontsize=7)
