"""Which images a run trains on, chooses by and is scored on: draws, lists that are given back, and what cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from wsolbench.config.schema import OnBadImage, ProtocolConfig, RunConfig
from wsolbench.data.bad_images import MAX_SHARE, BadImages
from wsolbench.data.dataset import Dataset
from wsolbench.data.draws import draw_fraction, draw_per_class
from wsolbench.data.split import Split, Subset
from wsolbench.data.subsets import WHAT, SubsetFile, read_subset
from wsolbench.errors import WsolbenchError


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

    def names_protocol(self, protocol: ProtocolConfig) -> str:
        """SHA-256 of the list of images where it makes the protocol another one: no `<k>shot` stands for it; else ""."""
        if self.subset is None:
            return ""
        promised = {"train": protocol.shots, "val": protocol.val_per_class}
        return "" if all(promised[split] is not None for split in self.subset.ids) else self.subset.sha256

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
