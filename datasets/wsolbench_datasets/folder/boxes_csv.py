"""Boxes from a CSV file: a header with the columns id, x0, y0, x1, y1, then a line per box; `#` starts a comment line.

Also the reader of other lists with a header, such as `id,split`. Quotes are those of CSV: "val/cat/a, b.jpg".
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from wsolbench.data.lists import read_lines
from wsolbench_datasets.folder.box_records import BoxFile, BoxRecord, Place, whole_pixels
from wsolbench_datasets.folder.names import ImageNames

COLUMNS = ("id", "x0", "y0", "x1", "y1")


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[Place, list[str]]]:
    """Place and fields of each record, in the order of `columns`; other columns are left out.

    Raises:
        WsolbenchError: the file cannot be read, is not UTF-8, has another header, or a line has another number of fields.
    """
    header: list[str] | None = None
    expected = f"a header with the columns {','.join(columns)}"
    for number, line in enumerate(read_lines(path, expected).text, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        place = Place(path, f"line {number}", line)
        try:
            (fields,) = csv.reader([line], strict=True)
        except (csv.Error, ValueError):
            place.refuse("comma-separated fields, quotes closed on the same line")
        fields = [field.strip() for field in fields]
        if header is None:
            if len(set(fields)) < len(fields) or not set(columns) <= set(fields):
                place.refuse(expected)
            header = fields
            continue
        if len(fields) != len(header):
            place.refuse(f"{len(header)} fields, {','.join(header)}")
        yield place, [fields[header.index(column)] for column in columns]


def read_boxes_csv(path: Path, names: ImageNames) -> BoxFile:
    """The boxes of a CSV file; several lines may be about one image, in any order."""
    boxes: list[BoxRecord] = []
    first: dict[tuple[int, ...], Place] = {}
    for place, (id, *values) in read_table(path, COLUMNS):
        image = names.find(id, place.refuse)
        x0, y0, x1, y1 = whole_pixels(values, place, "four numbers of pixels, x0,y0,x1,y1")
        if (earlier := first.setdefault((image, x0, y0, x1, y1), place)) is not place:
            place.refuse(f"each box once, but {earlier.where} holds it too")
        boxes.append(BoxRecord(image, (x0, y0, x1, y1), place))
    return BoxFile(path, boxes, {})
