from .archive import ArchiveDataset
from .dataset import HoldOutConfig, ListedConfig, ListedDataset, ListedSplit
from .holdout import HoldOut
from .layout import Layout, MetadataLayout, Which, first_folder
from .reference import ArchiveConfig, ReferenceConfig, ReferenceDataset

__all__ = [
    "ArchiveConfig",
    "ArchiveDataset",
    "HoldOut",
    "HoldOutConfig",
    "Layout",
    "ListedConfig",
    "ListedDataset",
    "ListedSplit",
    "MetadataLayout",
    "ReferenceConfig",
    "ReferenceDataset",
    "Which",
    "first_folder",
]
