"""A sheet of a split's images with what the annotations say, to look at before any number is believed."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wsolbench.errors import BadImage, UsageError, unknown
from wsolbench.system.files import atomically

if TYPE_CHECKING:
    from wsolbench.data.dataset import Dataset
    from wsolbench.data.split import Split

COLUMNS = 8
TITLE = 28  # characters over a picture
LEGEND = {"box": "green", "mask": "cyan", "part": "yellow", "ignored": "hatched"}


def write_contact_sheet(dataset: Dataset, split: str, path: Path, count: int = 24, seed: int = 0) -> Path:
    """Draw `count` images of a split, chosen by `seed`, and write them as a PNG.

    True boxes are green, mask outlines cyan, badge or other part boxes (where the split has `part_box`) yellow, ignored
    regions darkened and hatched; over each image stand its class and its id. Images are shown whole, whatever of them a
    network sees; of one that cannot be read the sheet says so.
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
    figure = Figure(figsize=(max(1.8 * columns, 5), 2.1 * rows + 0.3), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes:
        ax.set_axis_off()
    shown: set[str] = set()
    for ax, index in zip(axes, chosen, strict=False):
        shown |= _draw(ax, content, int(index), dataset.info.class_names)
    legend = ", ".join(f"{what} {how}" for what, how in LEGEND.items() if what in shown) or "no annotations"
    title = f"{shortened(dataset.info.title, 40)}, {split}: {count} of {len(content):,} images; {legend}"
    figure.suptitle(title, fontsize=7, x=0.01, ha="left", parse_math=False)
    path = Path(path)
    with warnings.catch_warnings(), atomically(path) as temporary:
        warnings.filterwarnings("ignore", "Glyph .* missing")  # class names may be in any script
        figure.savefig(temporary, format="png")
    return path


def shortened(text: str, length: int) -> str:
    """The text with its middle left out where it is too long: both ends tell images apart.

    >>> shortened("001.Black_footed_Albatross/Black_Footed_Albatross_0001.jpg", 28)
    '001.Black_foot...oss_0001.jpg'
    """
    half = (length - 2) // 2
    return text if len(text) <= length else f"{text[: half + 1]}...{text[-half + 1 :]}"


def _draw(ax: Any, split: Split, index: int, class_names: tuple[str, ...]) -> set[str]:
    """Draw one image; returns which parts of the legend it needs."""
    label, id = int(split.labels[index]), split.ids[index]
    name = class_names[label] if label < len(class_names) else str(label)
    title = f"{shortened(name, TITLE)}\n{shortened(id.rpartition('/')[2], TITLE)}"
    ax.set_title(title, fontsize=6.5, parse_math=False)
    try:
        image = split.picture(index)
    except BadImage as error:
        ax.text(0.5, 0.5, f"this image\n{shortened(error.why, 60)}", ha="center", va="center", fontsize=6, color="red",
                wrap=True, transform=ax.transAxes, parse_math=False)  # fmt: skip
        return set()
    annotation = split.annotation(id)
    height, width = annotation.size_HW
    # the frame of the annotation: where files of masks differ in size, it is not that of the image
    ax.imshow(image, extent=(0, width, height, 0), interpolation="antialiased")
    shown = set() if annotation.mask_HW is None else _draw_mask(ax, annotation.mask_HW)
    boxes = [(box, "box", "lime") for box in (() if annotation.boxes_N4 is None else annotation.boxes_N4)]
    part_box = getattr(split, "part_box", None)
    if part_box is not None:
        boxes += [(box, "part", "yellow") for box in part_box(id)]
    for box, what, colour in boxes:
        _draw_box(ax, box, colour)
        shown.add(what)
    margin = 0.01 * max(width, height)  # boxes and outlines at the edge stay in sight
    ax.set_xlim(-margin, width + margin)
    ax.set_ylim(height + margin, -margin)
    return shown


def _draw_box(ax: Any, box: npt.NDArray[np.int64], colour: str) -> None:
    from matplotlib.patches import Rectangle

    x0, y0, x1, y1 = box.tolist()
    for line, width in (("black", 2.0), (colour, 1.2)):  # a dark edge: lime is lost on grass
        ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=line, linewidth=width))


def _draw_mask(ax: Any, mask_HW: npt.NDArray[np.uint8]) -> set[str]:
    """Outline of the object, hatches over what is ignored; a frame of zeros closes outlines at the image's edge."""
    height, width = mask_HW.shape
    padded = np.pad(mask_HW, 1)
    grid_x, grid_y = np.arange(-1, width + 1) + 0.5, np.arange(-1, height + 1) + 0.5
    shown = set()
    if (mask_HW == 255).any():
        ignored = (padded == 255).astype(float)
        ax.contourf(grid_x, grid_y, ignored, levels=[0.5, 2], colors=["black"], alpha=0.45)
        hatches = ax.contourf(grid_x, grid_y, ignored, levels=[0.5, 2], colors="none", hatches=["////"])
        hatches.set_edgecolor("white")
        hatches.set_linewidth(0)
        shown.add("ignored")
    if (mask_HW == 1).any():
        ax.contour(grid_x, grid_y, padded == 1, levels=[0.5], colors="cyan", linewidths=0.8)
        shown.add("mask")
    return shown
