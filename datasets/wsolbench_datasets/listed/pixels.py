"""What of an image a network sees: the geometries of the released evaluators.

Sources: Choe et al., CVPR 2020, and clovaai/wsolevaluation (commit 96f4b88): PIL's bilinear filter; val and test are resized
to 224x224, aspect ratio not kept; training images to 256x256, of which a random crop of 224x224 is taken and flipped or not.
wpy1999/SAT (commit 702290d) and wpy1999/BAS (54c395e) train on the same crops, and test on the middle 224x224 of 256x256.
"""
# B images, C channels, H W image

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from wsolbench.conventions import Geometry
from wsolbench.system.compiled import compiled
from wsolbench_datasets.listed.resize import Pixels, pillows_order, resize

RESOLUTION = 224  # side of the frame in which maps and ground truth are compared
RESIZED = 256  # side to which an image is resized before a crop of RESOLUTION is taken
MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


@dataclass(frozen=True)
class View:
    """Rows and columns of the whole image resized to a square; a negative step mirrors."""

    side: int
    part: tuple[slice, slice] = (slice(None), slice(None))


def evaluation_view(geometry: Geometry) -> View:
    """What val and test images show.

    >>> evaluation_view("centre-crop")
    View(side=256, part=(slice(16, 240, None), slice(16, 240, None)))
    """
    if geometry == "resize":
        return View(RESOLUTION)
    margin = (RESIZED - RESOLUTION) // 2
    middle = slice(margin, margin + RESOLUTION)
    return View(RESIZED, (middle, middle))


def training_view(augment: torch.Generator) -> View:
    """A crop of the image resized to 256x256, flipped or not, drawn from `augment` alone."""
    y, x = torch.randint(0, RESIZED - RESOLUTION + 1, (2,), generator=augment).tolist()
    columns = slice(x, x + RESOLUTION)
    if torch.rand((), generator=augment) < 0.5:
        columns = slice(x + RESOLUTION - 1, x - 1 if x else None, -1)
    return View(RESIZED, (slice(y, y + RESOLUTION), columns))


def view_pixels(image_HW3: Pixels, view: View) -> Pixels:
    """uint8 [h, w, 3]: the view of an image, as PIL's bilinear filter shows it."""
    order = pillows_order()
    if order is not None:
        return resize(image_HW3, (view.side, view.side), view.part, order=order)
    whole = Image.fromarray(image_HW3).resize((view.side, view.side), Image.Resampling.BILINEAR)
    return np.asarray(whole)[view.part]


def normalise(pixels_BHW3: Pixels, out_BCHW: Tensor | None = None) -> Tensor:
    """uint8 pixels as float32 [B, 3, H, W] with ImageNet's mean and deviation taken out.

    >>> normalise(np.zeros((1, 2, 2, 3), np.uint8))[0, :, 0, 0]
    tensor([-2.1179, -2.0357, -1.8044])
    """
    count, height, width, channels = pixels_BHW3.shape
    out_BCHW = torch.empty(count, channels, height, width) if out_BCHW is None else out_BCHW
    _look_up(pixels_BHW3, _values(), out_BCHW.numpy())
    return out_BCHW


@functools.cache
def _values() -> npt.NDArray[np.float32]:
    """float32 [3, 256]: what each value of each channel becomes, in torch's arithmetic."""
    values: npt.NDArray[np.float32] = ((torch.arange(256).float() / 255 - MEAN[:, 0]) / STD[:, 0]).numpy()
    return values


@compiled
def _look_up(pixels_BHW3: Pixels, values: npt.NDArray[np.float32], out_BCHW: npt.NDArray[np.float32]) -> None:
    for image in range(pixels_BHW3.shape[0]):
        for y in range(pixels_BHW3.shape[1]):
            for channel in range(3):
                row = out_BCHW[image, channel, y]
                for x in range(len(row)):
                    row[x] = values[channel, pixels_BHW3[image, y, x, channel]]
