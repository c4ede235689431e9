"""What is finished of an evaluation, in order, in memory and on disk: it outlives the process that made it."""
# n images of a part

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsolbench.evaluation.levels import Levels, load_levels, save_levels
from wsolbench.system.files import atomically

IN_MEMORY = 8 * 2**20  # bytes of arrays after which a part goes to disk

Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Part:
    """What is kept of n images in a row: arrays [n, ...] by name, and their stored outcomes where there are any."""

    arrays: Arrays
    levels: Levels | None

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))


class Parts:
    """Parts of one split. On disk each is `<split>-<number>.levels.npz`, then `<split>-<number>.arrays.npz`, which makes it whole."""

    def __init__(self, folder: Path, split: str, save_every: float = 30.0) -> None:
        self.folder, self.split, self.save_every = folder, split, save_every
        self.saved = 0  # parts on disk
        self._levels: Levels | None = None  # of all parts, once they are asked for: until then on disk alone
        self._fresh: list[Part] = []  # those that came since the last flush
        self._saved_at = time.monotonic()

    def load(self, is_current: Callable[[int, Arrays], bool] = lambda first, arrays: True) -> int:
        """Take over finished parts up to the first that is not current; returns how many images they hold.

        `is_current` is given the number of images before a part, and the part's arrays.
        """
        done = 0
        for path in sorted(self.folder.glob(f"{self.split}-*.arrays.npz")):
            arrays = _read(path) if path == self._path(self.saved, "arrays.npz") else {}
            if not arrays or not is_current(done, arrays):
                break
            done += len(Part(arrays, None))
            self.saved += 1
        for path in sorted(self.folder.glob(f"{self.split}-*.npz")):  # of images whose files were changed since
            if path >= self._path(self.saved, ""):
                path.unlink()
        return done

    def add(self, part: Part) -> None:
        self._fresh.append(part)

    def take(self) -> list[Part]:
        """What has come since the last flush, which is no longer here then."""
        taken, self._fresh = self._fresh, []
        return taken

    def is_due(self) -> bool:
        """It is time to write: much has come, or the last time was long ago."""
        waiting = sum(array.nbytes for part in self._fresh for array in part.arrays.values())
        return waiting > IN_MEMORY or time.monotonic() - self._saved_at >= self.save_every

    def flush(self) -> None:
        """Write what has come since the last flush as one part."""
        self._saved_at = time.monotonic()
        if not self._fresh:
            return
        levels = [part.levels for part in self._fresh if part.levels is not None]
        if levels:
            save_levels(self._path(self.saved, "levels.npz"), {self.split: Levels.concat(levels)})
        arrays: dict[str, Any] = {
            name: np.concatenate([part.arrays[name] for part in self._fresh]) for name in self._fresh[0].arrays
        }
        with atomically(self._path(self.saved, "arrays.npz")) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)
        self._fresh.clear()
        self.saved += 1

    def levels(self) -> Levels:
        """The outcomes of all images, once everything is flushed."""
        if self._levels is None:
            paths = [self._path(number, "levels.npz") for number in range(self.saved)]
            self._levels = Levels.concat([load_levels(path)[self.split] for path in paths])
        return self._levels

    def boxes_at(self, levels_n: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The box of each image's largest contour at a level of its own map, [n, 4], from the arrays called "boxes"."""
        rows, first = [], 0
        for (boxes_nL4,) in self.each("boxes"):
            rows.append(boxes_nL4[np.arange(len(boxes_nL4)), levels_n[first : first + len(boxes_nL4)]])
            first += len(boxes_nL4)
        return np.concatenate(rows).astype(np.int64)

    def each(self, *names: str) -> Iterator[tuple[npt.NDArray[Any], ...]]:
        """Some of the arrays, part by part, once everything is flushed."""
        for number in range(self.saved):
            with np.load(self._path(number, "arrays.npz"), allow_pickle=False) as file:
                yield tuple(file[name] for name in names)

    def all(self, name: str) -> npt.NDArray[Any]:
        """One of the arrays, whole."""
        return np.concatenate([array for (array,) in self.each(name)])

    def _path(self, number: int, kind: str) -> Path:
        return self.folder / f"{self.split}-{number:06d}.{kind}"


def _read(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)
