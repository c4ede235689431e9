"""Boxes from PASCAL VOC's format: one XML file per image, `object/name` and `object/bndbox/xmin,ymin,xmax,ymax`.

Source: Everingham et al., The PASCAL Visual Object Classes Challenge, devkit 2012. A file belongs to the image of the same
name, beside it or below annotations/; the path inside the file is not read, it is that of someone else's disk. Corners are
taken as they are, as those of ILSVRC are by the reference evaluator: without a shift by one.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from wsolbench.errors import WsolbenchError
from wsolbench_datasets.folder.box_records import BoxFile, BoxRecord, Place, SizeRecord, whole_pixels
from wsolbench_datasets.formats.voc import CORNERS, parse_annotation


def read_boxes_voc(files: Iterable[tuple[int, Path]], source: Path) -> BoxFile:
    """The boxes of the XML files of images, each given with the index of its image."""
    boxes: list[BoxRecord] = []
    sizes: dict[int, SizeRecord] = {}
    first: dict[int, Path] = {}
    for image, path in files:
        if first.setdefault(image, path) != path:
            raise WsolbenchError(f"'{path}' and '{first[image]}' are about the same image: keep one of them")
        tree = parse_annotation(path)
        if (size := tree.find("size")) is not None:
            place = _place(path, "size", size)
            width, height = whole_pixels(
                [size.findtext(name) for name in ("width", "height")], place, "width and height"
            )
            if width and height:  # some tools write 0 for what they do not know
                sizes[image] = SizeRecord(width, height, place)
        for number, entry in enumerate(tree.iter("object"), 1):
            box = entry.find("bndbox")
            if box is None:
                _place(path, f"object {number}", entry).refuse("a 'bndbox' with xmin, ymin, xmax, ymax")
            place = _place(path, f"object {number}, bndbox", box)
            four = "four numbers of pixels, xmin, ymin, xmax, ymax"
            x0, y0, x1, y1 = whole_pixels([box.findtext(name) for name in CORNERS], place, four)
            name = (entry.findtext("name") or "").strip() or None
            boxes.append(BoxRecord(image, (x0, y0, x1, y1), place, name))
    return BoxFile(source, boxes, sizes)


def _place(path: Path, where: str, element: ElementTree.Element) -> Place:
    return Place(path, where, " ".join(ElementTree.tostring(element, encoding="unicode").split()))
