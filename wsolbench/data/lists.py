"""Lists of records, one a line: read, matched with image ids, and refused with file, line and value where they are wrong.

What every reader of a data set's lists shares, whatever the columns are.
"""
# n images, R records, M boxes of all images, H W image

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NoReturn, Protocol

import numpy as np
import numpy.typing as npt

from wsolbench.data.ids import EXPECTED, is_safe
from wsolbench.errors import WsolbenchError

NUMBER = "([0-9]{1,9})"
SIGNED = "(-?[0-9]{1,9})"
DECIMAL = r"(-?[0-9]{1,9}(?:\.[0-9]{1,9})?)"

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Complaints(Protocol):
    """Records that can say where the n-th of them stands, whatever kind of file they come from."""

    def refuse(self, number: int, expected: str) -> NoReturn:
        """Raise `WsolbenchError` about a record: file, place, the record itself and what was expected."""

    def refuse_any(self, numbers: Ints, wrong: npt.ArrayLike, expected: str) -> None:
        """Refuse the first record that is `wrong` [R]; `numbers` [R] are the records' own."""


@dataclass(frozen=True)
class Lines:
    """A text file as its lines, without line ends; line numbers count from 1."""

    path: Path
    text: list[str]

    def refuse(self, number: int, expected: str) -> NoReturn:
        """Raise `WsolbenchError` about the line: file, number, the line itself and what was expected."""
        shown = self.text[number - 1]
        shown = shown if len(shown) <= 160 else f"{shown[:160]}..."
        raise WsolbenchError(f"'{self.path}' line {number}: {shown!r}, expected {expected}")

    def refuse_any(self, numbers: Ints, wrong: npt.ArrayLike, expected: str) -> None:
        """Refuse the line of the first record that is `wrong` [R]; `numbers` [R] are the records' lines."""
        for row in np.flatnonzero(wrong)[:1]:
            self.refuse(int(numbers[row]), expected)


def read_lines(path: Path, expected: str) -> Lines:
    """Read a UTF-8 text file, with line ends of either kind; `expected` says what should lie there if it does not.

    Raises:
        WsolbenchError: the file cannot be read, or is not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise WsolbenchError(f"'{path}' is not a text file: byte {error.start} is not UTF-8") from error
    except OSError as error:
        raise WsolbenchError(f"file '{path}' cannot be read ({error.strerror}); expected {expected}") from error
    return Lines(path, text.replace("\r\n", "\n").split("\n"))


def ids_of(lines: Lines) -> list[str]:
    """The file's lines as ids, in order: safe ones, each once, at least one; blank lines do not count."""
    if (plain := _plain_ids(lines)) is not None:
        return plain
    first: dict[str, int] = {}
    for number, line in enumerate(lines.text, 1):
        if not line:
            continue
        if not is_safe(line):
            lines.refuse(number, EXPECTED)
        if first.setdefault(line, number) != number:
            lines.refuse(number, f"each id once, but line {first[line]} holds it too")
    if not first:
        raise WsolbenchError(f"'{lines.path}' lists no image; expected one id per line")
    return list(first)


def _plain_ids(lines: Lines) -> list[str] | None:
    """The lines of a file with nothing unusual in it, found so at one look: ImageNet's training list has 1.28 million."""
    ids = lines.text[:-1] if lines.text and not lines.text[-1] else lines.text
    text = "\n".join(ids)
    unusual = any(sign in text for sign in ("..", ":", "\\", "\n.", "\n/", "\n\n"))
    if unusual or text[:1] in ("", ".", "/") or not text.isascii() or not text.replace("\n", "").isprintable():
        return None
    return ids if len(set(ids)) == len(ids) else None


class Index:
    """Where the records of another file belong among the ids that `path` lists; a record starts with an id."""

    def __init__(self, path: Path, ids: Sequence[str], *, separator: str = ",") -> None:
        self.path, self.ids, self.separator = path, ids, separator

    @cached_property
    def at(self) -> dict[str, int]:
        """The place of each id."""
        return {id: index for index, id in enumerate(self.ids)}

    def place(self, lines: Lines, pattern: str, expected: str) -> Iterator[tuple[int, int, tuple[str, ...]]]:
        """Per record its line number, its image's index and its fields after the id; in the end every image had one."""
        match = re.compile(f"([^{self.separator}]+){self.separator}{pattern}").fullmatch
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
        self, lines: Lines, columns: int, expected: str, *, number: str = NUMBER, once: bool = True
    ) -> tuple[Ints, Ints, Ints]:
        """Line numbers [R], image indices [R] and values [R, columns] of all records; `once`: one record an image."""
        if once and (values := self._in_order(lines, columns, number)) is not None:
            return np.arange(1, len(self.ids) + 1), np.arange(len(self.ids)), values
        flat = array("q")  # not a list of tuples: lists can be long
        seen: set[int] = set()
        for line, index, fields in self.place(lines, self.separator.join([number] * columns), expected):
            if once and index in seen:
                lines.refuse(line, "one line per image, but an earlier line names this one too")
            seen.add(index)
            flat.append(line)
            flat.append(index)
            flat.extend(map(int, fields))
        table = np.array(flat, np.int64).reshape(-1, 2 + columns)
        return table[:, 0], table[:, 1], table[:, 2:]

    def _in_order(self, lines: Lines, columns: int, number: str) -> Ints | None:
        """The values of a file whose records stand in the order of the ids, as nearly all do; None: look closer."""
        text = lines.text[:-1] if lines.text and not lines.text[-1] else lines.text
        if len(text) != len(self.ids) or not all(map(str.startswith, text, self.ids)):
            return None
        rest = "\n".join([line[len(id) :] for line, id in zip(text, self.ids, strict=True)])
        record = f"(?:{self.separator}{number.replace('(', '(?:')}){{{columns}}}"
        if re.fullmatch(f"{record}(?:\n{record})*+", rest) is None:
            return None
        return np.array(re.split(f"[{self.separator}\n]+", rest)[1:], np.int64).reshape(-1, columns)

    def place_decimals(self, lines: Lines, columns: int, expected: str) -> tuple[Ints, Ints, Floats]:
        """As `place_integers`, one record an image, of numbers that may have a decimal point."""
        numbers, where, values = [], [], []
        seen: set[int] = set()
        for line, index, fields in self.place(lines, self.separator.join([DECIMAL] * columns), expected):
            if index in seen:
                lines.refuse(line, "one line per image, but an earlier line names this one too")
            seen.add(index)
            numbers.append(line)
            where.append(index)
            values.append([float(field) for field in fields])
        return np.array(numbers, np.int64), np.array(where, np.int64), np.array(values, np.float64)


def clip_boxes(boxes_N4: Ints, size_HW: tuple[int, int], where: str) -> Ints:
    """The boxes of one image, ended at its last pixel: x1 <= width - 1, y1 <= height - 1.

    Raises:
        WsolbenchError: a box starts outside of the image; the sentence starts with `where`.

    >>> clip_boxes(np.array([[2, 3, 50, 9]]), (10, 50), "'boxes.txt': image 'a.jpg'").tolist()
    [[2, 3, 49, 9]]
    """
    height, width = size_HW
    for x0, y0, x1, y1 in boxes_N4[(boxes_N4[:, 0] >= width) | (boxes_N4[:, 1] >= height)][:1].tolist():
        raise WsolbenchError(
            f"{where} has the box {x0},{y0},{x1},{y1} (x0,y0,x1,y1), which lies outside of the image: it is {width} wide "
            f"and {height} high"
        )
    return np.minimum(boxes_N4, [width, height, width - 1, height - 1])


def boxes_per_image(
    lines: Complaints, numbers: Ints, where: Ints, boxes_M4: Ints, sizes_HW: Ints | None, images: int
) -> tuple[Ints, Ints, int]:
    """Check the boxes of all images, clip them to the last pixel, and put those of an image in one piece.

    Args:
        lines: the file or files they come from, for complaints.
        numbers: the line of each box [M].
        where: the index of each box's image [M]; the lines of an image need not be contiguous.
        boxes_M4: (x0, y0, x1, y1) in original pixels, x1 = x0 + width.
        sizes_HW: of the images [n, 2]; None: unknown, nothing is clipped and no box is called outside.
        images: n.

    Returns:
        boxes [M, 4]; first [n + 1], the boxes of image i being rows first[i] .. first[i + 1] - 1; how many were clipped.

    Raises:
        WsolbenchError: a box is negative, upside down or outside of its image.
    """
    lines.refuse_any(numbers, (boxes_M4 < 0).any(1), "a box whose coordinates are at least 0")
    lines.refuse_any(numbers, boxes_M4[:, 2] < boxes_M4[:, 0], "a box with x0 <= x1 (x0,y0,x1,y1)")
    lines.refuse_any(numbers, boxes_M4[:, 3] < boxes_M4[:, 1], "a box with y0 <= y1 (x0,y0,x1,y1)")
    clipped = 0
    if sizes_HW is not None:
        size_WH = sizes_HW[where][:, ::-1]
        outside = (boxes_M4[:, 2:] > size_WH).any(1) | (boxes_M4[:, :2] >= size_WH).any(1)
        for row in np.flatnonzero(outside)[:1]:
            width, height = size_WH[row].tolist()
            lines.refuse(int(numbers[row]), f"a box inside its image, which is {width} wide and {height} high")
        last = np.minimum(boxes_M4[:, 2:], size_WH - 1)
        clipped = int((last < boxes_M4[:, 2:]).any(1).sum())
        boxes_M4 = np.concatenate([boxes_M4[:, :2], last], axis=1)
    counts = np.bincount(where, minlength=images)
    return boxes_M4[np.argsort(where, kind="stable")], np.append(0, np.cumsum(counts)).astype(np.int64), clipped
