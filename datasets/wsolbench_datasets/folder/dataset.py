"""Your own images: class folders, with boxes from a CSV, COCO or VOC file or with masks. See docs/add-a-dataset.md.

Below `--root PATH`: train/<class>/, val/<class>/, test/<class>/, with folders inside a class as one likes; or one tree,
images/<class>/ or <class>/, that `splits.csv` (`id,split`) or the seeded shares `val_share` and `test_share` divide. Ground
truth of val and test is found as boxes.csv, annotations.json or annotations/*.json (COCO), XML files beside the images or in
annotations/ (VOC), and masks/; or given by options. Training images need none, and none is read for them.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, final

import numpy as np

from wsolbench.data.metadata import MaskFiles, Metadata
from wsolbench.errors import UsageError, WsolbenchError, unknown
from wsolbench.registry import register_dataset
from wsolbench.types import Annotation
from wsolbench_datasets.folder.box_records import BoxFile, check_categories, with_boxes
from wsolbench_datasets.folder.find_boxes import find_box_file
from wsolbench_datasets.folder.masks import find_masks, read_mask
from wsolbench_datasets.folder.names import ImageNames
from wsolbench_datasets.folder.roles import hold_out, listed_roles
from wsolbench_datasets.folder.tree import RESERVED, SPLITS, read_tree
from wsolbench_datasets.listed.dataset import ListedConfig, ListedDataset, ListedSplit
from wsolbench_datasets.listed.decode import read_header


@dataclass
class FolderConfig(ListedConfig):
    """Relative paths are below the root; what is not given is looked for there."""

    boxes: Path | None = None  # a CSV file, a COCO file, or a folder of VOC or COCO files
    masks: Path | None = None  # a folder of PNG files named as the images
    mask_ignore: int | None = None  # value of mask pixels that are neither object nor background, e.g. 255
    split_list: Path | None = None  # CSV file id,split for a tree without split folders
    val_share: float = 0.0  # of each class's training images, held out where there is no val
    test_share: float = 0.0  # likewise
    holdout_seed: int = 0  # of the hold-out


@register_dataset("folder")
@final
class Folder(ListedDataset):
    """Your own images in class folders, with boxes (CSV, COCO, VOC) or masks; see 'wsolbench data init DIR'."""

    Config: ClassVar[type] = FolderConfig
    config: FolderConfig
    title = "own images"
    citation = "the owner's; name it where numbers are published"
    licence = "the owner's; nothing is redistributed here"

    def __init__(self, config: FolderConfig, *, root: str | Path | None = None) -> None:
        super().__init__(config, root=root)
        if self.root is None:
            raise UsageError("data set 'folder' needs --root PATH, the folder that holds train/<class>/ and so on")
        self.images = self.home = self.root
        self.masks = self._given(config.masks, "masks") or self.home / "masks"
        self._tree = read_tree(self.home, [self.masks, *([self.home / config.boxes] if config.boxes else [])])
        self._ids = [image.id for image in self._tree]
        self._class_of = [image.class_name for image in self._tree]
        self._split_list = self._given(config.split_list, "split_list")
        if self._split_list is None and (self.home / "splits.csv").is_file():
            self._split_list = self.home / "splits.csv"
        roles = self._roles()
        self._members = {split: [index for index, role in enumerate(roles) if role == split] for split in SPLITS}
        self._check_classes()
        self._boxes: BoxFile | None = None
        self._masks: dict[int, str] | None = None
        self._mask_bytes: dict[int, int] = {}

    # --- what a ListedDataset says ---------------------------------------------------------------------------------

    def class_names(self) -> tuple[str, ...]:
        """The class folders of all splits, sorted."""
        used = {self._class_of[index] for members in self._members.values() for index in members}
        return tuple(sorted(used))

    def has(self, split: str) -> bool:
        return bool(self._members[split])

    def count(self, split: str) -> int:
        return len(self._members[split])

    def images_expected(self) -> str:
        return "train/<class>/, val/<class>/, test/<class>/"

    def list_files(self) -> Sequence[tuple[str, Path]]:
        """The files that tell boxes and splits."""
        files = {box.place.path for box in self._box_file().boxes}
        files |= {self._split_list} if self._split_list else set()
        return sorted((path.name, path) for path in files)

    def read_lists(self, name: str) -> Metadata:
        members = self._members[name]
        if not members:
            raise UsageError(self._empty(name))
        labels = {class_name: label for label, class_name in enumerate(self.class_names())}
        metadata = Metadata(
            self.home / name,
            [self._ids[index] for index in members],
            np.array([labels[self._class_of[index]] for index in members], np.int64),
            files=[self._tree[index].file for index in members],
        )
        if name == "train":  # boxes are never looked at there, so neither are the sizes that would check them
            return metadata
        metadata = with_boxes(metadata, members, self._box_file(), self._size)
        metadata = self._with_masks(metadata, members)
        self._check_kinds(name, metadata)
        return metadata

    def open_split(self, name: str, metadata: Metadata) -> ListedSplit:
        split = FolderSplit(name, metadata, self.images, self.images_expected())
        split.masks, split.ignored = self.masks, self.config.mask_ignore
        return split

    def fingerprint(self) -> str:
        """Hash over what decides samples and annotations: ids, labels, bytes per file, boxes, masks; not where they lie.

        The content of images and masks is not read for it, their size in bytes is.
        """
        digest = hashlib.sha256(f"{self.revision}|{self.registered_name}|{self.class_names()!r}".encode())
        for name in filter(self.has, SPLITS):
            metadata = self.read_split(name)
            for row, index in enumerate(self._members[name]):
                mask = self._mask_bytes.get(index) if metadata.masks is not None else None
                boxes = [] if metadata.boxes_M4 is None else np.asarray(metadata.boxes(row)).tolist()
                fields = (name, metadata.ids[row], int(metadata.labels[row]), self._tree[index].bytes, boxes, mask)
                digest.update(repr(fields).encode())
        digest.update(f"{self.config.mask_ignore}".encode())
        return digest.hexdigest()

    # --- from files to splits --------------------------------------------------------------------------------------

    def _given(self, path: Path | None, option: str) -> Path | None:
        if path is not None and not ((self.home / path).is_file() or (self.home / path).is_dir()):
            raise UsageError(
                f"dataset.{option}={path}: '{self.home / path}' does not exist; relative paths are below --root"
            )
        return None if path is None else self.home / path

    def _roles(self) -> list[str]:
        by_folder = [image.split for image in self._tree]
        if self._split_list is not None:
            if any(by_folder):
                raise UsageError(
                    f"'{self._split_list}' and the folders {', '.join(sorted(set(by_folder)))} both tell splits: keep one of them"
                )
            by_folder = listed_roles(self._split_list, ImageNames(self._ids))
        roles = [role or "train" for role in by_folder]
        shares = {"val": self.config.val_share, "test": self.config.test_share}
        return hold_out(self._tree, roles, shares, self.config.holdout_seed)

    def _check_classes(self) -> None:
        """Refuse a class that cannot be learnt: it has images to be scored on and none to train on."""
        names = {split: {self._class_of[index] for index in self._members[split]} for split in SPLITS}
        for split in ("val", "test"):
            for name in sorted(names[split] - names["train"]) if names["train"] else ():
                near = difflib.get_close_matches(name, names["train"], n=1)
                hint = (
                    f", did you mean '{near[0]}'?" if near else f"; train has {', '.join(sorted(names['train'])[:10])}"
                )
                raise WsolbenchError(f"class folder '{name}' of {split} has no image in train{hint}")

    def _empty(self, name: str) -> str:
        """Why a split holds no image, and what to do about it."""
        if name == "train":
            return f"data set 'folder' has no training images below '{self.home}': put some in train/<class>/"
        others = sorted(path.name for path in self.home.iterdir() if path.is_dir() and path.name[:1] != ".")
        others = [other for other in others if other not in (*SPLITS, *RESERVED)]
        return (
            f"data set 'folder' has no {name} images below '{self.home}': put some in {name}/<class>/, or take a share of "
            f"the training images, e.g. dataset.{name}_share=0.2"
            + (
                f"; not read there: {', '.join(others[:5])}"
                if others and any(image.split for image in self._tree)
                else ""
            )
        )

    def _box_file(self) -> BoxFile:
        if self._boxes is None:
            given = self._given(self.config.boxes, "boxes")
            scored = {*self._members["val"], *self._members["test"]}
            self._boxes = find_box_file(self.home, given, self._tree, scored)
            check_categories(self._boxes.boxes, self._class_of)
        return self._boxes

    def _size(self, index: int) -> tuple[int, int] | None:
        """(width, height) from the image's header; what cannot be read is refused when it is asked for, or skipped."""
        try:
            with read_header(self.home / self._tree[index].file) as image:
                return image.size
        except WsolbenchError:
            return None

    def _check_kinds(self, name: str, metadata: Metadata) -> None:
        """Refuse val and test that are annotated in different ways: no threshold would mean the same on both."""
        other = "val" if name == "test" else "test"
        if not self.is_read(other):
            return
        kinds = [_kinds(each) for each in (metadata, self.read_split(other))]
        if kinds[0] != kinds[1] and all(kinds):
            raise WsolbenchError(f"{name} has {kinds[0]}, but {other} has {kinds[1]}: annotate both in the same way")

    def _with_masks(self, metadata: Metadata, members: Sequence[int]) -> Metadata:
        if not self.masks.is_dir():
            return metadata
        if self._masks is None:
            found = find_masks(self.masks, ImageNames.without_suffix(self._ids))
            self._masks = {index: mask.file for index, mask in found.items()}
            self._mask_bytes = {index: mask.bytes for index, mask in found.items()}
        without = [index for index in members if index not in self._masks]
        if len(without) == len(members):
            return metadata
        if without:
            raise WsolbenchError(
                f"'{self.masks}' has no mask for {len(without)} of the {len(members)} images of '{metadata.folder.name}', "
                f"first {self._ids[without[0]]!r}; expected one for each, or none for the whole split"
            )
        return replace(metadata, masks=[MaskFiles((self._masks[index],), "") for index in members])


def _kinds(metadata: Metadata) -> str:
    kinds = {"boxes": metadata.boxes_M4, "masks": metadata.masks}
    return " and ".join(kind for kind, held in kinds.items() if held is not None)


class FolderSplit(ListedSplit):
    """One role of `folder`; an image may have boxes and a mask, both in its own pixels."""

    masks: Path
    ignored: int | None = None

    def annotation(self, id: str) -> Annotation:
        """Boxes and mask of the image, whichever the split has; the mask is as large as the image."""
        if id not in self._index:
            raise unknown(f"image of {self.name}", id, self.ids[:3])
        index = self._index[id]
        with read_header(self.image_path(index)) as image:
            size_HW, mask_HW = (image.height, image.width), None
        if self.metadata.masks is not None:
            mask_HW = read_mask(self.masks / self.metadata.masks[index].masks[0], size_HW, self.ignored)
        return Annotation(id, size_HW, self.metadata.boxes(index), mask_HW)
