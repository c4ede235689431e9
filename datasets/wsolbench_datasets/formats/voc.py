"""Annotation files in the XML of PASCAL VOC, as ImageNet and Stanford Dogs have them: one per image, one object or more.

Files come from strangers, so document types are refused: with them go entities, which can blow up a parser (a "billion
laughs") or name other files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from wsolbench.data.lists import DECIMAL, Ints
from wsolbench.errors import WsolbenchError

LARGEST = 4 << 20  # bytes; ImageNet's largest file of boxes is a few thousand
CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class VocFile:
    """What a file says: the image's name, (height, width) if it is there, and per object its name and box [N, 4]."""

    image: str
    size_HW: tuple[int, int] | None
    names: tuple[str, ...]
    boxes_N4: Ints  # xmin, ymin, xmax, ymax as they stand in the file, fractions cut off


def read_voc(path: Path) -> VocFile:
    """Read an annotation file.

    Raises:
        WsolbenchError: it is missing, no XML, too large, has a document type, has no object, or an object's box cannot be right.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.xml")
    >>> box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>"
    >>> _ = path.write_text(f"<annotation><filename>a</filename><object><name>cat</name>{box}</object></annotation>")
    >>> read_voc(path).names, read_voc(path).boxes_N4.tolist()
    (('cat',), [[1, 2, 30, 40]])
    """
    root = parse_annotation(path)
    objects = root.findall("object")
    if not objects:
        raise WsolbenchError(f"annotation '{path}' has no object; expected at least one <object> with a <bndbox>")
    boxes = [_box(path, number, each.find("bndbox")) for number, each in enumerate(objects, 1)]
    names = tuple((each.findtext("name") or "").strip() for each in objects)
    size = [root.findtext(f"size/{side}") for side in ("height", "width")]
    known = [int(text) for text in size if text is not None and re.fullmatch(r"\s*[1-9][0-9]{0,6}\s*", text)]
    size_HW = (known[0], known[1]) if len(known) == 2 else None
    return VocFile((root.findtext("filename") or "").strip(), size_HW, names, np.array(boxes, np.int64))


def parse_annotation(path: Path) -> ElementTree.Element:
    """The root of an annotation file, <annotation>; `WsolbenchError` if it is anything else, or not to be trusted."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise WsolbenchError(f"annotation '{path}' has more than {LARGEST} bytes; expected the boxes of one image")
        text = content.decode("utf-8-sig")  # decoded here: no encoding that the file declares can hide a document type
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise WsolbenchError(
                f"annotation '{path}' declares a document type or entities; expected plain annotation XML"
            )
        root = ElementTree.fromstring(text)
    except UnicodeDecodeError as error:
        raise WsolbenchError(f"annotation '{path}' is not a text file: byte {error.start} is not UTF-8") from error
    except OSError as error:
        raise WsolbenchError(f"annotation '{path}' cannot be read: {error.strerror}") from error
    except (ElementTree.ParseError, ValueError) as error:
        raise WsolbenchError(f"annotation '{path}' is not XML: {error}") from error
    if root.tag != "annotation":
        raise WsolbenchError(f"annotation '{path}' is of another kind: its root is <{root.tag}>, expected <annotation>")
    return root


def _box(path: Path, number: int, element: ElementTree.Element | None) -> list[int]:
    texts = [(element.findtext(corner) or "").strip() if element is not None else "" for corner in CORNERS]
    where = f"annotation '{path}' object {number}: box {','.join(texts)}"
    if not all(re.fullmatch(DECIMAL, text) for text in texts):
        raise WsolbenchError(f"{where}, expected the numbers xmin, ymin, xmax, ymax")
    x0, y0, x1, y1 = (int(float(text)) for text in texts)
    if min(x0, y0) < 0:
        raise WsolbenchError(f"{where}, expected coordinates of at least 0")
    if x1 < x0 or y1 < y0:
        raise WsolbenchError(f"{where}, expected xmin <= xmax and ymin <= ymax")
    return [x0, y0, x1, y1]
