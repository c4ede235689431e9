"""From the name by which a list calls an image to the image: never to a file outside of the data set."""

from __future__ import annotations

import difflib
import posixpath
import unicodedata
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NoReturn

from wsolbench.data.ids import EXPECTED, is_safe

Refuse = Callable[[str], NoReturn]


class ImageNames:
    """Ids, found by themselves or by their last parts where these fit one image only (`a.jpg` for `val/cat/a.jpg`)."""

    def __init__(self, ids: Sequence[str], what: str = "image") -> None:
        self.ids, self.what = ids, what

    @cached_property
    def _at(self) -> dict[str, list[int]]:
        return _grouped(self.ids)

    @cached_property
    def _by_last(self) -> dict[str, list[int]]:
        return _grouped([id.rpartition("/")[2] for id in self.ids])

    @classmethod
    def without_suffix(cls, ids: Sequence[str]) -> ImageNames:
        """Ids as files beside or about an image are called: `val/cat/a` for `val/cat/a.jpg`."""
        return cls([without_suffix(id) for id in ids])

    def find(self, name: str, refuse: Refuse, split: str = "") -> int:
        """The index of the image that a list calls `name`; `refuse` is told what was expected if there is not one.

        `split`: the list is about this split, so where a name fits several images, those in its folder are meant.
        """
        wanted = unicodedata.normalize("NFC", name).removeprefix("./")
        if not is_safe(wanted):
            refuse(f"an image as {EXPECTED}")
        fitting = self._at.get(wanted) or [at for at in self._same_last(wanted) if self.ids[at].endswith(f"/{wanted}")]
        if split and len(fitting) > 1:
            fitting = [index for index in fitting if self.ids[index].startswith(f"{split}/")] or fitting
        if len(fitting) > 1:
            first, second = (self.ids[index] for index in fitting[:2])
            several = f"two images are called {first!r}" if first == second else f"{first!r} and {second!r} both end so"
            refuse(f"the whole id of one {self.what}, but {several}")
        if not fitting:
            known = [self.ids[index] for index in self._same_last(wanted)] or self.ids[:10_000]
            near = difflib.get_close_matches(wanted, known, n=1)
            refuse(f"an {self.what} of this data set" + (f", e.g. {near[0]!r}" if near else f", e.g. {self.ids[0]!r}"))
        return fitting[0]

    def _same_last(self, name: str) -> list[int]:
        return self._by_last.get(name.rpartition("/")[2], [])


def _grouped(names: Sequence[str]) -> dict[str, list[int]]:
    """Where each name stands."""
    places: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        places.setdefault(name, []).append(index)
    return places


def without_suffix(id: str) -> str:
    """An id without the suffix of its file.

    >>> without_suffix("val/cat/a.b.JPG")
    'val/cat/a.b'
    """
    return posixpath.splitext(id)[0]
