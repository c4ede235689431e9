"""The full name of a protocol: preset, what was changed of it, images, pseudo-boxes, search."""

from __future__ import annotations

import re

from wsolbench.config.schema import RunConfig
from wsolbench.data.subsets import SubsetFile


def untuned_name(protocol: str) -> str:
    """A protocol's name without what a search adds to it.

    >>> untuned_name("5shot+search8:class-accuracy")
    '5shot'
    """
    return re.sub(r"\+search\d+(:[^+]*)?$", "", protocol)


_OF_SUBSET = re.compile(r"\+subset-[0-9a-f]{8}")


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
