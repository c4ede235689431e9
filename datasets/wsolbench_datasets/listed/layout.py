"""How the lists of a data set may lie on a disk: as its own archive has them, or as the reference evaluator's metadata."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import ClassVar

from wsolbench.data.metadata import IDS, Metadata, count_ids, read_metadata

SPLITS = ("train", "val", "test")


class Which(Enum):
    """Whose lists are read where a root holds several."""

    auto = "auto"  # metadata, split by split; the archive's own lists for splits that metadata lacks
    metadata = "metadata"
    native = "native"


class Layout(ABC):
    """Lists of one kind below a root; which splits they have is found out when it is made."""

    kind: ClassVar[Which]

    @abstractmethod
    def has(self, split: str) -> bool:
        """Say whether these lists have the split."""

    @abstractmethod
    def read(self, split: str) -> Metadata:
        """The lists of a split; `WsolbenchError` says what is missing or wrong."""

    @abstractmethod
    def files(self, split: str) -> Sequence[tuple[str, Path]]:
        """The files that decide samples and annotations of a split, each with a name that does not depend on the root."""

    def listed_names(self, split: str, lists: Metadata) -> Iterable[str]:
        """What of a split's lists decides without standing in a file: the names in a folder that is itself the list."""
        return ()

    def class_names(self) -> tuple[str, ...] | None:
        """Names in the order of labels; None where the lists hold numbers only."""
        return None


class MetadataLayout(Layout):
    """The reference evaluator's metadata folder of a data set."""

    kind = Which.metadata

    def __init__(self, folder: Path, *, proxy: bool) -> None:
        self.folder, self.proxy = folder, proxy

    def has(self, split: str) -> bool:
        return (self.folder / split / IDS).is_file()

    def read(self, split: str) -> Metadata:
        return read_metadata(self.folder / split, proxy=self.proxy and split == "train")

    def files(self, split: str) -> Sequence[tuple[str, Path]]:
        return [(f"{split}/{path.name}", path) for path in sorted((self.folder / split).glob("*.txt"))]

    def count(self, split: str) -> int:
        """Images of a split, without reading more than their ids."""
        return count_ids(self.folder / split)


def first_folder(candidates: Iterable[Path], holding: Sequence[str]) -> Path | None:
    """The first of the candidates that holds all of these files or folders."""
    return next((folder for folder in candidates if all((folder / name).exists() for name in holding)), None)
