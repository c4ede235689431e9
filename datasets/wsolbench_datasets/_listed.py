"""Data sets of image files that some list names: what they share, whatever the list looks like on disk.

A data set file says where its lists lie and reads them into `Metadata`; classes, splits, images, masks and the fingerprint
follow from there.
"""
# C channels, H W image, n images of a split

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, cast, get_args

import cv2
import numpy as np
import numpy.typing as npt
import torch

from wsolbench.boxes import resize_mask
from wsolbench.config import IDLE, YOUNG, deciding_text
from wsolbench.conventions import Geometry
from wsolbench.data import Dataset, DatasetInfo, Split
from wsolbench.errors import WsolbenchError, unknown
from wsolbench.metadata import MaskFiles, Metadata
from wsolbench.types import Annotation, Sample
from wsolbench_datasets._decode import read_header
from wsolbench_datasets._images import ListedImages, path_of
from wsolbench_datasets._pixels import RESOLUTION

REVISION = "1"  # moves when the same files give other samples or annotations


@dataclass
class ListedConfig:
    """Options of every data set of listed images."""

    geometry: str = field(default="resize", metadata=YOUNG)  # what val and test show: resize | centre-crop (SAT, BAS)
    cache: str | None = field(default=None, metadata=IDLE)  # a folder in which resized pixels are kept; docs/loading.md


class ListedDataset(Dataset):
    """A data set whose splits are read from lists. A concrete one has these class attributes, and the methods below.

    `title`, `citation`, `licence` are those of `DatasetInfo`; `expected` is what a sentence says should lie below --root.
    """

    Config: ClassVar[type] = ListedConfig
    config: ListedConfig
    title: ClassVar[str]
    citation: ClassVar[str]
    licence: ClassVar[str]
    revision: ClassVar[str] = REVISION
    registered_name: ClassVar[str]

    images: Path | None  # the folder of images; None: there is none, only annotations can be read

    def __init__(self, config: ListedConfig, *, root: str | Path | None = None) -> None:
        super().__init__(config, root=root)
        if config.geometry not in get_args(Geometry):
            raise unknown("geometry", config.geometry, get_args(Geometry), f" of data set '{self.registered_name}'")
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
                geometry=self.geometry,
            )
        return self._info

    @property
    def geometry(self) -> Geometry:
        return cast(Geometry, self.config.geometry)

    def split(self, name: str) -> ListedSplit:
        if name not in self.splits:
            raise unknown(f"split of {self.registered_name}", name, self.splits)
        metadata = self.read_split(name)
        if metadata.labels.max() >= self.info.num_classes:
            raise WsolbenchError(
                f"'{metadata.source('labels')}' holds class {metadata.labels.max()}, but the other splits have "
                f"{self.info.num_classes} classes, 0 .. {self.info.num_classes - 1}"
            )
        return self.open_split(f"{self.registered_name}/{name}", metadata)

    def open_split(self, name: str, metadata: Metadata) -> ListedSplit:
        """The split over the lists of `metadata`; a data set whose images are annotated otherwise hands out its own."""
        cache = None if self.config.cache is None else Path(self.config.cache).expanduser()
        return ListedSplit(name, metadata, self.images, self.images_expected(), self.geometry, cache)

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
        digest = hashlib.sha256(f"{self.revision}|{self.registered_name}|{deciding_text(self.config)}".encode())
        for name, path in self.list_files():
            content = path.read_bytes().replace(b"\r\n", b"\n").strip(b"\n")
            digest.update(f"{name}:{len(content)}\n".encode() + content)
        return digest.hexdigest()


class ListedSplit(Split):
    """One role of a `ListedDataset`; images and masks are opened when asked for."""

    def __init__(
        self,
        name: str,
        metadata: Metadata,
        images: Path | None,
        expected: str,
        geometry: Geometry = "resize",
        cache: Path | None = None,
    ) -> None:
        self.name, self.metadata, self.images, self.expected = name, metadata, images, expected
        self.geometry, self.cache = geometry, cache
        self.ids, self.labels = metadata.ids, metadata.labels
        self.annotated = metadata.has_boxes or metadata.masks is not None
        self._index = {id: index for index, id in enumerate(metadata.ids)}
        self._packed: ListedImages | None = None

    def for_loading(self) -> ListedImages:
        """Files, labels and sizes, packed: 1.28 million ids are not copied into every loading process."""
        if self._packed is None:
            self._packed = ListedImages(self.name, self.metadata, self.images, self.expected, self.geometry, self.cache)
        return self._packed

    def sample(self, index: int, augment: torch.Generator | None) -> Sample:
        """The image, ImageNet-normalised: resized to 224x224, or the middle of 256x256; augmented: a crop of 256x256, a flip."""
        batch = self.for_loading().batch([index], None if augment is None else [augment])
        return Sample(self.ids[index], batch.images_BCHW[0], int(self.labels[index]))

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

    def image_path(self, index: int) -> Path:
        """Where the image at `index` lies; `WsolbenchError` if there is no folder of images."""
        return self._path(self.metadata.file(index), "image")

    def _path(self, file: str, what: str) -> Path:
        return path_of(file, what, self.images, self.name, self.expected)

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
