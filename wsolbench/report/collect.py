"""From groups of records to galleries: whose outcomes are known, which images are shown."""
# n images, E entries (methods as compared)

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsolbench.errors import UsageError, WsolbenchError, reason
from wsolbench.leaderboard.comparison import key_of
from wsolbench.leaderboard.standings import Group, Row
from wsolbench.record import RunRecord
from wsolbench.report.gallery import ERRORS, KINDS, MOST_TILES, NONE, SAMPLE, Entry, Gallery, Options, over_entries
from wsolbench.system.progress import Reporter


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
    from wsolbench.report.pictures import Illustrator

    record = gallery.entries[0].record
    try:
        illustrator = Illustrator.of(record, _split_of(record))
        gallery.class_names = illustrator.pictures.class_names
        gallery.pictures = illustrator.draw(gallery, options.maps, reporter)
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
    spread_n = np.nan_to_num(over_entries(gallery.entries, np.nanstd), nan=-1)
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
