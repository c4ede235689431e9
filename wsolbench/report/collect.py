"""From groups of records to galleries: whose outcomes are known, which images are shown."""
# n images, E entries (methods as compared)

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsolbench.errors import UsageError, WsolbenchError, reason
from wsolbench.leaderboard.comparison import key_of, split_of
from wsolbench.leaderboard.standings import Group, Row
from wsolbench.record import RunRecord
from wsolbench.report.gallery import ERRORS, KINDS, MOST_TILES, NONE, SAMPLE, Entry, Gallery, Options, over_entries
from wsolbench.report.pictures import Illustrator
from wsolbench.system.progress import Reporter


def galleries(
    groups: Sequence[Group], runs: Mapping[Path, RunRecord], options: Options, reporter: Reporter
) -> list[Gallery]:
    """One gallery per data set, with pictures where the data are at hand.

    Raises:
        UsageError: an image is asked for that no run has seen.
    """
    where = {key_of(record): path for path, record in runs.items()}
    by_data: dict[tuple[str, str], list[tuple[Group, Row]]] = {}
    for group in groups:
        for row in group.own_rows:
            by_data.setdefault((group.dataset, group.data), []).append((group, row))
    made = [_gallery(title, rows, where) for (title, _), rows in by_data.items()]
    _check_ids(options.ids, made)
    for gallery in made:
        if gallery.entries:
            gallery.kinds = pick(gallery, options)
            _illustrate(gallery, options, reporter)
    return made


def _check_ids(ids: Sequence[str], made: Sequence[Gallery]) -> None:
    every = {id for gallery in made for id in gallery.ids}
    for id in ids:
        if id not in every:
            near = difflib.get_close_matches(id, every, n=1)
            hint = f", did you mean '{near[0]}'?" if near else ""
            raise UsageError(f"--ids {id}: none of these runs has such an image{hint}")


def _gallery(title: str, rows: Sequence[tuple[Group, Row]], where: Mapping[tuple[str, str], Path]) -> Gallery:
    """What is stored of the rows, each by the run of its first seed; the first that can be read says which images there are."""
    gallery = Gallery(title, [], np.empty(0, np.int32), [], [])
    for _, row in rows:
        record = row.records[0]
        directory, name = where[key_of(record)], f"{row.label} ({record.backbone}, {record.protocol})"
        try:
            table = read_outcomes(directory / "images.csv.gz", split_of(record))
        except WsolbenchError as error:
            gallery.left_out.append(f"{name}: {error}")
            continue
        if not gallery.ids:
            gallery.ids, gallery.labels = table["id"], table["label"]
        elif table["id"] != gallery.ids:
            gallery.left_out.append(f"{name}: it was scored on other images")
            continue
        columns = {column: table[column] for column in ("iou_n", "error_n", "prediction_n", "boxes_n4")}
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
    wanted = set(options.ids)
    asked = [at for at, id in enumerate(gallery.ids) if id in wanted]
    count = max(1, min(options.images, MOST_TILES // (len(KINDS) * len(gallery.entries)))) if options.images else 0
    choose = _telling if gallery.has_boxes else _sample
    return ({"Asked for": asked} if asked else {}) | choose(gallery, count, set(asked))


def _sample(gallery: Gallery, count: int, taken: set[int]) -> dict[str, list[int]]:
    """As many images as all kinds would have had, at even distances."""
    spaced = dict.fromkeys(np.linspace(0, len(gallery.ids) - 1, len(KINDS) * count).astype(int).tolist())
    sample = [at for at in spaced if at not in taken]
    return {SAMPLE: sample} if sample else {}


def _telling(gallery: Gallery, count: int, taken: set[int]) -> dict[str, list[int]]:
    """The images that come first by each kind of order, of those whose IoU is known."""
    mean_n, known_n = gallery.mean_n, ~np.isnan(gallery.mean_n)
    spread_n = np.nan_to_num(over_entries(gallery.entries, np.nanstd), nan=-1)
    orders = {  # in the order of being picked: few images disagree most, many are about as good as the best
        "Most disagreeing": -spread_n,
        "Best": -mean_n,
        "Worst": mean_n,
        "Median": np.abs(mean_n - np.median(mean_n[known_n])),
    }
    if len(gallery.entries) == 1:
        del orders["Most disagreeing"]
    picked: dict[str, list[int]] = {}
    for kind, key_n in orders.items():
        ranked = np.argsort(key_n, kind="stable").tolist()
        picked[kind] = [at for at in ranked if known_n[at] and at not in taken][:count]
        taken = taken | set(picked[kind])
    return {kind: picked[kind] for kind in KINDS if picked.get(kind)}


def _illustrate(gallery: Gallery, options: Options, reporter: Reporter) -> None:
    """Fill in the pictures, or why there are none."""
    record = gallery.entries[0].record
    try:
        illustrator = Illustrator.of(record, split_of(record))
        gallery.class_names = illustrator.pictures.class_names
        gallery.pictures = illustrator.draw(gallery, options.maps, reporter)
    except (WsolbenchError, OSError, KeyError, TypeError, ValueError) as error:
        gallery.pictures, gallery.no_pictures = None, reason(error)
