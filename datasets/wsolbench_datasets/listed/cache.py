"""Resized pixels on disk, so that an image is decoded once: `dataset.cache=FOLDER`.

One file per split and side, a slot of equal size per image. A slot says which state of which image file it was made from, and
a checksum of its pixels: what is stale, damaged or half written is not used and is made anew. Slots are written whole with
one call each and hold the same bytes whoever writes them, so processes may share a file. Files are sparse: an image takes its
side * side * 3 bytes only once it is there (224: 0.15 MB, 256: 0.2 MB; ILSVRC test 7.5 GB, train 252 GB).
"""
# H W image

from __future__ import annotations

import hashlib
import os
import warnings
import zlib
from pathlib import Path

import numpy as np
import PIL

from wsolbench.errors import BadImage, UsageError
from wsolbench_datasets.listed.resize import Pixels

VERSION = "wsolbench pixels 1"
STAMP = 24  # bytes
HEADER = STAMP + 4
LEAST_FREE = 0.05  # share of the disk that is left free


class PixelCache:
    """The pixels of the images of one split, resized to `side` x `side`.

    Raises:
        UsageError: the folder can neither be read nor made.
    """

    def __init__(self, folder: Path, split: str, images: Path, count: int, side: int) -> None:
        self.side, self.count = side, count
        # pixels are those of the Pillow at hand, whose releases do not all compute alike
        about = f"{VERSION}|Pillow {PIL.__version__}|{split}|{images.resolve()}|{count}|{side}"
        key = hashlib.sha256(about.encode("utf-8", "surrogateescape")).hexdigest()[:12]
        self.path = folder / f"{split.replace('/', '-')}-{side}-{key}.pixels"
        self._descriptor: int | None = None
        self._may_write = True
        if not hasattr(os, "pread"):
            raise UsageError("dataset.cache needs a POSIX system: leave it out here")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"dataset.cache='{folder}' cannot be made: {error.strerror}") from error

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_descriptor": None}  # a process that is not forked opens the file itself

    def read(self, index: int, stamp: bytes) -> Pixels | None:
        """Return uint8 [side, side, 3] of the image at `index`; None unless it is whole and made from that state of its file."""
        slot = os.pread(self._file(), self._size, index * self._size)
        if len(slot) != self._size or slot[:STAMP] != stamp:
            return None
        if zlib.crc32(memoryview(slot)[HEADER:]) != int.from_bytes(slot[STAMP:HEADER], "little"):
            return None
        return np.frombuffer(slot, np.uint8, offset=HEADER).reshape(self.side, self.side, 3)

    def write(self, index: int, stamp: bytes, pixels_HW3: Pixels) -> None:
        """Keep the pixels, as long as there is room; a cache that cannot be written costs time, not the run."""
        if not self._may_write:
            return
        pixels = pixels_HW3.tobytes()
        slot = stamp + zlib.crc32(pixels).to_bytes(4, "little") + pixels
        try:
            state = os.fstatvfs(self._file())
            if state.f_bavail < LEAST_FREE * state.f_blocks:
                raise OSError(f"less than {LEAST_FREE:.0%} of the disk is free")
            os.pwrite(self._file(), slot, index * self._size)
        except OSError as error:
            self._may_write = False
            warnings.warn(f"no more pixels are kept in '{self.path}': {error}", stacklevel=2)

    @property
    def _size(self) -> int:
        return HEADER + self.side * self.side * 3

    def _file(self) -> int:
        if self._descriptor is None:
            try:
                self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                if not self.path.is_file():
                    raise UsageError(f"dataset.cache: '{self.path}' cannot be made: {error.strerror}") from error
                self._may_write, self._descriptor = (
                    False,
                    os.open(self.path, os.O_RDONLY),
                )  # someone else's, to be shared
        return self._descriptor


def stamp_of(path: Path, about: str) -> bytes:
    """What changes when an image file is replaced, or what is asked of it; `BadImage` if there is no such file."""
    try:
        state = path.stat()
    except OSError as error:
        raise BadImage(path, f"cannot be read: {error.strerror or error}") from error
    text = f"{path.name}|{about}|{state.st_size}|{state.st_mtime_ns}"
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=STAMP).digest()
