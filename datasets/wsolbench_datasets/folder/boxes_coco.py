"""Boxes from COCO's object detection format: JSON with `images`, `annotations` (bbox: x, y, width, height) and `categories`.

Source: https://cocodataset.org/#format-data. Crowd regions (iscrowd = 1) are no boxes of an object and are left out;
segmentations are not read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wsolbench.data.lists import read_lines
from wsolbench.errors import WsolbenchError
from wsolbench_datasets.folder.box_records import BoxFile, BoxRecord, Place, SizeRecord, whole_pixels
from wsolbench_datasets.folder.names import ImageNames
from wsolbench_datasets.folder.tree import SPLITS


def read_boxes_coco(paths: Sequence[Path], names: ImageNames, source: Path) -> BoxFile:
    """The boxes of one or more files (one per split, say); no image may stand in two of them."""
    boxes: list[BoxRecord] = []
    sizes: dict[int, SizeRecord] = {}
    first: dict[int, Place] = {}
    for path in paths:
        content = _read(path)
        image_of = _read_images(content, path, names, sizes, first)
        categories = _read_categories(content, path)
        boxes += _read_annotations(content, path, image_of, categories)
    return BoxFile(source, boxes, sizes)


def _read(path: Path) -> dict[str, Any]:
    text = "\n".join(read_lines(path, "a COCO file").text)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise WsolbenchError(f"'{path}' line {error.lineno}: {error.msg}, expected JSON") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a nesting of thousands of lists
        raise WsolbenchError(f"'{path}' cannot be read as JSON: {error}") from error
    for key in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise WsolbenchError(
                f"'{path}' is no COCO file: expected an object with the lists 'images' and 'annotations'"
            )
    assert isinstance(content, dict)
    return content


def _read_images(
    content: dict[str, Any], path: Path, names: ImageNames, sizes: dict[int, SizeRecord], first: dict[int, Place]
) -> dict[object, int]:
    """The image at each id of the file."""
    image_of: dict[object, int] = {}
    words = re.split("[^a-z]+", path.stem.lower())
    split = next((split for split in SPLITS if split in words), "")  # instances_val.json, test2017.json
    for number, entry in enumerate(content["images"]):
        place = _place(path, f"images[{number}]", entry)
        if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str) or not _is_id(entry.get("id")):
            place.refuse("an object with 'id' and 'file_name'")
        if entry["id"] in image_of:
            place.refuse(f"each id once, but {entry['id']!r} was used before")
        named = _place(path, f"images[{number}].file_name", entry["file_name"])
        image = image_of[entry["id"]] = names.find(entry["file_name"], named.refuse, split)
        if (earlier := first.setdefault(image, named)) is not named:
            named.refuse(f"each image once, but '{earlier.path}' {earlier.where} names it too")
        if entry.get("width") is not None or entry.get("height") is not None:
            width, height = whole_pixels((entry.get("width"), entry.get("height")), place, "whole 'width' and 'height'")
            sizes[image] = SizeRecord(width, height, place)
    return image_of


def _read_categories(content: dict[str, Any], path: Path) -> dict[object, str]:
    categories: dict[object, str] = {}
    entries = content.get("categories", [])
    for number, entry in enumerate(entries if isinstance(entries, list) else [entries]):
        place = _place(path, f"categories[{number}]", entry)
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not _is_id(entry.get("id")):
            place.refuse("an object with 'id' and 'name'")
        if entry["id"] in categories:
            place.refuse(f"each id once, but {entry['id']!r} was used before")
        categories[entry["id"]] = entry["name"]
    return categories


def _read_annotations(
    content: dict[str, Any], path: Path, image_of: dict[object, int], categories: dict[object, str]
) -> list[BoxRecord]:
    boxes = []
    for number, entry in enumerate(content["annotations"]):
        where = f"annotations[{number}]"
        if not isinstance(entry, dict) or "bbox" not in entry or not _is_id(entry.get("image_id")):
            _place(path, where, entry).refuse("an object with 'image_id' and 'bbox'")
        if entry.get("iscrowd"):
            continue
        if entry["image_id"] not in image_of:
            _place(path, f"{where}.image_id", entry["image_id"]).refuse("the id of an image of this file")
        place = _place(path, f"{where}.bbox", entry["bbox"])
        four = "four numbers of pixels, [x, y, width, height], width and height at least 0"
        if not isinstance(entry["bbox"], list) or len(entry["bbox"]) != 4:
            place.refuse(four)
        whole_pixels(entry["bbox"], place, four)
        x, y, width, height = (float(value) for value in entry["bbox"])
        if width < 0 or height < 0:
            place.refuse(four)
        x0, y0, x1, y1 = whole_pixels((x, y, x + width, y + height), place, four)
        category = entry.get("category_id")
        if category is not None and (not _is_id(category) or category not in categories):
            _place(path, f"{where}.category_id", category).refuse("the id of a category of this file")
        boxes.append(BoxRecord(image_of[entry["image_id"]], (x0, y0, x1, y1), place, categories.get(category)))
    return boxes


def _is_id(value: object) -> bool:
    return isinstance(value, int | str)


def _place(path: Path, where: str, entry: object) -> Place:
    return Place(path, where, json.dumps(entry, ensure_ascii=False) if not isinstance(entry, str) else entry)
