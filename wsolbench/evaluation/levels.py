"""What an evaluation stores per image, so that every protocol is a look-up and needs no second forward pass.

A quantised map has at most 255 binary maps, so "correct at this IoU" is 255 bits per IoU and contour mode, whatever the
thresholds: about 200 bytes an image hold MaxBoxAcc, MaxBoxAccV2, GT-known and Top-k Loc at any threshold, oracle or
chosen elsewhere, Otsu per image, and their bootstrap intervals. Numbers equal those of `wsolbench.metrics` exactly.
"""
# n images, B images of a batch, I IoU levels, L = 255 levels, M contour modes, T thresholds, R resamples

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from wsolbench.boxes.arrays import LEVELS, Contours, check_contours
from wsolbench.boxes.maps import level_of, threshold_grid
from wsolbench.errors import UsageError, unknown
from wsolbench.evaluation.resampling import BLOCK, Floats, Statistic, interval_of
from wsolbench.metrics.functional import (
    BoxSummary,
    PixelSummary,
    summarize_boxes,
    summarize_pixels,
)
from wsolbench.system.files import atomically

IOUS = (0.3, 0.5, 0.7)
PIXEL_INTERVAL = 0.001
SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Levels:
    """Outcomes of the n images of one split, in order; made by `score_maps`, kept by `save_levels`."""

    ids: npt.NDArray[np.str_]  # [n]
    labels: npt.NDArray[np.int32]  # [n]
    ranks: npt.NDArray[np.int32]  # [n] classes before the label; -1: no class scores
    predictions: npt.NDArray[np.int32]  # [n] predicted class; -1: no class scores
    qmax: npt.NDArray[np.uint8]  # [n] largest quantised value of the map
    otsu: npt.NDArray[np.uint8]  # [n] Otsu level of the quantised map
    # [n, 2, 3, 32] single and multi x IOUS x 255 levels, packed bits; None: the images have no boxes
    packed: npt.NDArray[np.uint8] | None = None
    foreground: npt.NDArray[np.int64] | None = None  # [1002] pooled pixel histograms of PxAP, where masks exist
    background: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """Join batches or shards of one split; all or none of them hold box outcomes, and pixel histograms."""
        if not parts:
            raise ValueError("expected at least one part, got none")
        if len({part.foreground is None for part in parts}) > 1:
            raise ValueError("expected masks for all parts or for none")
        if len({part.packed is None for part in parts}) > 1:
            raise ValueError("expected boxes for all parts or for none")
        joined: dict[str, Any] = {}
        for name in (field.name for field in fields(cls)):
            columns = [getattr(part, name) for part in parts]
            pooled = name in ("foreground", "background")
            joined[name] = columns[0] if columns[0] is None else sum(columns) if pooled else np.concatenate(columns)
        return cls(**joined)

    # --- per image -------------------------------------------------------------------------------------------------

    def hits_per_level(
        self, iou: float = 0.5, contours: Contours = "single", rows: slice = slice(None)
    ) -> npt.NDArray[np.bool_]:
        """Say which images (`rows` of them) are correct at each level of their own quantised map: bool [n, 255]."""
        if iou not in IOUS:
            raise unknown("IoU level", str(iou), map(str, IOUS))
        check_contours(contours)
        if self.packed is None:
            raise UsageError("the images have masks and no boxes: box metrics are not defined on them")
        bits = np.unpackbits(self.packed[rows, int(contours == "multi"), IOUS.index(iou)], axis=-1, count=LEVELS)
        return bits.view(np.bool_)

    def hits(self, thresholds: npt.ArrayLike, iou: float = 0.5, contours: Contours = "single") -> npt.NDArray[np.bool_]:
        """Say which images are correct at each threshold: bool [n, T], or [n] for one number."""
        wanted = np.asarray(thresholds, np.float64)
        found = np.empty((len(self), wanted.size), np.bool_)
        for rows, hits_BT in self._hit_blocks(wanted, iou, contours):
            found[rows] = hits_BT
        return found.reshape(len(self), *wanted.shape)

    def distinct(self, thresholds: npt.ArrayLike) -> Floats:
        """Those of the ascending thresholds [T] that cut any of the maps otherwise than the one before: at most a few hundred."""
        wanted = np.asarray(thresholds, np.float64)
        levels_UT = level_of(wanted, np.unique(self.qmax))
        kept: Floats = wanted[np.append(True, (np.diff(levels_UT, axis=1) != 0).any(0))]
        return kept

    def _hit_blocks(
        self, thresholds: Floats, iou: float, contours: Contours
    ) -> Iterator[tuple[slice, npt.NDArray[np.bool_]]]:
        """`hits` of some images at a time: levels of 50,000 images at 1,000 thresholds would take 400 MB."""
        for first in range(0, len(self), BLOCK):
            rows = slice(first, first + BLOCK)
            levels = level_of(thresholds, self.qmax[rows])
            columns = levels.reshape(len(levels), thresholds.size)
            yield rows, np.take_along_axis(self.hits_per_level(iou, contours, rows), columns, axis=1)

    def hits_otsu(self, iou: float = 0.5, contours: Contours = "single") -> npt.NDArray[np.bool_]:
        """Say which images are correct when each map is cut at its own Otsu level: bool [n]."""
        return np.take_along_axis(self.hits_per_level(iou, contours), self.otsu[:, None].astype(np.int64), axis=1)[:, 0]

    def in_top(self, k: int) -> npt.NDArray[np.bool_]:
        """Say whose label is among the k highest class scores: bool [n]; `UsageError` without class scores."""
        if (self.ranks < 0).any():
            raise UsageError("no class scores were stored: Top-k needs a method with a classifier, or another's logits")
        return self.ranks < k

    # --- accuracies, fractions in [0, 1] ---------------------------------------------------------------------------

    def box_accuracy(self, thresholds: npt.ArrayLike, iou: float = 0.5, contours: Contours = "single") -> Floats:
        """Return the box accuracy at each threshold, float64 [T] (a number for one)."""
        return np.asarray(self.hits(thresholds, iou, contours).sum(0) / self._count(), np.float64)

    def box_summary(
        self, contours: Contours = "single", ious: Sequence[float] = (0.5,), interval: float = 0.01
    ) -> BoxSummary:
        """Return what `MaxBoxAcc(contours, ious, interval)` computes: value, per IoU, hits, best thresholds."""
        grid = threshold_grid(interval)
        hits_IT = np.zeros((len(ious), len(grid)), np.int64)
        for counts_T, iou in zip(hits_IT, ious, strict=True):
            for _, hits_BT in self._hit_blocks(grid, iou, contours):
                counts_T += hits_BT.sum(0)
        return summarize_boxes(hits_IT, len(self), ious, grid)

    def max_box_acc(
        self, contours: Contours = "single", ious: Sequence[float] = (0.5,), interval: float = 0.01
    ) -> float:
        """Return MaxBoxAcc: the threshold is the best one on these images (an oracle) for each IoU level."""
        return self.box_summary(contours, ious, interval)["value"]

    def max_box_acc_v2(self) -> float:
        """Return MaxBoxAccV2: every contour, 1,000 thresholds, mean of the maxima at IoU .3, .5, .7."""
        return self.max_box_acc("multi", IOUS, 0.001)

    def select_threshold(self, iou: float = 0.5, contours: Contours = "single", interval: float = 0.01) -> float:
        """Return the threshold with the best box accuracy on these images; the first one wins a tie."""
        return self.box_summary(contours, (iou,), interval)["best_thresholds"][iou]

    def gt_known_loc(
        self,
        threshold: float | Literal["oracle"],
        iou: float = 0.5,
        contours: Contours = "single",
        interval: float = 0.01,
    ) -> float:
        """Return GT-known Loc at a threshold chosen elsewhere, or at the one that is best on these images."""
        at = self.select_threshold(iou, contours, interval) if threshold == "oracle" else threshold
        return float(self.box_accuracy(at, iou, contours))

    def topk_loc(
        self,
        k: int,
        threshold: float | Literal["oracle"],
        iou: float = 0.5,
        contours: Contours = "single",
        interval: float = 0.01,
    ) -> float:
        """Return Top-k Loc at a threshold chosen elsewhere, or at the one best for GT-known Loc on these images."""
        at = self.select_threshold(iou, contours, interval) if threshold == "oracle" else threshold
        return int((self.hits(at, iou, contours) & self.in_top(k)).sum()) / self._count()

    def topk_accuracy(self, k: int) -> float:
        """Return the classification accuracy: share of labels among the k highest class scores."""
        return int(self.in_top(k).sum()) / self._count()

    def pxap(self) -> PixelSummary | None:
        """Return PxAP, peak IoU and their curves, or None where the split has no masks."""
        if self.foreground is None or self.background is None:
            return None
        return summarize_pixels(self.foreground, self.background, PIXEL_INTERVAL)

    def bootstrap(
        self, statistic: Statistic, n: int = 1000, seed: int = 0, *, maximum: float | None = None
    ) -> tuple[float, float]:
        """Return the 95 % interval of a statistic over n resamples of the images; see `resample` and `interval_of`.

        >>> from wsolbench.evaluation.resampling import mean_of
        >>> from wsolbench.evaluation.scoring import score_maps
        >>> one = np.ones((4, 1, 8, 8)) * np.pad(np.ones((3, 4)), ((2, 3), (2, 2)))
        >>> box = np.array([[2, 2, 6, 5]])
        >>> levels = Levels.concat([score_maps(m, [box], [0], None, None, [str(i)]) for i, m in enumerate(one)])
        >>> levels.bootstrap(mean_of(levels.hits(0.4)))
        (1.0, 1.0)
        """
        return interval_of(self.resample(statistic, n, seed), maximum)

    def resample(self, statistic: Statistic, n: int = 1000, seed: int = 0) -> Floats:
        """Return the value of a statistic in each of n resamples of the images, float64 [n].

        The same seed draws the same images for every `Levels` of as many images, so intervals of paired differences
        are differences of these draws. `statistic` maps how often each image was drawn, float32 [R, n], to values [R]:
        see `wsolbench.evaluation.resampling`.
        """
        rng, count = np.random.default_rng(seed), self._count()
        values = []
        for start in range(0, n, 20):  # in pieces: 1,000 resamples of ImageNet's images would take 200 MB
            drawn = [
                np.bincount(rng.integers(count, size=count), minlength=count).astype(np.float32)
                for _ in range(min(20, n - start))
            ]
            values.append(statistic(np.stack(drawn)))
        return np.concatenate(values)

    def _count(self) -> int:
        if not len(self):
            raise ValueError("expected at least one image, got none")
        return len(self)


# --- making, keeping -------------------------------------------------------------------------------------------------


def save_levels(path: str | Path, splits: Mapping[str, Levels]) -> None:
    """Write the outcomes of several splits to one .npz; atomic, and the same outcomes give the same bytes."""
    arrays: dict[str, Any] = {"schema": np.array(SCHEMA)}
    for split, levels in splits.items():
        for name in (field.name for field in fields(Levels)):
            if (value := getattr(levels, name)) is not None:
                arrays[f"{split}/{name}"] = value
    with atomically(Path(path)) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load_levels(path: str | Path) -> dict[str, Levels]:
    """Read what `save_levels` wrote, by split; nothing in the file is executed."""
    with np.load(path, allow_pickle=False) as file:
        if "schema" not in file or int(file["schema"]) != SCHEMA:
            raise UsageError(f"{path} is not a file of stored outcomes of schema {SCHEMA}: score the maps again")
        splits: dict[str, dict[str, Any]] = {}
        for key in file.files:
            if key != "schema":
                split, _, name = key.rpartition("/")
                splits.setdefault(split, {})[name] = file[key]
    return {split: Levels(**columns) for split, columns in splits.items()}
