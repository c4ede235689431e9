"""Reader of the reference evaluator's metadata folders: ids, labels, sizes, and boxes or masks of one split.

Source: the file format of clovaai/wsolevaluation (commit 96f4b88), `metadata/<data set>/<train|val|test>/`: one record a
line, comma-separated, no header, no quoting. Boxes are integers (x0, y0, x1, y1) in original pixels with x1 = x0 + width,
clipped to the last pixel. Whatever does not hold together is refused with the file, the line and the value at fault.
"""
# n images, M boxes of all images, N boxes of one image, H W image

from __future__ import annotations

import re
import warnings
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from wsolbench.errors import WsolbenchError
from wsolbench.ids import EXPECTED, is_safe

IDS = "image_ids.txt"
PROXY_IDS = "image_ids_proxy.txt"
LABELS = "class_labels.txt"
SIZES = "image_sizes.txt"
LOCALIZATION = "localization.txt"

_NUMBER = "([0-9]{1,9})"
_SIGNED = "(-?[0-9]{1,9})"

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MaskFiles:
    """Ids of an image's mask files: one per instance, and the one of the region to ignore ("": nothing is ignored)."""

    masks: tuple[str, ...]
    ignore: str


@dataclass(frozen=True, eq=False)
class Metadata:
    """One split as its folder says, in evaluation order; made by `read_metadata`."""

    folder: Path
    ids: list[str]
    labels: Ints  # [n]
    sizes_HW: Ints | None  # [n, 2]; None: the file is absent or empty
    boxes_M4: Ints | None  # [M, 4], the boxes of an image in one piece; None: the split has no boxes
    first_box: Ints | None  # [n + 1]: the boxes of image i are rows first_box[i] .. first_box[i + 1] - 1
    masks: list[MaskFiles] | None  # per image; None: the split has no masks
    clipped: int = 0  # boxes that ended at x1 = width or y1 = height

    def __len__(self) -> int:
        return len(self.ids)

    def boxes(self, index: int) -> Ints | None:
        """The boxes [N, 4] of an image, N >= 1; None where the split has none."""
        if self.boxes_M4 is None or self.first_box is None:
            return None
        return self.boxes_M4[self.first_box[index] : self.first_box[index + 1]]

    def subset(self, indices: Sequence[int]) -> Metadata:
        """The images at `indices`, in that order."""
        chosen = np.asarray(indices, np.int64)
        boxes_M4, first_box = self.boxes_M4, self.first_box
        if boxes_M4 is not None and first_box is not None:
            boxes_M4 = np.concatenate([boxes_M4[first_box[i] : first_box[i + 1]] for i in indices])
            first_box = np.append(0, np.cumsum(np.diff(first_box)[chosen])).astype(np.int64)
        return replace(
            self,
            ids=[self.ids[index] for index in indices],
            labels=self.labels[chosen],
            sizes_HW=None if self.sizes_HW is None else self.sizes_HW[chosen],
            boxes_M4=boxes_M4,
            first_box=first_box,
            masks=None if self.masks is None else [self.masks[index] for index in indices],
        )


def read_metadata(folder: str | Path, *, proxy: bool = False) -> Metadata:
    """Read the metadata folder of one split.

    Line ends of Windows, a missing last line end and blank lines are accepted. `image_sizes.txt` and `localization.txt`
    may be absent or empty; where they hold anything they must cover exactly the ids of `image_ids.txt`, in any order. A box that
    ends at x1 = width or y1 = height is clipped to the last pixel, and the number of such boxes is warned of.

    Args:
        folder: holds image_ids.txt, class_labels.txt, image_sizes.txt, localization.txt.
        proxy: take the reduced list of images in image_ids_proxy.txt.

    Raises:
        WsolbenchError: a file is missing or one of its lines cannot be right; the sentence names file, line and value.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> files = {IDS: "a.jpg", LABELS: "a.jpg,3", SIZES: "a.jpg,500,335", LOCALIZATION: "a.jpg,60,27,385,331"}
    >>> written = [(folder / name).write_text(text) for name, text in files.items()]
    >>> metadata = read_metadata(folder)
    >>> metadata.ids, metadata.labels.tolist(), metadata.sizes_HW.tolist(), metadata.boxes(0).tolist()
    (['a.jpg'], [3], [[335, 500]], [[60, 27, 385, 331]])
    """
    folder = Path(folder)
    ids = _read_ids(folder / IDS)
    index = _Index(folder / IDS, ids)
    labels = _read_labels(folder / LABELS, index)
    sizes_HW = _read_sizes(folder / SIZES, index)
    metadata = _read_localization(Metadata(folder, ids, labels, sizes_HW, None, None, None), index)
    if metadata.clipped:
        warnings.warn(
            f"'{folder / LOCALIZATION}': {metadata.clipped} boxes end at x1 = width or y1 = height; "
            "they are clipped to the last pixel, as the reference metadata is",
            stacklevel=2,
        )
    return _reduced(metadata, index) if proxy else metadata


def count_ids(folder: str | Path) -> int:
    """How many images a metadata folder lists, without checking them; 0 where it lists none."""
    path = Path(folder, IDS)
    return sum(1 for line in _lines(path).text if line) if path.is_file() else 0


# --- files -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Lines:
    path: Path
    text: list[str]

    def refuse(self, number: int, expected: str) -> NoReturn:
        shown = self.text[number - 1]
        shown = shown if len(shown) <= 160 else f"{shown[:160]}..."
        raise WsolbenchError(f"'{self.path}' line {number}: {shown!r}, expected {expected}")


def _lines(path: Path) -> _Lines:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise WsolbenchError(f"'{path}' is not a text file: byte {error.start} is not UTF-8") from error
    except OSError as error:
        raise WsolbenchError(
            f"metadata file '{path}' cannot be read ({error.strerror}); expected {IDS}, {LABELS}, {SIZES} and "
            f"{LOCALIZATION} in '{path.parent}'"
        ) from error
    return _Lines(path, text.replace("\r\n", "\n").split("\n"))


def _read_ids(path: Path) -> list[str]:
    lines = _lines(path)
    first: dict[str, int] = {}
    for number, line in enumerate(lines.text, 1):
        if not line:
            continue
        if not is_safe(line):
            lines.refuse(number, EXPECTED)
        if first.setdefault(line, number) != number:
            lines.refuse(number, f"each id once, but line {first[line]} holds it too")
    if not first:
        raise WsolbenchError(f"'{path}' lists no image; expected one id per line")
    return list(first)


class _Index:
    """Where the records of another file belong among the ids."""

    def __init__(self, path: Path, ids: list[str]) -> None:
        self.path, self.ids = path, ids
        self.at = {id: index for index, id in enumerate(ids)}

    def place(self, lines: _Lines, pattern: str, expected: str) -> Iterator[tuple[int, int, tuple[str, ...]]]:
        """Per record its line number, its image's index and its fields after the id; in the end every image had one."""
        match = re.compile(rf"([^,]+),{pattern}").fullmatch
        unseen = bytearray(b"\1" * len(self.ids))
        for number, line in enumerate(lines.text, 1):
            if not line:
                continue
            found = match(line)
            if found is None:
                lines.refuse(number, expected)
            fields = found.groups()
            index = self.at.get(fields[0])
            if index is None:
                lines.refuse(number, f"an id of '{self.path.name}', which has none such")
            unseen[index] = 0
            yield number, index, fields[1:]
        if any(unseen):
            raise WsolbenchError(
                f"'{lines.path}' has no line for {sum(unseen)} of the {len(self.ids)} images of '{self.path.name}', "
                f"first {self.ids[unseen.index(1)]!r}; expected {expected} for each"
            )

    def place_integers(
        self, lines: _Lines, columns: int, expected: str, *, number: str = _NUMBER, once: bool = True
    ) -> tuple[Ints, Ints, Ints]:
        """Line numbers [R], image indices [R] and values [R, columns] of all records; `once`: one record an image."""
        flat = array("q")  # not a list of tuples: ImageNet's training list has 1.28 million records
        seen: set[int] = set()
        for line, index, fields in self.place(lines, ",".join([number] * columns), expected):
            if once and index in seen:
                lines.refuse(line, "one line per image, but an earlier line names this one too")
            seen.add(index)
            flat.append(line)
            flat.append(index)
            flat.extend(map(int, fields))
        table = np.array(flat, np.int64).reshape(-1, 2 + columns)
        return table[:, 0], table[:, 1], table[:, 2:]


def _read_labels(path: Path, index: _Index) -> Ints:
    _, where, values = index.place_integers(_lines(path), 1, "<id>,<class>, a whole number from 0")
    labels = np.empty(len(index.ids), np.int64)
    labels[where] = values[:, 0]
    return labels


def _read_sizes(path: Path, index: _Index) -> Ints | None:
    if not path.is_file() or not any((lines := _lines(path)).text):
        return None
    expected = "<id>,<width>,<height>, whole numbers from 1"
    numbers, where, sizes_WH = index.place_integers(lines, 2, expected)
    _refuse_any(lines, numbers, (sizes_WH < 1).any(1), expected)
    sizes_HW = np.empty_like(sizes_WH)
    sizes_HW[where] = sizes_WH[:, ::-1]
    return sizes_HW


def _read_localization(metadata: Metadata, index: _Index) -> Metadata:
    """The metadata with its boxes or masks, whichever the first line shows."""
    path = metadata.folder / LOCALIZATION
    if not path.is_file() or not any((lines := _lines(path)).text):
        return metadata
    number, first = next((number, line) for number, line in enumerate(lines.text, 1) if line)
    if first.count(",") == 4:
        return _with_boxes(metadata, lines, index)
    if first.count(",") == 2:
        return replace(metadata, masks=_read_masks(lines, index))
    lines.refuse(number, "<id>,<x0>,<y0>,<x1>,<y1> or <id>,<mask file>,<ignore file>")


def _with_boxes(metadata: Metadata, lines: _Lines, index: _Index) -> Metadata:
    expected = "<id>,<x0>,<y0>,<x1>,<y1>, whole numbers of pixels"
    numbers, where, boxes = index.place_integers(lines, 4, expected, number=_SIGNED, once=False)
    _refuse_any(lines, numbers, (boxes < 0).any(1), "a box whose coordinates are at least 0")
    _refuse_any(lines, numbers, boxes[:, 2] < boxes[:, 0], "a box with x0 <= x1 (x0,y0,x1,y1)")
    _refuse_any(lines, numbers, boxes[:, 3] < boxes[:, 1], "a box with y0 <= y1 (x0,y0,x1,y1)")
    clipped = 0
    if metadata.sizes_HW is not None:
        size_WH = metadata.sizes_HW[where][:, ::-1]
        outside = (boxes[:, 2:] > size_WH).any(1) | (boxes[:, :2] >= size_WH).any(1)
        for row in np.flatnonzero(outside)[:1]:
            width, height = size_WH[row].tolist()
            lines.refuse(int(numbers[row]), f"a box inside its image, which is {width} wide and {height} high")
        last = np.minimum(boxes[:, 2:], size_WH - 1)
        clipped = int((last < boxes[:, 2:]).any(1).sum())
        boxes[:, 2:] = last
    order = np.argsort(where, kind="stable")  # lines of an image need not be contiguous
    counts = np.bincount(where, minlength=len(index.ids))
    return replace(
        metadata, boxes_M4=boxes[order], first_box=np.append(0, np.cumsum(counts)).astype(np.int64), clipped=clipped
    )


def _read_masks(lines: _Lines, index: _Index) -> list[MaskFiles]:
    masks: list[list[str]] = [[] for _ in index.ids]
    ignored = [""] * len(index.ids)
    expected = "<id>,<mask file>,<ignore file or nothing>"
    for number, image, (mask, ignore) in index.place(lines, "([^,]+),([^,]*)", expected):
        if not is_safe(mask) or (ignore and not is_safe(ignore)):
            lines.refuse(number, f"mask files as {EXPECTED}")
        if ignore and ignored[image] not in ("", ignore):
            lines.refuse(number, f"one ignore file per image, but an earlier line names {ignored[image]!r}")
        masks[image].append(mask)
        ignored[image] = ignore or ignored[image]
    return [MaskFiles(tuple(files), ignore) for files, ignore in zip(masks, ignored, strict=True)]


def _reduced(metadata: Metadata, index: _Index) -> Metadata:
    path = metadata.folder / PROXY_IDS
    chosen = _read_ids(path)
    unknown = next((id for id in chosen if id not in index.at), None)
    if unknown is not None:
        raise WsolbenchError(f"'{path}' lists {unknown!r}, expected ids of '{IDS}' in the same folder")
    return metadata.subset([index.at[id] for id in chosen])


def _refuse_any(lines: _Lines, numbers: Ints, wrong: npt.ArrayLike, expected: str) -> None:
    for row in np.flatnonzero(wrong)[:1]:
        lines.refuse(int(numbers[row]), expected)
