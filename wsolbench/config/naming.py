"""The full name of a protocol: the one place that makes it. The name is in the hash, in the path and above every table.

A preset (`full`), with few images (`5shot+realistic`), what was changed of it (`+threshold=otsu`), the list of images
(`+subset-1a2b3c4d`), whose pseudo-boxes (`+segments`), the search (`+search8:class-accuracy`), in this order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_SUBSET = re.compile(r"\+subset-[0-9a-f]{8}")
_SEARCH = re.compile(r"\+search\d+(:[^+]*)?$")


def preset_name(amount: str | None, preset: str | None) -> str:
    """Of a preset, `<k>shot` or `<p>percent` of the training images, or both; `full` is what is not said.

    >>> preset_name("5shot", "realistic"), preset_name("5shot", None), preset_name(None, "matrix")
    ('5shot+realistic', '5shot', 'matrix')
    """
    if amount is None:
        return preset or "full"
    return amount if preset in (None, "full") else f"{amount}+{preset}"


def changed_name(name: str, changes: Sequence[str]) -> str:
    """A preset that was changed is another protocol: it must not share the preset's name, nor its table.

    >>> changed_name("full", ["threshold=otsu"])
    'full+threshold=otsu'
    """
    return "+".join([name, *changes])


def full_name(name: str, *, subset: str = "", boxes: str = "", search: str = "") -> str:
    """A protocol's name with what a run's files and its search add to it; of a full name the same again.

    Args:
        name: as composed, or the full name of a run that is repeated.
        subset: SHA-256 of a list of images that makes it another protocol, see `subset_of`.
        boxes: source of the pseudo-boxes that are chosen by.
        search: what the search adds, see `search_part`.

    >>> full = full_name("5shot", subset="0123456789", boxes="segments", search="search8")
    >>> full
    '5shot+subset-01234567+segments+search8'
    >>> full_name(full, subset="0123456789", boxes="segments", search="search8") == full
    True
    """
    if search:
        name = untuned_name(name)
    if boxes:
        name = name.removesuffix(f"+{boxes}")
    name = _SUBSET.sub("", name)
    parts = [name, f"subset-{subset[:8]}" if subset else "", boxes, search]
    return "+".join(part for part in parts if part)


def search_part(trials: int, by: str | None) -> str:
    """What a search adds: the number of trials, and who chooses among them where that is not the usual one.

    >>> search_part(8, None), search_part(8, "class-accuracy")
    ('search8', 'search8:class-accuracy')
    """
    return f"search{trials}" + ("" if by is None else f":{by}")


def untuned_name(protocol: str) -> str:
    """A protocol's name without what a search adds to it.

    >>> untuned_name("5shot+search8:class-accuracy")
    '5shot'
    """
    return _SEARCH.sub("", protocol)
