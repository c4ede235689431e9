"""Masks from image files, one per image: `masks/val/cat/a.png` for `val/cat/a.jpg`; 0 is background, other values object."""
# H W image

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from wsolbench.errors import WsolbenchError
from wsolbench_datasets.folder.box_records import Place
from wsolbench_datasets.folder.names import ImageNames, without_suffix
from wsolbench_datasets.folder.tree import Found, walk

SUFFIX = ".png"
# What PIL raises on damaged files besides OSError; an image of more than 179 million pixels is refused too.
_DAMAGED = (SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error, Image.DecompressionBombError)


def find_masks(folder: Path, stems: ImageNames) -> dict[int, Found]:
    """The mask of each image that has one, by index.

    Raises:
        WsolbenchError: a mask is named after no image, or after two, or two are named after one.
    """
    masks: dict[int, Found] = {}
    for found in sorted(walk(folder), key=lambda found: found.id):
        if not found.file.lower().endswith(SUFFIX):
            continue
        stem = without_suffix(found.id)
        image = stems.find(stem, Place(folder / found.file, "(its name)", stem).refuse)
        if masks.setdefault(image, found) is not found:
            raise WsolbenchError(
                f"'{folder / masks[image].file}' and '{folder / found.file}' are masks of the same image: keep one of them"
            )
    return masks


def read_mask(path: Path, size_HW: tuple[int, int], ignored: int | None) -> npt.NDArray[np.uint8]:
    """uint8 [H, W]: 1 object, 0 background, 255 where the file has the value `ignored`.

    Palette files count by index, 16-bit files by value, colour files by their largest channel; transparency is not read.

    Raises:
        WsolbenchError: the file cannot be read, is of another size than the image, or shows no object.
    """
    try:
        with Image.open(path) as image:
            opaque = {"RGBA": "RGB", "LA": "L", "PA": "P"}.get(image.mode)
            values = np.asarray(image.convert(opaque) if opaque else image)
    except OSError as error:
        raise WsolbenchError(f"mask '{path}' cannot be read: {error.strerror or 'no known image format'}") from error
    except _DAMAGED as error:
        raise WsolbenchError(f"mask '{path}' cannot be decoded: {error}") from error
    if values.ndim == 3:
        values = values.max(2)
    if values.shape != size_HW:
        (height, width), (needed_height, needed_width) = values.shape, size_HW
        raise WsolbenchError(
            f"mask '{path}' is {width}x{height} (width x height), but its image is {needed_width}x{needed_height}"
        )
    mask_HW: npt.NDArray[np.uint8] = (values != 0).astype(np.uint8)
    if ignored is not None:
        mask_HW[values == ignored] = 255
    if not (mask_HW == 1).any():
        but = "" if ignored is None else f" besides the ignored value {ignored}"
        raise WsolbenchError(f"mask '{path}' shows no object: it holds nothing but 0{but}")
    return mask_HW
