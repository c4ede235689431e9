"""A gallery as data: what became of every image under every method, which is searched, and of the few that are shown."""
# n images, E entries (methods as compared), H W evaluation frame

from __future__ import annotations

import base64
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsolbench.metrics.error_classes import ErrorClass
from wsolbench.record import RunRecord

NONE = 255  # in a byte that holds an IoU in percent or an error class: not known
ERRORS = tuple(map(str, ErrorClass))
KINDS = ("Best", "Worst", "Median", "Most disagreeing")
SAMPLE = "Sample"  # instead, where no image has an IoU
MOST_TILES = 1500  # maps in a page: beyond it, fewer images are shown of each kind

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Options:
    """What of the runs is shown. `images` counts pictures of each kind (best, worst, median, most disagreeing)."""

    images: int = 6
    ids: tuple[str, ...] = ()  # images that get a picture besides
    maps: bool = True  # compute them; else the gallery shows boxes alone
    command: str = ""


@dataclass(frozen=True)
class Entry:
    """One method in one configuration, represented by the run of its first seed."""

    label: str
    backbone: str
    protocol: str
    directory: Path
    record: RunRecord = field(repr=False)
    iou_n: Bytes  # percent
    error_n: Bytes  # of ERRORS
    prediction_n: npt.NDArray[np.int32]  # -1: no classifier
    boxes_n4: npt.NDArray[np.int32]  # in the evaluation frame; -1 where there is none

    @property
    def title(self) -> str:
        """Label, backbone and protocol."""
        return " · ".join(part for part in (self.label, self.backbone, self.protocol) if part != "-")

    @property
    def place(self) -> tuple[str, str]:
        """The table it stands in."""
        return self.backbone, self.protocol


@dataclass
class Pictures:
    """What is drawn, by index of the image, and of the entry where it has a map."""

    class_names: tuple[str, ...]
    resolution_HW: tuple[int, int]  # of the evaluation frame, in which paths are drawn
    images: dict[int, str] = field(default_factory=dict)  # data URIs
    truths: dict[int, list[str]] = field(default_factory=dict)  # SVG paths of boxes, or of a mask's outline
    predicted: dict[tuple[int, int], str] = field(default_factory=dict)  # (entry, image) -> path of a box or region
    values: dict[tuple[int, int], float] = field(default_factory=dict)  # IoU of a region with a mask
    maps: dict[tuple[int, int], str] = field(default_factory=dict)  # (entry, image) -> data URI
    no_maps: dict[int, str] = field(default_factory=dict)  # entry -> why it has none
    no_regions: dict[int, str] = field(default_factory=dict)  # the same of regions beside masks


@dataclass
class Gallery:
    """The images of one data set and what the entries made of them."""

    title: str
    ids: list[str]
    labels: npt.NDArray[np.int32]
    entries: list[Entry]
    left_out: list[str]  # why a method is missing, a sentence each
    class_names: Sequence[str] = ()
    kinds: dict[str, list[int]] = field(default_factory=dict)  # indices of the images with a picture
    pictures: Pictures | None = None
    no_pictures: str = ""  # why there are none

    def class_name(self, label: int) -> str:
        """The name where the data set is at hand, else its number."""
        return self.class_names[label] if 0 <= label < len(self.class_names) else str(label)

    @property
    def has_boxes(self) -> bool:
        """Images with masks alone have no IoU in the records."""
        return any((entry.iou_n != NONE).any() for entry in self.entries)

    def mean_iou(self, at: int) -> float | None:
        """In percent, over the entries that have one: as recorded, or of masks as computed for an image that is shown."""
        if self.has_boxes:
            return float(self.mean_n[at])
        shown = self.pictures.values if self.pictures else {}
        values = [100 * value for (_, image), value in shown.items() if image == at]
        return sum(values) / len(values) if values else None

    @cached_property
    def mean_n(self) -> npt.NDArray[np.float64]:
        """Mean IoU in percent over the entries; NaN where none has one."""
        return over_entries(self.entries, np.nanmean)

    def index(self) -> dict[str, Any]:
        """Everything that is searched, for the page's script: text for ids and names, base64 for numbers."""
        return {
            "ids": self.ids,
            "labels": _packed(self.labels, np.int32),
            "classes": list(self.class_names),
            "errors": list(ERRORS),
            "boxes": self.has_boxes,
            "entries": [
                {
                    "label": entry.label,
                    "method": entry.record.method,
                    "backbone": entry.backbone,
                    "protocol": entry.protocol,
                    "seed": entry.record.seed,
                    "iou": _packed(entry.iou_n, np.uint8),
                    "error": _packed(entry.error_n, np.uint8),
                    "prediction": _packed(entry.prediction_n, np.int16),
                }
                for entry in self.entries
            ],
            "shown": [int(at) for images in self.kinds.values() for at in images],
        }


def over_entries(entries: Sequence[Entry], statistic: Any) -> npt.NDArray[np.float64]:
    """A statistic, such as `np.nanmean`, of the IoUs that the entries have of each image [n], in percent; NaN where none has."""
    iou_En = np.stack([np.where(entry.iou_n == NONE, np.nan, entry.iou_n) for entry in entries])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # an image without any value stays NaN
        return np.asarray(statistic(iou_En, axis=0), np.float64)


def _packed(values: npt.NDArray[Any], kind: type) -> str:
    return base64.b64encode(values.astype(np.dtype(kind).newbyteorder("<")).tobytes()).decode()
