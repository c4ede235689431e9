"""Data sets of image files that some list names: what they share, whatever the list looks like on disk.

A data set file says where its lists lie and reads them into `Metadata`; classes, splits, images, masks and the fingerprint
follow from there.
"""
# C channels, H W image, n images of a split

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from wsolbench.boxes import resize_mask
from wsolbench.data import Dataset, DatasetInfo, Split
from wsolbench.errors import WsolbenchError, unknown
from wsolbench.ids import safe_path
from wsolbench.metadata import MaskFiles, Metadata
from wsolbench.types import Annotation, Sample
from wsolbench_datasets._pixels import RESOLUTION, as_rgb, normalised, pixels, read_header, training_pixels

REVISION = "1"  # moves when the same files give other samples or annotations


@dataclass
class ListedConfig:
    """Options of every data set of listed images."""


class ListedDataset(Dataset):
    """A data set whose splits are read from lists. A concrete one has these class attributes, and the methods below.

    `title`, `citation`, `licence` are those of `DatasetInfo`; `expected` is what a sentence says should lie below --root.
    """

    Config: ClassVar[type] = ListedConfig
    title: ClassVar[str]
    citation: ClassVar[str]
    licence: ClassVar[str]
    revision: ClassVar[str] = REVISION
    registered_name: ClassVar[str]

    images: Path | None  # the folder of images; None: there is none, only annotations can be read

    def __init__(self, config: ListedConfig, *, root: str | Path | None = None) -> None:
        super().__init__(config, root=root)
        self._read: dict[str, Metadata] = {}
        self._info: DatasetInfo | None = None

    @abstractmethod
    def read_lists(self, name: str) -> Metadata:
        """Everything about a split but its images, read anew."""

    @abstractmethod
    def list_files(self) -> Sequence[tuple[str, Path]]:
        """The files that decide samples and annotations, each with a name that does not depend on where the root lies."""

    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """Names in the order of labels."""

    @abstractmethod
    def images_expected(self) -> str:
        """Where images are looked for, e.g. "dataset/CUB", for complaints."""

    def has(self, split: str) -> bool:
        """Say whether the root has this split."""
        return True

    def count(self, split: str) -> int:
        """Images of a split; a data set with long lists may count without reading them in full."""
        return len(self.read_split(split)) if self.has(split) else 0

    @property
    def info(self) -> DatasetInfo:
        if self._info is None:
            annotated = [self.read_split(name) for name in ("val", "test") if self.has(name)]
            self._info = DatasetInfo(
                title=self.title,
                citation=self.citation,
                licence=self.licence,
                revision=self.revision,
                class_names=self.class_names(),
                resolution_HW=(RESOLUTION, RESOLUTION),
                counts={name: self.count(name) for name in self.splits},
                has_boxes=any(metadata.boxes_M4 is not None for metadata in annotated),
                has_masks=any(metadata.masks is not None for metadata in annotated),
            )
        return self._info

    def split(self, name: str) -> ListedSplit:
        if name not in self.splits:
            raise unknown(f"split of {self.registered_name}", name, self.splits)
        metadata = self.read_split(name)
        if metadata.labels.max() >= self.info.num_classes:
            raise WsolbenchError(
                f"'{metadata.source('labels')}' holds class {metadata.labels.max()}, but the other splits have "
                f"{self.info.num_classes} classes, 0 .. {self.info.num_classes - 1}"
            )
        return ListedSplit(f"{self.registered_name}/{name}", metadata, self.images, self.images_expected())

    def read_split(self, name: str) -> Metadata:
        """`read_lists`, once."""
        if name not in self._read:
            self._read[name] = self.read_lists(name)
        return self._read[name]

    def is_read(self, name: str) -> bool:
        """Say whether a split's lists were read already."""
        return name in self._read

    def fingerprint(self) -> str:
        """Hash over options and the files of lists, boxes included: ILSVRC's training list need not be parsed for it."""
        digest = hashlib.sha256(f"{self.revision}|{self.registered_name}|{self.config!r}".encode())
        for name, path in self.list_files():
            content = path.read_bytes().replace(b"\r\n", b"\n").strip(b"\n")
            digest.update(f"{name}:{len(content)}\n".encode() + content)
        return digest.hexdigest()


class ListedSplit(Split):
    """One role of a `ListedDataset`; images and masks are opened when asked for."""

    def __init__(self, name: str, metadata: Metadata, images: Path | None, expected: str) -> None:
        self.name, self.metadata, self.images, self.expected = name, metadata, images, expected
        self.ids, self.labels = metadata.ids, metadata.labels
        self._index = {id: index for index, id in enumerate(metadata.ids)}

    def sample(self, index: int, augment: torch.Generator | None) -> Sample:
        """The image, ImageNet-normalised: resized to 224x224; augmented: resized to 256x256, a crop of 224, a flip."""
        id = self.ids[index]
        image_CHW = training_pixels(self._open(index), augment) if augment is not None else pixels(self._open(index))
        return Sample(id, normalised(image_CHW), int(self.labels[index]))

    def picture(self, index: int) -> npt.NDArray[np.uint8]:
        """The image as its file has it, in stored orientation."""
        return np.array(self._open(index))

    def annotation(self, id: str) -> Annotation:
        """Boxes in original pixels; or the mask, in the frame of the mask files (see `_mask`)."""
        if id not in self._index:
            raise unknown(f"image of {self.name}", id, self.ids[:3])
        index = self._index[id]
        if self.metadata.masks is not None:
            mask_HW = self._mask(self.metadata.masks[index])
            return Annotation(id, (mask_HW.shape[0], mask_HW.shape[1]), mask_HW=mask_HW)
        return Annotation(id, self._size(index), self.metadata.boxes(index))

    def _size(self, index: int) -> tuple[int, int]:
        if self.metadata.sizes_HW is not None:
            height, width = self.metadata.sizes_HW[index].tolist()
            return height, width
        width, height = read_header(self.image_path(index)).size
        return height, width

    def _open(self, index: int) -> Image.Image:
        path = self.image_path(index)
        image = read_header(path)
        if self.metadata.sizes_HW is not None:
            height, width = self.metadata.sizes_HW[index].tolist()
            if image.size != (width, height):
                raise WsolbenchError(
                    f"image '{path}' is {image.size[0]}x{image.size[1]} (width x height), but "
                    f"'{self.metadata.source('sizes')}' says {width}x{height}: it is not the image that was annotated"
                )
        return as_rgb(image, path)

    def image_path(self, index: int) -> Path:
        """Where the image at `index` lies; `WsolbenchError` if there is no folder of images."""
        return self._path(self.metadata.file(index), "image")

    def _path(self, file: str, what: str) -> Path:
        if self.images is None:
            raise WsolbenchError(
                f"{what} '{file}' of {self.name} is needed, but there is no folder of images below --root; expected "
                f"{self.expected} there"
            )
        return safe_path(self.images, file)

    def _mask(self, files: MaskFiles) -> npt.NDArray[np.uint8]:
        """Union of the instances, 1; the ignore file outside of them, 255.

        The reference resizes each file to 224x224 by nearest neighbour and joins them there. Nearest neighbour picks
        pixels, so files of one size may be joined before; those of several sizes are joined in the frame of 224x224.
        """
        masks = [self._read_mask(id) for id in files.masks]
        ignore = [self._read_mask(files.ignore)] if files.ignore else []
        if len({mask.shape for mask in masks + ignore}) > 1:
            masks = [resize_mask(mask, (RESOLUTION, RESOLUTION)) for mask in masks]
            ignore = [resize_mask(mask, (RESOLUTION, RESOLUTION)) for mask in ignore]
        mask_HW = np.zeros(masks[0].shape, np.uint8)
        for region in ignore:
            mask_HW[region > 0] = 255
        for region in masks:  # last: foreground wins over ignored
            mask_HW[region > 0] = 1
        return mask_HW

    def _read_mask(self, id: str) -> npt.NDArray[np.uint8]:
        """Read as the reference reads it: grayscale through OpenCV, so that 0/1 and 0/255 files, palettes and RGB count alike."""
        path = self._path(id, "mask")
        mask_HW = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) if path.is_file() else None
        if mask_HW is None:
            state = "cannot be decoded" if path.is_file() else "does not exist"
            raise WsolbenchError(f"mask '{path}' {state}; '{self.metadata.source('localization')}' names it")
        return np.asarray(mask_HW, np.uint8)
