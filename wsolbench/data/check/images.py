"""One image of a data set, looked at: its file, its boxes, its mask."""
# H W image, N boxes of an image

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from wsolbench.data.check.report import Finding
from wsolbench.data.metadata import Metadata
from wsolbench.data.split import Split
from wsolbench.errors import BadImage, WsolbenchError

TINY = 0.001  # share of the image's area
_FORMATS = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "gif": "GIF", "bmp": "BMP", "webp": "WEBP", "tif": "TIFF", "tiff": "TIFF"}  # fmt: skip
# what PIL's readers raise on damaged files, beside OSError
_DAMAGED = (SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error, Image.DecompressionBombError)


@dataclass
class Looked:
    """What was seen of one image; `key` is equal for images that are the same."""

    index: int
    findings: list[Finding] = field(default_factory=list)
    key: bytes | None = None
    boxes: int = 0
    mask: bool = False


@dataclass(frozen=True)
class Looker:
    """Looks at images of one split.

    Args:
        name: of the split.
        split: the images.
        files: whether they lie in files, one each.
        quick: read headers only: nothing is decoded, hashed or compared by content.
        folder: of the images, without links, to tell which links lead out of it; None: not told.
    """

    name: str
    split: Split
    files: bool
    quick: bool
    folder: Path | None = None

    def __call__(self, index: int) -> Looked:
        looked = Looked(index)
        size_HW = self._file(index, looked) if self.files else None
        self._annotation(index, size_HW, looked)
        return looked

    def _found(self, looked: Looked, kind: str, detail: str) -> None:
        looked.findings.append(Finding(kind, self.name, self.split.ids[looked.index], detail))

    def _file(self, index: int, looked: Looked) -> tuple[int, int] | None:
        """The image's size where it can be read."""
        split: Any = self.split
        path: Path = split.image_path(index)
        try:
            state = path.stat()
            if not stat.S_ISREG(state.st_mode):
                self._found(looked, "unreadable", f"'{path}' is a folder or a device, not a file")
                return None
            content = path if self.quick else path.read_bytes()
        except OSError as error:
            kind = "missing" if error.errno in (errno.ENOENT, errno.ENOTDIR) else "unreadable"
            self._found(looked, kind, f"'{path}': {error.strerror}")
            return None
        if not state.st_size:
            self._found(looked, "empty", f"'{path}'")
            return None
        if self.folder is not None and not Path(os.path.realpath(path)).is_relative_to(self.folder):
            self._found(looked, "outside", f"'{path}' leads to '{os.path.realpath(path)}'")
        if isinstance(content, bytes):
            looked.key = hashlib.blake2b(content, digest_size=16).digest()
        else:
            looked.key = os.fsencode(os.path.realpath(path))
        return self._decoded(index, path, content, looked)

    def _decoded(self, index: int, path: Path, content: Path | bytes, looked: Looked) -> tuple[int, int] | None:
        try:
            image = Image.open(io.BytesIO(content) if isinstance(content, bytes) else content)
        except (OSError, *_DAMAGED) as error:
            alien = isinstance(error, UnidentifiedImageError)
            self._found(looked, "not-an-image" if alien else "corrupt", f"'{path}'{'' if alien else f': {error}'}")
            return None
        with image:
            try:
                if not self.quick:
                    image.load()
            except (OSError, *_DAMAGED) as error:
                self._found(looked, "corrupt", f"'{path}': {error}")
            promised = _FORMATS.get(PurePosixPath(path.name).suffix.lstrip(".").lower())
            if promised is not None and image.format not in (promised, "MPO" if promised == "JPEG" else promised):
                self._found(looked, "extension", f"'{path}' holds {image.format}")
            width, height = image.size
        metadata = metadata_of(self.split)
        if metadata is not None and metadata.sizes_HW is not None:
            expected = tuple(metadata.sizes_HW[index].tolist())
            if expected != (height, width):
                says = f"'{metadata.source('sizes')}' says {expected[1]}x{expected[0]}"
                self._found(looked, "size", f"'{path}' is {width}x{height} (width x height), but {says}")
            return int(expected[0]), int(expected[1])
        return height, width

    def _annotation(self, index: int, size_HW: tuple[int, int] | None, looked: Looked) -> None:
        metadata = metadata_of(self.split)
        boxes_N4: npt.NDArray[np.int64] | None = None
        try:
            if not self.split.annotated:
                return
            listed = metadata is not None and metadata.masks is None and metadata.located is None
            if not listed and (metadata is None or (self.files and not self.quick)):
                annotation = self.split.annotation(self.split.ids[index])
                boxes_N4, size_HW = annotation.boxes_N4, annotation.size_HW
                looked.mask = annotation.mask_HW is not None
                if annotation.mask_HW is not None and not (annotation.mask_HW == 1).any():
                    self._found(looked, "mask-empty", "no pixel of the object")
            if metadata is not None:
                boxes_N4 = metadata.boxes(index)  # as they are listed: what is clipped is found below
                if metadata.sizes_HW is not None:
                    size_HW = tuple(metadata.sizes_HW[index].tolist())
        except BadImage:
            return  # found when the file was looked at
        except WsolbenchError as error:
            masks = metadata is not None and metadata.masks is not None
            self._found(looked, "mask" if masks else "lists", str(error))
            return
        if boxes_N4 is not None:
            looked.boxes = len(boxes_N4)
            are_clipped = metadata is not None and metadata.sizes_HW is None  # by the image's size, when they are read
            for kind, detail in box_findings(boxes_N4, size_HW, are_clipped):
                self._found(looked, kind, detail)


def metadata_of(split: Split) -> Metadata | None:
    """The lists of a split that was read from some."""
    metadata = getattr(split, "metadata", None)
    return metadata if isinstance(metadata, Metadata) else None


def box_findings(
    boxes_N4: npt.NDArray[np.int64], size_HW: tuple[int, int] | None, are_clipped: bool = False
) -> Iterator[tuple[str, str]]:
    """What is odd about the boxes of an image of that size: kind and detail. `are_clipped`: ends beyond it do no harm.

    >>> list(box_findings(np.array([[0, 0, 9, 9], [5, 5, 5, 8], [5, 5, 20, 8]]), (10, 10)))
    [('box-degenerate', '5,5,5,8'), ('box-outside', '5,5,20,8 in an image of 10x10 (width x height)')]
    """
    if not len(boxes_N4):
        yield "no-boxes", "no box"
    seen: set[tuple[int, ...]] = set()
    for box in boxes_N4.tolist():
        x0, y0, x1, y1 = box
        shown = ",".join(map(str, box))
        if tuple(box) in seen:
            yield "box-duplicate", shown
        seen.add(tuple(box))
        if x1 <= x0 or y1 <= y0:
            yield "box-degenerate", shown
        elif size_HW is not None and (min(x0, y0) < 0 or x1 >= size_HW[1] or y1 >= size_HW[0]):
            begins_inside = 0 <= x0 < size_HW[1] and 0 <= y0 < size_HW[0]
            kind = "box-clipped" if are_clipped and begins_inside else "box-outside"
            yield kind, f"{shown} in an image of {size_HW[1]}x{size_HW[0]} (width x height)"
        elif size_HW is not None and (x1 - x0) * (y1 - y0) < TINY * size_HW[0] * size_HW[1]:
            yield "box-tiny", f"{shown} in an image of {size_HW[1]}x{size_HW[0]} (width x height)"
