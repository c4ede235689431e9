"""Which images a run trains on, chooses by and is scored on: draws, lists that are given back, and what cannot be read.

A list is the `subset.json` of a run, or of `wsolbench data draw`, or a text file with one id of the training split a line.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wsolbench.config.schema import OnBadImage, RunConfig
from wsolbench.data.bad_images import MAX_SHARE, BadImages
from wsolbench.data.ids import EXPECTED, is_safe
from wsolbench.data.lists import ids_of, read_lines
from wsolbench.data.split import Dataset, Split, Subset
from wsolbench.errors import UsageError, WsolbenchError, unknown
from wsolbench.protocols.needs import draw_fraction, draw_per_class

WHAT = {"train": "training", "val": "val"}  # split -> what its draw is for, part of the draw's seed
_OF_SUBSET = re.compile(r"\+subset-[0-9a-f]{8}")


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


# --- what a run uses -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chosen:
    """The images of a run. `indices` point into `train_split`."""

    train_split: Split
    indices: list[int]
    val_split: Split  # only the images that may be looked at
    test_split: Split
    subset: SubsetFile | None = None
    bad: dict[str, dict[str, str]] = field(default_factory=dict)  # split -> id -> why it was left out

    def identity(self) -> dict[str, Any]:
        """What of it decides numbers and is not in the configuration; empty where nothing is left out or listed."""
        bad = {name: sorted(images) for name, images in self.bad.items() if images}
        return ({"skipped": bad} if bad else {}) | ({"subset": self.subset.sha256} if self.subset else {})

    def training_identity(self) -> dict[str, Any]:
        """`identity`, as far as training knows of it."""
        identity = self.identity()
        train = identity.pop("skipped", {}).get("train")
        return identity | ({"skipped": train} if train else {})

    def without_bad(self, name: str, split: Split) -> Split:
        """Another view of the split called `name`, of which the same images are left out."""
        bad = self.bad.get(name)
        return Subset(split, [index for index, id in enumerate(split.ids) if id not in bad]) if bad else split

    def ledger(self) -> dict[str, Any]:
        """Where the images came from, for the record."""
        entries: dict[str, Any] = {}
        if self.subset is not None:
            counts = {name: len(ids) for name, ids in self.subset.ids.items()}
            entries["subset"] = {"path": str(self.subset.path), "sha256": self.subset.sha256, "images": counts}
        if any(self.bad.values()):
            entries["skipped"] = {name: images for name, images in self.bad.items() if images}
        return entries

    def notes(self) -> list[str]:
        """The sentence about images that were left out."""
        counts = {name: len(images) for name, images in self.bad.items() if images}
        if not counts:
            return []
        total, shown = sum(counts.values()), ", ".join(f"{count} of {name}" for name, count in counts.items())
        return [f"{total} {'image' if total == 1 else 'images'} that cannot be read left out: {shown}"]


def protocol_name(config: RunConfig, subset: SubsetFile | None) -> str:
    """The protocol's name; a list of images that no `<k>shot` stands for makes it another protocol.

    >>> protocol_name(RunConfig({}, {}), SubsetFile(Path("mine.txt"), {"train": ("a.jpg",)}))
    'full+subset-b55168fa'
    """
    protocol = config.protocol
    name = _OF_SUBSET.sub("", protocol.name)
    if subset is None:
        return name
    promised = {"train": protocol.shots, "val": protocol.val_per_class}
    if all(promised[split] is not None for split in subset.ids):
        return name
    return f"{name}+subset-{subset.sha256[:8]}"


def choose_images(config: RunConfig, dataset: Dataset, fingerprint: str, bad_images: BadImages) -> Chosen:
    """The images that a configuration asks for.

    A draw takes the first k readable images of each class, so one that is left out is replaced by the next; of a given list
    it is only taken away.
    """
    subset = None if config.data.subset is None else read_subset(config.data.subset)
    splits = {name: dataset.split(name) for name in ("train", "val", "test")}
    indices: dict[str, list[int] | None] = {}
    bad: dict[str, dict[str, str]] = {}
    for name, split in splits.items():
        choose = partial(_choose, config, dataset.info.revision, subset, name, split)
        if config.data.on_bad_image is OnBadImage.error:
            indices[name] = choose(set())
            continue
        find = partial(bad_images.find, name, split, fingerprint)
        indices[name], bad[name] = _readable(name, split, choose, find)
    train, val, test = indices["train"], indices["val"], indices["test"]
    return Chosen(
        splits["train"],
        list(range(len(splits["train"]))) if train is None else train,
        splits["val"] if val is None else Subset(splits["val"], val),
        splits["test"] if test is None else Subset(splits["test"], test),
        subset,
        bad,
    )


def _choose(
    config: RunConfig, revision: str, subset: SubsetFile | None, name: str, split: Split, bad: set[str]
) -> list[int] | None:
    """The images of a split that are asked for and not bad; None: all of them."""
    per_class = {"train": config.protocol.shots, "val": config.protocol.val_per_class}.get(name)
    if subset is not None and name in subset.ids:
        return [index for index in subset.indices(name, split, per_class) if split.ids[index] not in bad]
    good = [index for index, id in enumerate(split.ids) if id not in bad] if bad else None
    fraction = config.protocol.fraction if name == "train" else None
    if per_class is None and fraction is None:
        return good
    among = split if good is None else Subset(split, good)
    if fraction is not None:
        drawn = draw_fraction(among, fraction, revision=revision, seed=config.seed, what=WHAT[name])
    else:
        drawn = draw_per_class(among, per_class or 0, revision=revision, seed=config.seed, what=WHAT[name])
    return drawn if good is None else [good[index] for index in drawn]


def _readable(
    name: str,
    split: Split,
    choose: Callable[[set[str]], list[int] | None],
    find: Callable[[Sequence[int]], dict[str, str]],
) -> tuple[list[int] | None, dict[str, str]]:
    """Choose, leave out what is bad, and choose again until all can be read: of ImageNet's 1-shot only 1,000 are opened."""
    bad: dict[str, str] = {}
    looked: set[int] = set()
    while True:
        chosen = choose(set(bad))
        indices = range(len(split)) if chosen is None else chosen
        if not looked:
            classes = {int(split.labels[index]) for index in indices}
        new = [index for index in indices if index not in looked]
        if not new:
            break
        looked.update(new)
        bad |= find(new)
        if len(bad) > max(1, MAX_SHARE * len(looked)):
            raise WsolbenchError(
                f"{len(bad)} of {len(looked)} images of {name} cannot be used, more than data.on_bad_image=skip leaves "
                f"out ({MAX_SHARE:.0%}); the first: {next(iter(bad.values()))}"
            )
    for label in sorted(classes - {int(split.labels[index]) for index in chosen or ()} if bad else ()):
        raise WsolbenchError(
            f"no image of class {label} in {name} can be read; the first that cannot: {next(iter(bad.values()))}"
        )
    return chosen, bad


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
