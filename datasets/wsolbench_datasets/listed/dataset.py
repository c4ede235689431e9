"""Data sets of image files that some list names: what they share, whatever the list looks like on disk.

A data set file says where its lists lie and reads them into `Metadata`; classes, splits, images, masks and the fingerprint
follow from there.
"""
# C channels, H W image, n images of a split

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar, cast, get_args

import cv2
import numpy as np
import numpy.typing as npt
import torch

from wsolbench.boxes.truth import resize_mask
from wsolbench.conventions import Geometry
from wsolbench.data import Dataset, DatasetInfo, Split
from wsolbench.data.ids import safe_path
from wsolbench.data.lists import clip_boxes
from wsolbench.data.metadata import Located, MaskFiles, Metadata
from wsolbench.errors import WsolbenchError, unknown
from wsolbench.options import IDLE, YOUNG, deciding_text
from wsolbench.types import Annotation, Sample
from wsolbench_datasets.listed.decode import read_header
from wsolbench_datasets.listed.holdout import HoldOut
from wsolbench_datasets.listed.images import ListedImages, path_of
from wsolbench_datasets.listed.pixels import RESOLUTION

REVISION = "1"  # moves when the same files give other samples or annotations


SHOWN: dict[Geometry, str] = {
    "resize": "val and test resized to 224x224",
    "centre-crop": "val and test the middle 224x224 of 256x256",
}
PREPROCESSING = (
    "; train resized to 256x256, of which a crop of 224x224 is taken and flipped or not; aspect ratio not kept, PIL's bilinear "
    "filter, stored orientation"
)


@dataclass
class ListedConfig:
    """Options of every data set of listed images."""

    geometry: str = field(default="resize", metadata=YOUNG)  # what val and test show: resize | centre-crop (SAT, BAS)
    cache: str | None = field(default=None, metadata=IDLE)  # a folder in which resized pixels are kept; docs/loading.md


@dataclass
class HoldOutConfig(ListedConfig):
    """Options of a data set without a val split of its own."""

    holdout: float = 5  # images per class that leave train and become val; below 1: a share of each class
    holdout_seed: int = 0  # which ones


class ListedDataset(Dataset):
    """A data set whose splits are read from lists. A concrete one has these class attributes, and the methods below.

    They are those of `DatasetInfo`; `complete` is how many images the splits of a complete copy have, before a hold-out.
    """

    Config: ClassVar[type] = ListedConfig
    config: ListedConfig
    title: ClassVar[str]
    citation: ClassVar[str]
    licence: ClassVar[str]
    revision: ClassVar[str] = REVISION
    url: ClassVar[str] = ""
    val_source: ClassVar[str] = ""
    imagenet_overlap: ClassVar[str] = ""
    complete: ClassVar[dict[str, int]] = {}
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

    def listed_names(self) -> Iterable[str]:
        """What takes part in deciding without standing in a file, such as the names in a folder that is itself the list."""
        return ()

    def hold_out(self) -> HoldOut | None:
        """What is held out of train to be val; None: val has lists of its own."""
        config = self.config
        return HoldOut(config.holdout, config.holdout_seed) if isinstance(config, HoldOutConfig) else None

    def expected_counts(self) -> dict[str, int]:
        """Images per split of a complete copy, as far as they are known."""
        held, known = self.hold_out(), dict(self.complete)
        if held is None or not known:
            return known
        del known["train"]  # a share of each class is rounded class by class
        if held.amount < 1:
            return {name: count for name, count in known.items() if name != "val"}
        val = held.of(0) * len(self.class_names())
        return {"train": self.complete["train"] - val, "val": val} | {"test": known["test"]}

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
                has_boxes=any(metadata.has_boxes for metadata in annotated),
                has_masks=any(metadata.masks is not None for metadata in annotated),
                geometry=self.geometry,
                expected_counts=self.expected_counts(),
                preprocessing=SHOWN[self.geometry] + PREPROCESSING,
                url=self.url,
                val_source=str(self.hold_out() or self.val_source),
                imagenet_overlap=self.imagenet_overlap,
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
        images = metadata.images or self.images
        return ListedSplit(name, metadata, images, self.images_expected(), self.geometry, cache)

    def read_split(self, name: str) -> Metadata:
        """`read_lists`, once; what is held out of train is val."""
        if name not in self._read:
            held = self.hold_out()
            if held is not None and name in ("train", "val"):
                train = self.read_lists("train")
                kept, drawn = held.draw(train, self.revision)
                self._read |= {"train": train.subset(kept), "val": train.subset(drawn)}
            else:
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
        digest.update("\n".join(self.listed_names()).encode())
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
        self._packed: ListedImages | None = None

    @cached_property
    def _index(self) -> dict[str, int]:
        return {id: index for index, id in enumerate(self.ids)}

    def for_loading(self) -> ListedImages:
        """Files, labels and sizes, packed: 1.28 million ids are not copied into every loading process."""
        if self._packed is None:
            self._packed = ListedImages(self.name, self.metadata, self.images, self.expected, self.geometry, self.cache)
        return self._packed

    def sample(self, index: int, augment: torch.Generator | None) -> Sample:
        """The image, ImageNet-normalised: resized to 224x224, or the middle of 256x256; augmented: a crop of 256x256, a flip."""
        batch = self.for_loading().batch([index], None if augment is None else [augment])
        return Sample(self.ids[index], batch.images_BCHW[0], int(self.labels[index]))

    def picture(self, index: int) -> npt.NDArray[np.uint8]:
        """The image as its file has it, in stored orientation."""
        return self.for_loading().picture(index)

    def annotation(self, id: str) -> Annotation:
        """Boxes in original pixels, and the mask; where there is none but the mask, in the frame of its files (see `_mask`)."""
        if id not in self._index:
            raise unknown(f"image of {self.name}", id, self.ids[:3])
        index = self._index[id]
        lists = self.metadata
        located = lists.locate(index)
        boxes_N4 = lists.boxes(index) if located is None else located.boxes_N4
        mask_HW = None if lists.masks is None else self._mask(lists.masks[index])
        if boxes_N4 is None and mask_HW is not None:
            return Annotation(id, (mask_HW.shape[0], mask_HW.shape[1]), mask_HW=mask_HW)
        size_HW = self._size(index, located)
        if boxes_N4 is not None and lists.sizes_HW is None:  # lists that tell sizes were clipped by them
            path = lists.source("localization") if lists.located is None else lists.located.paths[index]
            boxes_N4 = clip_boxes(boxes_N4, size_HW, f"'{path}': image '{id}'")
        if mask_HW is not None and mask_HW.shape != size_HW:
            raise WsolbenchError(
                f"the mask of image '{id}' is {mask_HW.shape[1]}x{mask_HW.shape[0]} (width x height), but the image is "
                f"{size_HW[1]}x{size_HW[0]}"
            )
        return Annotation(id, size_HW, boxes_N4, mask_HW)

    def _size(self, index: int, located: Located | None) -> tuple[int, int]:
        """What the lists say, else the image's own; without the image, what its annotation file says."""
        lists = self.metadata
        if lists.sizes_HW is not None:
            height, width = lists.sizes_HW[index].tolist()
            return height, width
        told = None if located is None else located.size_HW
        if told is not None and (self.images is None or not self.image_path(index).is_file()):
            return told
        path = self.image_path(index)
        with read_header(path) as image:
            width, height = image.size
        if told is not None and told != (height, width) and lists.located is not None and lists.located.sizes_bind:
            raise WsolbenchError(
                f"image '{path}' is {width}x{height} (width x height), but '{lists.located.paths[index]}' says "
                f"{told[1]}x{told[0]}: it is not the image that was annotated"
            )
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
            mask_HW[region > self.metadata.mask_above] = 255
        for region in masks:  # last: foreground wins over ignored
            mask_HW[region > self.metadata.mask_above] = 1
        return mask_HW

    def _read_mask(self, id: str) -> npt.NDArray[np.uint8]:
        """Read as the reference reads it: grayscale through OpenCV, so that 0/1 and 0/255 files, palettes and RGB count alike."""
        folder = self.metadata.masks_in
        path = self._path(id, "mask") if folder is None else safe_path(folder, id)
        mask_HW = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) if path.is_file() else None
        if mask_HW is None:
            state = "cannot be decoded" if path.is_file() else "does not exist"
            raise WsolbenchError(f"mask '{path}' {state}; '{self.metadata.source('localization')}' names it")
        return np.asarray(mask_HW, np.uint8)
