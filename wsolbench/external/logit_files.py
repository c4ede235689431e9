"""Class scores made by any code: where the label stands among them, read in blocks so that memory does not grow."""
# n images, R rows of a block, K classes

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch

from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.external.map_files import SUFFIX, Archive, find_maps, read_header, read_npy
from wsolbench.metrics.ranks import label_rank

ROWS = 512
FORMS = "a .npy [images, classes] in the order of the ids, or a .npz with arrays 'ids' and 'logits', or one with ids as keys"

Block = tuple[str, npt.NDArray[np.int64], npt.NDArray[Any]]
"""Name for messages, indices of the images [R], logits [R, K]."""


@dataclass(frozen=True)
class ClassOutcomes:
    """Per image of a split: classes before the label (0: right), and the predicted class."""

    ranks: npt.NDArray[np.int32]
    predictions: npt.NDArray[np.int32]


def read_logits(
    path: str | Path, ids: Sequence[str], labels: npt.NDArray[np.int64], num_classes: int, split: str
) -> ClassOutcomes:
    """Rank every image's label among its class scores.

    Args:
        path: see `FORMS`.
        ids: of the split's images.
        labels: int64 [n].
        num_classes: K.
        split: how messages call it, e.g. "cub/test".

    Raises:
        UsageError: there is no such file.
        WsolbenchError: another shape, a type that is no real number, NaN, an image without scores; nothing is unpickled.
    """
    path = check_logits_path(path)
    outcomes = ClassOutcomes(np.full(len(ids), -1, np.int32), np.full(len(ids), -1, np.int32))
    for where, rows_at, block_RK in _blocks(path, ids, split):
        if block_RK.shape[1] != num_classes:
            raise WsolbenchError(f"{where} have {block_RK.shape[1]} classes, expected the {num_classes} of {split}")
        if block_RK.dtype.kind not in "fiu":
            raise WsolbenchError(f"{where} are {block_RK.dtype}, expected real numbers")
        logits = torch.from_numpy(block_RK.astype(np.float64))
        if logits.isnan().any():
            row = int(logits.isnan().any(1).nonzero()[0])
            raise WsolbenchError(f"{where} hold NaN for image {ids[rows_at[row]]!r}; expected real numbers")
        outcomes.ranks[rows_at] = label_rank(logits, torch.from_numpy(labels[rows_at])).numpy()
        outcomes.predictions[rows_at] = logits.argmax(1).numpy()
    return outcomes


def check_logits_path(path: str | Path) -> Path:
    """Refuse what is no file of class scores by its name, before anything is read."""
    path = Path(path)
    if not path.is_file() or path.suffix not in (".npy", ".npz"):
        state = "is no .npy or .npz file" if path.exists() else "does not exist"
        raise UsageError(f"--logits '{path}' {state}; expected {FORMS}")
    return path


def _blocks(path: Path, ids: Sequence[str], split: str) -> Iterator[Block]:
    """The class scores in parts, until every image had its turn."""
    if path.suffix == ".npy":
        with path.open("rb") as file:
            yield from _rows(file, f"logits '{path}'", np.arange(len(ids)), split)
        return
    archive = Archive(path)
    if archive.has(f"logits{SUFFIX}") and archive.has(f"ids{SUFFIX}"):
        order = _order(archive, ids, split)
        with archive.open(f"logits{SUFFIX}") as file:
            yield from _rows(file, f"logits {archive.say('logits')}", order, split)
        return
    found = find_maps(path, ids, split, "class scores")
    for index, name in enumerate(found.names):
        row, _ = read_npy(archive, name)
        where = f"logits {archive.say(name)}"
        if row.ndim != 1:
            raise WsolbenchError(f"{where} have shape {list(row.shape)}, expected [classes]")
        yield where, np.array([index]), row[None]


def _order(archive: Archive, ids: Sequence[str], split: str) -> npt.NDArray[np.int64]:
    """For each row of the logits, the index of its image."""
    where = f"ids {archive.say('ids')}"
    names, _ = read_npy(archive, f"ids{SUFFIX}")
    if names.ndim != 1 or names.dtype.kind != "U":
        raise WsolbenchError(f"{where} are {names.dtype} of shape {list(names.shape)}, expected text [images]")
    rows = names.tolist()
    if sorted(rows) != sorted(ids):
        wanted, given = set(ids), set(rows)
        odd = next((id for id in ids if id not in given), None) or next(
            (id for id in rows if id not in wanted), rows[0]
        )
        raise WsolbenchError(f"{where} are not the {len(ids)} images of {split}, each once; see {odd!r}")
    at = {id: index for index, id in enumerate(ids)}
    return np.array([at[id] for id in rows], np.int64)


def _rows(file: IO[bytes], where: str, order: npt.NDArray[np.int64], split: str) -> Iterator[Block]:
    """A .npy [n, K] in blocks of rows; `order[row]` is the row's image."""
    shape, fortran, dtype = read_header(file, where)
    if len(shape) != 2 or shape[0] != len(order):
        raise WsolbenchError(
            f"{where} have shape {list(shape)}, expected [images, classes] with the {len(order)} images of {split}"
        )
    if fortran:
        raise WsolbenchError(f"{where} are stored by columns; save them with numpy.ascontiguousarray")
    width = shape[1] * dtype.itemsize
    for first in range(0, len(order), ROWS):
        at = order[first : first + ROWS]
        try:
            content = file.read(len(at) * width)
        except (OSError, zipfile.BadZipFile) as error:
            raise WsolbenchError(f"{where} cannot be read: {error}") from error
        if len(content) != len(at) * width:
            raise WsolbenchError(f"{where} end after {first + len(content) // max(width, 1)} of {len(order)} images")
        yield where, at, np.frombuffer(content, dtype).reshape(len(at), shape[1])
