"""The one road to localisation ground truth: whatever passes is noted, and marks follow from what was noted."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from wsolbench.data.split import Split
from wsolbench.types import Annotation

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class HasIds(Protocol):
    """Outcomes of some images."""

    @property
    def ids(self) -> npt.NDArray[np.str_]: ...


class AnnotationReader:
    """The one road to localisation ground truth: whatever passes is noted with split, kind and purpose.

    Marks follow from what was noted: a choice made on the test split is an oracle, whatever its name.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # maps are scored in several threads
        self._places: dict[str, dict[str, int]] = {}  # split -> id -> place in the marks
        self._marks: dict[
            tuple[str, str, str], bytearray
        ] = {}  # split, kind, purpose -> 1 where an image was looked at

    def read(self, name: str, split: Split, ids: Sequence[str], purpose: str = "scoring") -> list[Annotation]:
        """Annotations of some images of the split called `name`."""
        annotations = [split.annotation(id) for id in ids]
        self._note(name, "boxes", purpose, [each.id for each in annotations if each.boxes_N4 is not None])
        self._note(name, "masks", purpose, [each.id for each in annotations if each.mask_HW is not None])
        return annotations

    def choose_on(self, name: str, levels: HasIds, purpose: str, kind: str = "boxes") -> bool:
        """Note that a choice is made by outcomes on the split called `name`; says whether that makes it an oracle."""
        self._note(name, kind, purpose, levels.ids.tolist())
        return name == "test"

    def uses(self) -> list[dict[str, Any]]:
        """What was looked at, for the ledger: split, kind, purpose, number of images."""
        return [
            {"split": split, "kind": kind, "purpose": purpose, "images": sum(marks)}
            for (split, kind, purpose), marks in sorted(self._marks.items())
        ]

    def _note(self, split: str, kind: str, purpose: str, ids: Sequence[str]) -> None:
        if not ids:
            return
        with self._lock:
            places = self._places.setdefault(split, {})
            marks = self._marks.setdefault((split, kind, purpose), bytearray())
            for id in ids:
                place = places.setdefault(id, len(places))
                marks.extend(bytes(max(0, place + 1 - len(marks))))
                marks[place] = 1
