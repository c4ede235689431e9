"""From an image file to RGB pixels, equal to PIL's `convert("RGB")`, whichever decoder gives them.

JPEGs of one scan in gray or colour go through OpenCV's decoder, which is somewhat faster than PIL's and gives the same pixels
where both were built with libjpeg-turbo; whether they were is tried once per process. (torchvision's decoder is as equal, but
slower, two seconds to import and deprecated since 0.29.) PIL reads the header of every file, and all of what OpenCV refuses,
so what counts as damaged is PIL's answer alone.
"""
# H W image

from __future__ import annotations

import functools
import io
import re
import stat
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from wsolbench.errors import BadImage

Pixels = npt.NDArray[np.uint8]

_COLOR: int = getattr(cv2, "IMREAD_COLOR_RGB", cv2.IMREAD_COLOR)  # OpenCV before 4.11 gives BGR only
# JPEG: begin of a scan; end of the image; any marker in a scan but a byte 0xff itself and the eight restart marks
_SCAN, _END, _MARKER = b"\xda", b"\xff\xd9", re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")

# What PIL's readers raise on damaged files besides OSError; an image of more than 179 million pixels is refused too.
_DAMAGED = (SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error, Image.DecompressionBombError)


def read_bytes(path: Path) -> bytes:
    """The content of an image file; `BadImage` if there is none."""
    try:
        _check_regular(path)
        return path.read_bytes()
    except OSError as error:
        raise BadImage(path, f"cannot be read: {error.strerror or error}") from error


def read_header(path: Path, content: bytes | None = None) -> Image.Image:
    """The image, not yet decoded; its `size` is (width, height) in stored orientation. `content`: the file, already read."""
    try:
        if content is None:
            _check_regular(path)
        return Image.open(path if content is None else io.BytesIO(content))
    except OSError as error:
        raise BadImage(path, f"cannot be read: {error.strerror or 'no known image format'}") from error
    except _DAMAGED as error:
        raise BadImage(path, f"cannot be read: {error}") from error


def _check_regular(path: Path) -> None:
    if not stat.S_ISREG(path.stat().st_mode):  # opening a named pipe would wait for a writer, forever
        raise BadImage(path, "cannot be read: it is not a regular file")


def as_rgb(image: Image.Image, path: Path) -> Image.Image:
    """The image decoded, as RGB in its stored orientation: EXIF rotation is not applied, as boxes do not know of it."""
    try:
        return image.convert("RGB")
    except (OSError, *_DAMAGED) as error:
        raise BadImage(path, f"cannot be decoded: {error}") from error


def decode(image: Image.Image, content: bytes, path: Path) -> Pixels:
    """Return uint8 [H, W, 3], contiguous, of the file `content` whose header is `image`.

    Raises:
        BadImage: PIL cannot decode it.
    """
    if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L") and opencv_agrees() and _is_one_scan(content):
        pixels_HW3 = _by_opencv(content)
        if pixels_HW3 is not None and pixels_HW3.shape[1::-1] == image.size:
            return pixels_HW3
    return np.ascontiguousarray(np.asarray(as_rgb(image, path)))


def _is_one_scan(content: bytes) -> bool:
    """Say whether a JPEG's coded pixels go on to its end mark without another marker.

    Where a damaged scan breaks off at a marker, PIL refuses the file, but OpenCV hands out what came before.
    """
    at = 2
    while content[at : at + 1] == b"\xff" and content[at + 1 : at + 2] != _SCAN:
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    found = _MARKER.search(content, at + 2 + int.from_bytes(content[at + 2 : at + 4], "big"))
    return found is not None and found[0] == _END


def _by_opencv(content: bytes) -> Pixels | None:
    """None: OpenCV finds the file damaged."""
    try:
        pixels_HW3 = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_IGNORE_ORIENTATION | _COLOR)
    except cv2.error:
        return None
    if pixels_HW3 is not None and _COLOR == cv2.IMREAD_COLOR:
        pixels_HW3 = cv2.cvtColor(pixels_HW3, cv2.COLOR_BGR2RGB)
    return None if pixels_HW3 is None else np.asarray(pixels_HW3, np.uint8)


@functools.cache
def opencv_agrees() -> bool:
    """Try small JPEGs of every kind: the two bring their own libraries, whose versions need not compute alike."""
    noise = np.random.RandomState(0).randint(0, 256, (9, 13, 3), np.uint8)
    image = Image.fromarray(noise).resize((53, 37), Image.Resampling.BICUBIC)
    kinds: list[tuple[Image.Image, dict[str, Any]]] = [(image.convert("L"), {})]
    kinds += [(image, {"subsampling": subsampling}) for subsampling in (0, 1, 2)]
    for each, options in kinds:
        file = io.BytesIO()
        each.save(file, "JPEG", quality=85, **options)
        pixels_HW3 = _by_opencv(file.getvalue())
        with Image.open(file) as again:
            if pixels_HW3 is None or not np.array_equal(pixels_HW3, np.asarray(again.convert("RGB"))):
                return False
    return True
