"""Data sets read from one archive's own layout, without a val split: val is held out of train."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from wsolbench.data.metadata import Metadata
from wsolbench.errors import UsageError
from wsolbench_datasets.listed.dataset import HoldOutConfig, ListedDataset
from wsolbench_datasets.listed.layout import first_folder


class ArchiveDataset(ListedDataset):
    """What stanford_dogs, stanford_cars and fgvc_aircraft share.

    `folders` are names below --root that the archive may lie in, the root itself being tried first; `layouts` are the files
    and folders it is told by, one tuple for each form it is given out in.
    """

    Config: ClassVar[type] = HoldOutConfig
    config: HoldOutConfig
    folders: ClassVar[tuple[str, ...]]
    layouts: ClassVar[tuple[tuple[str, ...], ...]]

    def __init__(self, config: HoldOutConfig, *, root: str | Path | None = None) -> None:
        super().__init__(config, root=root)
        self.hold_out()  # an amount that makes no sense is refused before any file is read
        wanted = " or ".join(" with ".join(layout) for layout in self.layouts)
        if self.root is None:
            raise UsageError(f"data set '{self.registered_name}' needs --root PATH, the folder that holds {wanted}")
        candidates = [self.root, *(self.root / name for name in self.folders)]
        found = [
            (folder, layout) for layout in self.layouts if (folder := first_folder(candidates, layout)) is not None
        ]
        if not found:
            raise UsageError(
                f"no archive of data set '{self.registered_name}' below --root '{self.root}'; expected {wanted} there"
            )
        self.folder, self.layout = found[0]
        self.images: Path | None = self.folder

    @abstractmethod
    def read_lists(self, name: str) -> Metadata:
        """Train as the archive has it, or test."""

    @abstractmethod
    def list_files(self) -> Sequence[tuple[str, Path]]: ...

    def images_expected(self) -> str:
        return self.layout[0]

    def named(self, paths: Sequence[Path]) -> list[tuple[str, Path]]:
        """Files with their names below the archive's folder, those that exist."""
        return [(path.relative_to(self.folder).as_posix(), path) for path in paths if path.is_file()]
