"""Data sets of the reference evaluator: its metadata folder per split or, where there is one, the archive's own layout.

Source: Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right", CVPR 2020,
https://arxiv.org/abs/2001.07437, and clovaai/wsolevaluation (commit 96f4b88): its splits (train: labels only, val: chooses,
test: reported), its files and its image geometry. Below `--root PATH` are looked for, first found first taken:

    metadata   PATH/metadata/NAME    PATH/NAME    PATH                       with train/, val/, test/ inside
    images     PATH/dataset/NAME     PATH/NAME    dataset/NAME beside the folder metadata/

and what the file of a data set adds for its archive. Where a root holds both, metadata is taken split by split, unless
`dataset.layout=native|metadata` says otherwise. Images are optional: without them annotations can be read, and maps made
elsewhere be scored.
"""
# C channels, H W image, n images of a split

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from wsolbench.data.metadata import IDS, Metadata
from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.options import IDLE
from wsolbench_datasets.listed.dataset import ListedConfig, ListedDataset
from wsolbench_datasets.listed.layout import Layout, MetadataLayout, Which


@dataclass
class ReferenceConfig(ListedConfig):
    proxy: bool = False  # train on the reduced list image_ids_proxy.txt, which only metadata has


@dataclass
class ArchiveConfig(ReferenceConfig):
    # whose lists are read: metadata where it has the split (auto), native, metadata; the same annotation is the same data
    layout: Which = field(default=Which.auto, metadata=IDLE)


class ReferenceDataset(ListedDataset):
    """What cub, ilsvrc and openimages share. `NAME` is the folder's, `native_files` what an archive is told by."""

    Config: ClassVar[type] = ReferenceConfig
    config: ReferenceConfig
    NAME: ClassVar[str]
    native_files: ClassVar[str] = ""

    def __init__(self, config: ReferenceConfig, *, root: str | Path | None = None) -> None:
        super().__init__(config, root=root)
        self.metadata = self._find_metadata()
        self.layouts = self._find_layouts()
        self.images = next((folder for folder in self.image_folders() if folder.is_dir()), None)

    @staticmethod
    @abstractmethod
    def class_name(id: str) -> str | None:
        """The name of an image's class where its id tells it."""

    def find_native(self, root: Path) -> Layout | None:
        """The archive's own lists below the root; None where there are none."""
        return None

    def layout_of(self, split: str) -> Layout:
        """Whose lists a split is read from; where none has it, those that can say what is missing."""
        layout = next((layout for layout in self.layouts if layout.has(split)), self.layouts[0])
        if self.config.proxy and split == "train" and layout.kind is Which.native:
            raise UsageError(f"dataset.proxy=true: {IDS.replace('.', '_proxy.')} comes with metadata/{self.NAME} only")
        return layout

    def read_lists(self, name: str) -> Metadata:
        lists = self.layout_of(name).read(name)
        return lists if lists.images is not None else self.with_images(name, lists)

    def with_images(self, name: str, lists: Metadata) -> Metadata:
        """The lists of a split with the folder that holds its images: the first that has the first of them."""
        folders = self.image_folders()
        return replace(lists, images=next((folder for folder in folders if (folder / lists.file(0)).is_file()), None))

    def list_files(self) -> Sequence[tuple[str, Path]]:
        files = [entry for split in self.splits if self.listed(split) for entry in self.layout_of(split).files(split)]
        return list(dict.fromkeys(files))

    def listed_names(self) -> Iterable[str]:
        for split in self.splits:
            if self.listed(split):
                layout = self.layout_of(split)
                if layout.kind is Which.native:
                    yield from layout.listed_names(split, self.read_split(split))

    def images_expected(self) -> str:
        return f"dataset/{self.NAME}"

    def named_classes(self, split: str) -> Iterator[tuple[int, str | None]]:
        """The classes of a split, and their names where an id tells them."""
        metadata = self.read_split(split)
        labels, first = np.unique(metadata.labels, return_index=True)
        yield from ((int(label), self.class_name(metadata.ids[at])) for label, at in zip(labels, first, strict=True))

    def class_names(self) -> tuple[str, ...]:
        """Names in the order of labels, the number where no id tells a name; the large split is asked last, if at all."""
        used = [self.layout_of(split) for split in self.splits if self.listed(split)]
        for layout in used:
            if (given := layout.class_names()) is not None:
                self._compare(given)
                return given
        names: dict[int, str | None] = {}
        for split in ("val", "test", "train"):
            if self.has(split) and (not names or None in names.values()):
                names |= {label: name for label, name in self.named_classes(split) if not names.get(label)}
        return tuple(names.get(label) or str(label) for label in range(max(names) + 1))

    def _compare(self, names: tuple[str, ...]) -> None:
        """Metadata beside an archive must mean the same classes."""
        for split in ("val", "test"):
            if not self.listed(split) or self.layout_of(split).kind is Which.native:
                continue
            for label, name in self.named_classes(split):
                if label >= len(names) or name not in (None, names[label]):
                    known = names[label] if label < len(names) else f"none: they are {len(names)}"
                    raise WsolbenchError(
                        f"'{self.read_split(split).source('labels')}' gives class {label} to images of '{name or label}', but "
                        f"in the lists of {self.native_files} that class is {known}"
                    )

    def listed(self, split: str) -> bool:
        """Say whether any lists below the root have the split, and are wanted for it."""
        return not (split == "val" and self.hold_out()) and any(layout.has(split) for layout in self.layouts)

    def has(self, split: str) -> bool:
        return self.listed("train" if split == "val" and self.hold_out() else split)

    def count(self, split: str) -> int:
        if self.has(split) and not self.is_read(split) and self.hold_out() is None:
            layout = self.layout_of(split)
            if isinstance(layout, MetadataLayout):
                return layout.count(split)
        return super().count(split)

    def expected_counts(self) -> dict[str, int]:
        counts = super().expected_counts()
        return {name: count for name, count in counts.items() if not (name == "train" and self.config.proxy)}

    def image_folders(self) -> list[Path]:
        """Where images may lie; they need not exist."""
        assert self.root is not None
        folders = [self.root / "dataset" / self.NAME, self.root / self.NAME]
        if self.metadata is not None and self.metadata.parent.name == "metadata":
            folders.append(self.metadata.parent.parent / "dataset" / self.NAME)
        return [folder for folder in folders if folder != self.metadata]

    def hint(self) -> str:
        """What else a sentence about a root without lists can say."""
        return ""

    def _find_metadata(self) -> Path | None:
        if self.root is None:
            raise UsageError(
                f"data set '{self.registered_name}' needs --root PATH, the folder that holds {self._wanted()}"
            )
        candidates = (self.root / "metadata" / self.NAME, self.root / self.NAME, self.root)
        for folder in candidates:
            if any((folder / split / IDS).is_file() for split in self.splits):
                return folder
        return None

    def _find_layouts(self) -> list[Layout]:
        """The lists that are there and wanted, those that win first."""
        assert self.root is not None
        wanted = self.config.layout if isinstance(self.config, ArchiveConfig) else Which.auto
        layouts: list[Layout] = []
        if self.metadata is not None and wanted is not Which.native:
            layouts.append(MetadataLayout(self.metadata, proxy=self.config.proxy))
        native = self.find_native(self.root) if wanted is not Which.metadata else None
        if native is not None:
            layouts.append(native)
        if not layouts:
            kind = "archive" if wanted is Which.native else "metadata"
            raise UsageError(
                f"no {kind} of data set '{self.registered_name}' below --root '{self.root}'; expected {self._wanted()} there"
                f"{self.hint()}"
            )
        return layouts

    def _wanted(self) -> str:
        layout = f"metadata/{self.NAME}/<train|val|test>/{IDS} (as in the reference evaluator's repository)"
        return f"{layout} or {self.native_files}" if self.native_files else layout
