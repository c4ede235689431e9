"""Data sets in the layout of the reference evaluator: a metadata folder per split and a folder of images.

Source: Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right", CVPR 2020,
https://arxiv.org/abs/2001.07437, and clovaai/wsolevaluation (commit 96f4b88): its splits (train: labels only, val: chooses,
test: reported), its files and its image geometry. Below `--root PATH` are looked for, first found first taken:

    metadata   PATH/metadata/NAME    PATH/NAME    PATH                       with train/, val/, test/ inside
    images     PATH/dataset/NAME     PATH/NAME    dataset/NAME beside the folder metadata/

Images are optional: without them annotations can be read, and maps made elsewhere be scored.
"""
# C channels, H W image, n images of a split

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator
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
from wsolbench.errors import UsageError, WsolbenchError, unknown
from wsolbench.ids import safe_path
from wsolbench.metadata import IDS, LABELS, LOCALIZATION, SIZES, MaskFiles, Metadata, count_ids, read_metadata
from wsolbench.types import Annotation, Sample

REVISION = "1"  # moves when the same files give other samples or annotations
RESOLUTION = 224  # side of the frame in which maps and ground truth are compared
RESIZED = 256  # side to which a training image is resized before a crop of RESOLUTION is drawn
MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


@dataclass
class ReferenceConfig:
    proxy: bool = False  # train on the reduced list image_ids_proxy.txt


class ReferenceDataset(Dataset):
    """What cub, ilsvrc and openimages share. `NAME` is the folder's, `title` to `licence` are those of `DatasetInfo`."""

    Config: ClassVar[type] = ReferenceConfig
    config: ReferenceConfig
    NAME: ClassVar[str]
    title: ClassVar[str]
    citation: ClassVar[str]
    licence: ClassVar[str]
    registered_name: ClassVar[str]

    def __init__(self, config: ReferenceConfig, *, root: str | Path | None = None) -> None:
        super().__init__(config, root=root)
        self._read: dict[str, Metadata] = {}
        self._info: DatasetInfo | None = None
        self.metadata = self._find_metadata()
        self.images = self._find_images()

    @staticmethod
    @abstractmethod
    def class_name(id: str) -> str | None:
        """The name of an image's class where its id tells it."""

    @property
    def info(self) -> DatasetInfo:
        if self._info is None:
            annotated = [self.read_split(name) for name in ("val", "test") if self._has(name)]
            self._info = DatasetInfo(
                title=self.title,
                citation=self.citation,
                licence=self.licence,
                revision=REVISION,
                class_names=self._class_names(),
                resolution_HW=(RESOLUTION, RESOLUTION),
                counts={name: self._count(name) for name in self.splits},
                has_boxes=any(metadata.boxes_M4 is not None for metadata in annotated),
                has_masks=any(metadata.masks is not None for metadata in annotated),
            )
        return self._info

    def split(self, name: str) -> ReferenceSplit:
        if name not in self.splits:
            raise unknown(f"split of {self.registered_name}", name, self.splits)
        metadata = self.read_split(name)
        if metadata.labels.max() >= self.info.num_classes:
            raise WsolbenchError(
                f"'{metadata.folder / LABELS}' holds class {metadata.labels.max()}, but the other splits have "
                f"{self.info.num_classes} classes, 0 .. {self.info.num_classes - 1}"
            )
        return ReferenceSplit(f"{self.registered_name}/{name}", self.NAME, metadata, self.images)

    def read_split(self, name: str) -> Metadata:
        """Everything but the images. The seam for other layouts: whatever they look like on disk, they end up as this."""
        if name not in self._read:
            self._read[name] = read_metadata(self.metadata / name, proxy=self.config.proxy and name == "train")
        return self._read[name]

    def fingerprint(self) -> str:
        """Hash over options and metadata files, boxes included: ILSVRC's training list need not be parsed for it."""
        digest = hashlib.sha256(f"{REVISION}|{self.registered_name}|{self.config!r}".encode())
        for path in sorted(self.metadata.glob("*/*.txt")):
            content = path.read_bytes().replace(b"\r\n", b"\n").strip(b"\n")
            digest.update(f"{path.parent.name}/{path.name}:{len(content)}\n".encode() + content)
        return digest.hexdigest()

    def named_classes(self, split: str) -> Iterator[tuple[int, str | None]]:
        """The classes of a split, and their names where an id tells them."""
        metadata = self.read_split(split)
        labels, first = np.unique(metadata.labels, return_index=True)
        yield from ((int(label), self.class_name(metadata.ids[at])) for label, at in zip(labels, first, strict=True))

    def _class_names(self) -> tuple[str, ...]:
        """Names in the order of labels, the number where no id tells a name; the large split is asked last, if at all."""
        names: dict[int, str | None] = {}
        for split in ("val", "test", "train"):
            if self._has(split) and (not names or None in names.values()):
                names |= {label: name for label, name in self.named_classes(split) if not names.get(label)}
        return tuple(names.get(label) or str(label) for label in range(max(names) + 1))

    def _has(self, split: str) -> bool:
        return (self.metadata / split / IDS).is_file()

    def _count(self, split: str) -> int:
        return len(self._read[split]) if split in self._read else count_ids(self.metadata / split)

    def _find_metadata(self) -> Path:
        layout = f"metadata/{self.NAME}/<train|val|test>/{IDS}"
        if self.root is None:
            raise UsageError(f"data set '{self.registered_name}' needs --root PATH, the folder that holds {layout}")
        candidates = (self.root / "metadata" / self.NAME, self.root / self.NAME, self.root)
        for folder in candidates:
            if any((folder / split / IDS).is_file() for split in self.splits):
                return folder
        raise UsageError(
            f"no metadata of data set '{self.registered_name}' below --root '{self.root}'; expected {layout} there "
            "(as in the reference evaluator's repository)"
        )

    def _find_images(self) -> Path | None:
        assert self.root is not None
        candidates = [self.root / "dataset" / self.NAME, self.root / self.NAME]
        if self.metadata.parent.name == "metadata":
            candidates.append(self.metadata.parent.parent / "dataset" / self.NAME)
        return next((folder for folder in candidates if folder.is_dir() and folder != self.metadata), None)


class ReferenceSplit(Split):
    """One role; images and masks are opened when asked for."""

    def __init__(self, name: str, folder: str, metadata: Metadata, images: Path | None) -> None:
        self.name, self.folder, self.metadata, self.images = name, folder, metadata, images
        self.ids, self.labels = metadata.ids, metadata.labels
        self._index = {id: index for index, id in enumerate(metadata.ids)}

    def sample(self, index: int, augment: torch.Generator | None) -> Sample:
        """The image, ImageNet-normalised: resized to 224x224; augmented: resized to 256x256, a crop of 224, a flip."""
        id = self.ids[index]
        image = self._open(id, index)
        side = RESOLUTION if augment is None else RESIZED
        pixels = np.array(image.resize((side, side), Image.Resampling.BILINEAR))
        image_CHW = torch.from_numpy(pixels).permute(2, 0, 1)
        if augment is not None:
            y, x = torch.randint(0, RESIZED - RESOLUTION + 1, (2,), generator=augment).tolist()
            image_CHW = image_CHW[:, y : y + RESOLUTION, x : x + RESOLUTION]
            if torch.rand((), generator=augment) < 0.5:
                image_CHW = image_CHW.flip(-1)
        return Sample(id, ((image_CHW.float() / 255 - MEAN) / STD).contiguous(), int(self.labels[index]))

    def annotation(self, id: str) -> Annotation:
        """Boxes in original pixels; or the mask, in the frame of the mask files (see `_mask`)."""
        if id not in self._index:
            raise unknown(f"image of {self.name}", id, self.ids[:3])
        index = self._index[id]
        if self.metadata.masks is not None:
            mask_HW = self._mask(self.metadata.masks[index])
            return Annotation(id, (mask_HW.shape[0], mask_HW.shape[1]), mask_HW=mask_HW)
        return Annotation(id, self._size(id, index), self.metadata.boxes(index))

    def _size(self, id: str, index: int) -> tuple[int, int]:
        if self.metadata.sizes_HW is not None:
            height, width = self.metadata.sizes_HW[index].tolist()
            return height, width
        width, height = self._header(id).size
        return height, width

    def _open(self, id: str, index: int) -> Image.Image:
        """The image as RGB in its stored orientation: EXIF rotation is not applied, as boxes do not know of it."""
        path, image = self._file(id, "image"), self._header(id)
        if self.metadata.sizes_HW is not None:
            height, width = self.metadata.sizes_HW[index].tolist()
            if image.size != (width, height):
                raise WsolbenchError(
                    f"image '{path}' is {image.size[0]}x{image.size[1]} (width x height), but "
                    f"'{self.metadata.folder / SIZES}' says {width}x{height}: it is not the image that was annotated"
                )
        try:
            return image.convert("RGB")
        except OSError as error:
            raise WsolbenchError(f"image '{path}' cannot be decoded: {error}") from error

    def _header(self, id: str) -> Image.Image:
        path = self._file(id, "image")
        try:
            return Image.open(path)
        except OSError as error:
            raise WsolbenchError(
                f"image '{path}' cannot be read: {error.strerror or 'no known image format'}"
            ) from error

    def _file(self, id: str, what: str) -> Path:
        if self.images is None:
            raise WsolbenchError(
                f"{what} '{id}' of {self.name} is needed, but there is no folder of images below --root; expected "
                f"dataset/{self.folder} there"
            )
        return safe_path(self.images, id)

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
        path = self._file(id, "mask")
        mask_HW = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) if path.is_file() else None
        if mask_HW is None:
            state = "cannot be decoded" if path.is_file() else "does not exist"
            raise WsolbenchError(f"mask '{path}' {state}; '{self.metadata.folder / LOCALIZATION}' names it")
        return np.asarray(mask_HW, np.uint8)
