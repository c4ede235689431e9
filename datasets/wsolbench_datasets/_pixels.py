"""From an image file to the pixels a network sees: the reference evaluator's geometry.

Source: Choe et al., CVPR 2020, and clovaai/wsolevaluation (commit 96f4b88): PIL's bilinear filter; val and test are resized
to 224x224, aspect ratio not kept; training images to 256x256, of which a random crop of 224x224 is taken and flipped or not.
"""
# C channels, H W image

from __future__ import annotations

import stat
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from wsolbench.errors import BadImage

RESOLUTION = 224  # side of the frame in which maps and ground truth are compared
RESIZED = 256  # side to which a training image is resized before a crop of RESOLUTION is drawn
MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
# What PIL's readers raise on damaged files besides OSError; an image of more than 179 million pixels is refused too.
_DAMAGED = (SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error, Image.DecompressionBombError)
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def read_header(path: Path) -> Image.Image:
    """The image, not yet decoded; its `size` is (width, height) in stored orientation."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a named pipe would wait for a writer, forever
            raise BadImage(path, "cannot be read: it is not a regular file")
        return Image.open(path)
    except OSError as error:
        raise BadImage(path, f"cannot be read: {error.strerror or 'no known image format'}") from error
    except _DAMAGED as error:
        raise BadImage(path, f"cannot be read: {error}") from error


def as_rgb(image: Image.Image, path: Path) -> Image.Image:
    """The image decoded, as RGB in its stored orientation: EXIF rotation is not applied, as boxes do not know of it."""
    try:
        return image.convert("RGB")
    except (OSError, *_DAMAGED) as error:
        raise BadImage(path, f"cannot be decoded: {error}") from error


def pixels(image: Image.Image, side: int = RESOLUTION) -> Tensor:
    """uint8 [3, side, side]: the whole image, its aspect ratio not kept."""
    pixels_HW3 = np.array(image.resize((side, side), Image.Resampling.BILINEAR))
    return torch.from_numpy(pixels_HW3).permute(2, 0, 1)


def training_pixels(image: Image.Image, augment: torch.Generator) -> Tensor:
    """uint8 [3, 224, 224]: a crop of the image resized to 256x256, flipped or not, drawn from `augment` alone."""
    image_CHW = pixels(image, RESIZED)
    y, x = torch.randint(0, RESIZED - RESOLUTION + 1, (2,), generator=augment).tolist()
    image_CHW = image_CHW[:, y : y + RESOLUTION, x : x + RESOLUTION]
    return image_CHW.flip(-1) if torch.rand((), generator=augment) < 0.5 else image_CHW


def normalised(image_CHW: Tensor) -> Tensor:
    """uint8 pixels as float32 with ImageNet's mean and deviation taken out."""
    return ((image_CHW.float() / 255 - MEAN) / STD).contiguous()
