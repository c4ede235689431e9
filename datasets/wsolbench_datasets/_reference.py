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

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from wsolbench.errors import UsageError
from wsolbench.metadata import IDS, Metadata, count_ids, read_metadata
from wsolbench_datasets._listed import ListedConfig, ListedDataset


@dataclass
class ReferenceConfig(ListedConfig):
    proxy: bool = False  # train on the reduced list image_ids_proxy.txt


class ReferenceDataset(ListedDataset):
    """What cub, ilsvrc and openimages share. `NAME` is the folder's."""

    Config: ClassVar[type] = ReferenceConfig
    config: ReferenceConfig
    NAME: ClassVar[str]

    def __init__(self, config: ReferenceConfig, *, root: str | Path | None = None) -> None:
        super().__init__(config, root=root)
        self.metadata = self._find_metadata()
        self.images = self._find_images()

    @staticmethod
    @abstractmethod
    def class_name(id: str) -> str | None:
        """The name of an image's class where its id tells it."""

    def read_lists(self, name: str) -> Metadata:
        return read_metadata(self.metadata / name, proxy=self.config.proxy and name == "train")

    def list_files(self) -> Sequence[tuple[str, Path]]:
        return [(f"{path.parent.name}/{path.name}", path) for path in sorted(self.metadata.glob("*/*.txt"))]

    def images_expected(self) -> str:
        return f"dataset/{self.NAME}"

    def named_classes(self, split: str) -> Iterator[tuple[int, str | None]]:
        """The classes of a split, and their names where an id tells them."""
        metadata = self.read_split(split)
        labels, first = np.unique(metadata.labels, return_index=True)
        yield from ((int(label), self.class_name(metadata.ids[at])) for label, at in zip(labels, first, strict=True))

    def class_names(self) -> tuple[str, ...]:
        """Names in the order of labels, the number where no id tells a name; the large split is asked last, if at all."""
        names: dict[int, str | None] = {}
        for split in ("val", "test", "train"):
            if self.has(split) and (not names or None in names.values()):
                names |= {label: name for label, name in self.named_classes(split) if not names.get(label)}
        return tuple(names.get(label) or str(label) for label in range(max(names) + 1))

    def has(self, split: str) -> bool:
        return (self.metadata / split / IDS).is_file()

    def count(self, split: str) -> int:
        return len(self.read_split(split)) if self.is_read(split) else count_ids(self.metadata / split)

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
