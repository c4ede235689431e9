"""What became of every image under every method: the index that is searched, and the few images that are shown."""
# n images, E entries (methods as compared), H W evaluation frame

from __future__ import annotations

import base64
import difflib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.leaderboard.comparison import key_of
from wsolbench.leaderboard.standings import Group, Row
from wsolbench.metrics.error_classes import ErrorClass
from wsolbench.record import RunRecord
from wsolbench.runs.directory import reason
from wsolbench.system.progress import Reporter

if TYPE_CHECKING:
    from wsolbench.report import Options
    from wsolbench.report.pictures import Pictures

NONE = 255  # in a byte that holds an IoU in percent or an error class: not known
ERRORS = tuple(map(str, ErrorClass))
KINDS = ("Best", "Worst", "Median", "Most disagreeing")
SAMPLE = "Sample"  # instead, where no image has an IoU
MOST_TILES = 1500  # maps in a page: beyond it, fewer images are shown of each kind

Bytes = npt.NDArray[np.uint8]


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
        return _over_entries(self.entries, np.nanmean)

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


def _packed(values: npt.NDArray[Any], kind: type) -> str:
    return base64.b64encode(values.astype(np.dtype(kind).newbyteorder("<")).tobytes()).decode()


def galleries(
    groups: Sequence[Group], runs: Mapping[Path, RunRecord], options: Options, reporter: Reporter
) -> list[Gallery]:
    """One gallery per data set, with pictures where the data are at hand."""
    where = {key_of(record): path for path, record in runs.items()}
    by_data: dict[tuple[str, str], list[tuple[Group, Row]]] = {}
    for group in groups:
        for row in group.own_rows:
            by_data.setdefault((group.dataset, group.data), []).append((group, row))
    made = [_gallery(title, rows, where) for (title, _), rows in by_data.items()]
    every = {id for gallery in made for id in gallery.ids}
    for id in options.ids:
        if id not in every:
            near = difflib.get_close_matches(id, every, n=1)
            hint = f", did you mean '{near[0]}'?" if near else ""
            raise UsageError(f"--ids {id}: none of these runs has such an image{hint}")
    for gallery in made:
        if gallery.entries:
            gallery.kinds = pick(gallery, options)
            _illustrate(gallery, options, reporter)
    return made


def _illustrate(gallery: Gallery, options: Options, reporter: Reporter) -> None:
    from wsolbench.report.pictures import Pictures

    record = gallery.entries[0].record
    try:
        gallery.pictures = Pictures.of(record, _split_of(record))
        gallery.class_names = gallery.pictures.class_names
        gallery.pictures.add(gallery, options.maps, reporter)
    except (WsolbenchError, OSError, KeyError, TypeError, ValueError) as error:
        gallery.pictures, gallery.no_pictures = None, reason(error)


def _split_of(record: RunRecord) -> str:
    return str(record.config.get("split") or "test")


def _gallery(title: str, rows: Sequence[tuple[Group, Row]], where: Mapping[tuple[str, str], Path]) -> Gallery:
    gallery = Gallery(title, [], np.empty(0, np.int32), [], [])
    for _, row in rows:
        record = row.records[0]
        directory = where[key_of(record)]
        try:
            table = read_outcomes(directory / "images.csv.gz", _split_of(record))
        except WsolbenchError as error:
            gallery.left_out.append(f"{row.label} ({record.backbone}, {record.protocol}): {error}")
            continue
        if not gallery.ids:
            gallery.ids, gallery.labels = table["id"], table["label"]
        elif table["id"] != gallery.ids:
            gallery.left_out.append(
                f"{row.label} ({record.backbone}, {record.protocol}): it was scored on other images"
            )
            continue
        columns = {name: table[name] for name in ("iou_n", "error_n", "prediction_n", "boxes_n4")}
        gallery.entries.append(Entry(row.label, record.backbone, record.protocol, directory, record, **columns))
    return gallery


def read_outcomes(path: Path, split: str) -> dict[str, Any]:
    """The columns of an `images.csv.gz` for one split; where the images have masks and no boxes, no IoU is known.

    Raises:
        WsolbenchError: the file is gone or damaged.
    """
    import pandas as pd

    wanted = {"split", "id", "label", "prediction", "iou", "x0", "y0", "x1", "y1", "hit", "location"}
    try:
        frame = pd.read_csv(path, usecols=lambda name: name in wanted, dtype={"id": str}, keep_default_na=True)
        frame = frame[frame["split"] == split]
        labels = frame["label"].to_numpy(np.int32)
    except (OSError, ValueError, KeyError) as error:
        raise WsolbenchError(f"its per-image outcomes ({path.name}) cannot be read") from error
    if not len(frame):
        raise WsolbenchError(f"its per-image outcomes ({path.name}) hold no image of {split}")
    codes = {name: code for code, name in enumerate(ERRORS)}
    if "location" in frame:
        error_n = frame["location"].map(codes).fillna(NONE).to_numpy(np.uint8)
    else:  # runs of older versions know hits alone
        error_n = np.where(frame["hit"] == 1, 0, NONE).astype(np.uint8)
    return {
        "id": frame["id"].tolist(),
        "label": labels,
        "iou_n": np.rint(100 * frame["iou"].clip(0, 1).fillna(NONE / 100)).to_numpy(np.uint8),
        "error_n": error_n,
        "prediction_n": frame["prediction"].fillna(-1).to_numpy(np.int32),
        "boxes_n4": frame[["x0", "y0", "x1", "y1"]].fillna(-1).to_numpy(np.int32),
    }


def pick(gallery: Gallery, options: Options) -> dict[str, list[int]]:
    """Which images are shown, each once: those asked for, then best, worst, median mean IoU and largest spread.

    Where there is no IoU, a sample at even distances.
    """
    mean_n = gallery.mean_n
    spread_n = np.nan_to_num(_over_entries(gallery.entries, np.nanstd), nan=-1)
    known = ~np.isnan(mean_n)
    count = max(1, min(options.images, MOST_TILES // (len(KINDS) * len(gallery.entries)))) if options.images else 0
    wanted = set(options.ids)
    asked = [at for at, id in enumerate(gallery.ids) if id in wanted] if wanted else []
    taken, kinds = set(asked), {"Asked for": asked} if asked else {}
    if not known.any():
        spaced = dict.fromkeys(np.linspace(0, len(known) - 1, len(KINDS) * count).astype(int).tolist())
        sample = [at for at in spaced if at not in taken]
        return kinds | ({SAMPLE: sample} if sample else {})
    orders = {  # in the order of being picked: few images disagree most, many are about as good as the best
        "Most disagreeing": -spread_n,
        "Best": -mean_n,
        "Worst": mean_n,
        "Median": np.abs(mean_n - np.median(mean_n[known])) if known.any() else mean_n,
    }
    if len(gallery.entries) == 1:
        del orders["Most disagreeing"]
    picked: dict[str, list[int]] = {}
    for kind, key_n in orders.items():
        ranked = (int(at) for at in np.argsort(key_n, kind="stable") if known[at] and int(at) not in taken)
        picked[kind] = [at for at, _ in zip(ranked, range(count), strict=False)]
        taken |= set(picked[kind])
    return kinds | {kind: picked[kind] for kind in KINDS if picked.get(kind)}


def _over_entries(entries: Sequence[Entry], statistic: Any) -> npt.NDArray[np.float64]:
    iou_En = np.stack([np.where(entry.iou_n == NONE, np.nan, entry.iou_n) for entry in entries])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # an image without any value stays NaN
        return np.asarray(statistic(iou_En, axis=0), np.float64)
