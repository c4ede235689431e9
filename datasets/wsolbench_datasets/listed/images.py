"""The images of a listed split as a loading process holds them: files, labels and sizes, packed; no boxes, no lists."""
# B images, C channels, H W image

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from wsolbench.conventions import Geometry
from wsolbench.data import Images, empty_batch
from wsolbench.data.ids import safe_path
from wsolbench.data.metadata import Metadata
from wsolbench.data.packed import PackedStrings
from wsolbench.errors import BadImage, WsolbenchError
from wsolbench.types import Batch
from wsolbench_datasets.listed.cache import PixelCache, stamp_of
from wsolbench_datasets.listed.decode import decode, opencv_agrees, read_bytes, read_header
from wsolbench_datasets.listed.pixels import RESOLUTION, View, evaluation_view, normalise, training_view, view_pixels
from wsolbench_datasets.listed.resize import Pixels


class ListedImages(Images):
    """Reads, checks, resizes and normalises the images that a list names.

    Args:
        name: of the split, for complaints, e.g. "cub/test".
        metadata: the list.
        folder: of the images; None: there is none.
        expected: where it is looked for.
        geometry: of images that are not augmented.
        cache: the folder of resized pixels; None: there is none.
    """

    def __init__(
        self,
        name: str,
        metadata: Metadata,
        folder: Path | None,
        expected: str,
        geometry: Geometry = "resize",
        cache: Path | None = None,
    ) -> None:
        self.name, self.folder, self.expected, self.view = name, folder, expected, evaluation_view(geometry)
        self.ids = PackedStrings(metadata.ids)
        self.files = self.ids if metadata.files is None else PackedStrings(metadata.files)
        self.labels = torch.from_numpy(metadata.labels)
        self.sizes_HW = None if metadata.sizes_HW is None else torch.from_numpy(metadata.sizes_HW)
        self.sizes_file = metadata.source("sizes")
        self.cache_folder, self._caches = cache, dict[int, PixelCache]()

    def __len__(self) -> int:
        return len(self.ids)

    def id(self, index: int) -> str:
        return self.ids[index]

    def path(self, index: int) -> Path:
        """Where the image at `index` lies; `WsolbenchError` if there is no folder of images."""
        return path_of(self.files[index], "image", self.folder, self.name, self.expected)

    def batch(self, indices: Sequence[int], augment: Sequence[torch.Generator] | None = None) -> Batch:
        """The images, ImageNet-normalised: in evaluation geometry, or each augmented from its generator."""
        views = [self.view] * len(indices) if augment is None else [training_view(each) for each in augment]
        pixels_BHW3 = np.empty((len(indices), RESOLUTION, RESOLUTION, 3), np.uint8)
        for at, (index, view) in enumerate(zip(indices, views, strict=True)):
            pixels_BHW3[at] = self._pixels(index, view)
        images_BCHW = normalise(pixels_BHW3, empty_batch(len(indices), 3, RESOLUTION, RESOLUTION))
        return Batch([self.ids[index] for index in indices], images_BCHW, self.labels[list(indices)])

    def picture(self, index: int) -> Pixels:
        """The image as it is stored, uint8 [H, W, 3]."""
        return self._decoded(index, self.path(index))

    def warm_up(self) -> None:
        opencv_agrees()
        view_pixels(np.zeros((2, 2, 3), np.uint8), self.view)
        normalise(np.zeros((1, 1, 1, 3), np.uint8))

    def _pixels(self, index: int, view: View) -> Pixels:
        path = self.path(index)
        if self.cache_folder is None:
            return view_pixels(self._decoded(index, path), view)
        cache = self._cache(view.side)
        stamp = stamp_of(path, f"{self.files[index]}|{self._size(index)}")
        whole = cache.read(index, stamp)
        if whole is None:
            whole = view_pixels(self._decoded(index, path), View(view.side))
            cache.write(index, stamp, whole)
        return whole[view.part]

    def _decoded(self, index: int, path: Path) -> Pixels:
        content = read_bytes(path)
        image = read_header(path, content)
        self._check_size(index, image, path)
        return decode(image, content, path)

    def _size(self, index: int) -> tuple[int, int] | None:
        """Height and width as listed."""
        return None if self.sizes_HW is None else (int(self.sizes_HW[index, 0]), int(self.sizes_HW[index, 1]))

    def _check_size(self, index: int, image: Image.Image, path: Path) -> None:
        size_HW = self._size(index)
        if size_HW is not None and image.size != size_HW[::-1]:
            raise BadImage(
                path,
                f"is {image.size[0]}x{image.size[1]} (width x height), but "
                f"'{self.sizes_file}' says {size_HW[1]}x{size_HW[0]}: it is not the image that was annotated",
            )

    def _cache(self, side: int) -> PixelCache:
        if side not in self._caches:
            assert self.cache_folder is not None
            assert self.folder is not None  # `path` has complained before
            self._caches[side] = PixelCache(self.cache_folder, self.name, self.folder, len(self), side)
        return self._caches[side]


def path_of(file: str, what: str, folder: Path | None, split: str, expected: str) -> Path:
    """A file of a split below its folder; `WsolbenchError` if there is no folder, or the file would not lie in it."""
    if folder is None:
        raise WsolbenchError(
            f"{what} '{file}' of {split} is needed, but there is no folder of images below --root; expected "
            f"{expected} there"
        )
    return safe_path(folder, file)
