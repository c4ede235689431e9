"""Lists of the images a run trains on and chooses by: drawing one, writing it, reading one that is given back.

A list is the `subset.json` of a run, or of `wsolbench data draw`, or a text file with one id of the training split a line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsolbench.data.dataset import Dataset
from wsolbench.data.draws import draw_per_class
from wsolbench.data.ids import EXPECTED, is_safe
from wsolbench.data.lists import ids_of, read_lines
from wsolbench.data.split import Split
from wsolbench.errors import UsageError, unknown

WHAT = {"train": "training", "val": "val"}  # split -> what its draw is for, part of the draw's seed


@dataclass(frozen=True)
class SubsetFile:
    """Ids per split ("train", "val") in the order of the file; a split that it does not name is taken whole."""

    path: Path
    ids: Mapping[str, tuple[str, ...]]

    @property
    def sha256(self) -> str:
        """Over the ids alone: neither their order nor the place of the file decides anything."""
        content = json.dumps({name: sorted(ids) for name, ids in sorted(self.ids.items())})
        return hashlib.sha256(content.encode()).hexdigest()

    def indices(self, name: str, split: Split, per_class: int | None) -> list[int]:
        """The images of `split` that the file lists, in order of id; `per_class`: how many the protocol promises.

        Raises:
            UsageError: an id is not one of the split, or the protocol promises another number.
        """
        places = {id: index for index, id in enumerate(split.ids)}
        for id in self.ids[name]:
            if id not in places:
                near = split.ids if len(split.ids) < 20_000 else split.ids[:3]  # comparing with a million takes long
                raise unknown(f"image of {name}", id, _nearest(id, near), f", named by '{self.path}'")
        indices = [places[id] for id in sorted(self.ids[name])]
        if per_class is not None:
            counts = np.bincount(split.labels[indices], minlength=int(split.labels.max()) + 1)
            for label in np.flatnonzero((counts != per_class) & np.isin(np.arange(len(counts)), split.labels))[:1]:
                raise UsageError(
                    f"the protocol promises {per_class} {WHAT[name]} images per class, but '{self.path}' lists "
                    f"{counts[label]} of class {label}"
                )
        return indices


def _nearest(id: str, ids: Sequence[str]) -> Sequence[str]:
    import difflib

    return difflib.get_close_matches(id, ids, n=3) or ids[:3]


def read_subset(path: str | Path) -> SubsetFile:
    """Read a list of images.

    Raises:
        UsageError: the file cannot be read.
        WsolbenchError: it is no list of ids, or one of them is unsafe, empty or there twice; the sentence names file and line.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "mine.txt")
    >>> _ = file.write_text("b.jpg\\na.jpg\\n")
    >>> read_subset(file).ids
    {'train': ('b.jpg', 'a.jpg')}
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"data.subset='{path}' is no file; expected subset.json of a run, or one id per line")
    lines = read_lines(path, "a list of images")
    if not "".join(lines.text).lstrip().startswith(("{", "[")):
        return SubsetFile(path, {"train": tuple(ids_of(lines))})
    try:
        content = json.loads("\n".join(lines.text))
    except ValueError as error:
        raise UsageError(f"'{path}' is not JSON: {error}") from error
    found = {name: content[name] for name in WHAT if name in content} if isinstance(content, dict) else {}
    if not found:
        raise UsageError(
            f'\'{path}\' lists no images: expected {{"train": {{"ids": [...]}}}}, as in a run\'s subset.json'
        )
    return SubsetFile(path, {name: _ids(path, name, part) for name, part in found.items()})


def _ids(path: Path, name: str, part: Any) -> tuple[str, ...]:
    ids = part.get("ids") if isinstance(part, dict) else part
    if not isinstance(ids, list) or not ids or not all(isinstance(id, str) for id in ids):
        raise UsageError(f"'{path}': {name}.ids is not a list of at least one id")
    seen: set[str] = set()
    for id in ids:
        if not is_safe(id):
            raise UsageError(f"'{path}': {name}.ids holds {id!r}, expected {EXPECTED}")
        if id in seen:
            raise UsageError(f"'{path}': {name}.ids holds {id!r} twice, expected each id once")
        seen.add(id)
    return tuple(ids)


# --- draws -----------------------------------------------------------------------------------------------------------


def subset_content(
    revision: str, seed: int, per_class: Mapping[str, int | None], ids: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """The content of `subset.json`: what `read_subset` reads."""
    parts = {name: {"per_class": per_class.get(name), "ids": list(listed)} for name, listed in ids.items()}
    return {"revision": revision, "seed": seed, **parts}


def draw_subset(dataset: Dataset, *, shots: int, val_per_class: int | None, seed: int) -> dict[str, Any]:
    """The draw of `<shots>shot` with this seed, as `subset.json` holds it."""
    per_class = {"train": shots} | ({} if val_per_class is None else {"val": val_per_class})
    ids = {}
    for name, count in per_class.items():
        split = dataset.split(name)
        drawn = draw_per_class(split, count, revision=dataset.info.revision, seed=seed, what=WHAT[name])
        ids[name] = [split.ids[index] for index in drawn]
    return subset_content(dataset.info.revision, seed, per_class, ids)
