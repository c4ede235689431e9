"""The lists that come with ImageNet's archives: classes, and labels and boxes of its 50,000 validation images."""
# n images, M boxes of all images

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsolbench.data.lists import Ints, Lines, read_lines
from wsolbench.errors import WsolbenchError
from wsolbench_datasets.formats.mat import MatFile
from wsolbench_datasets.formats.voc import read_voc

WNID = re.compile(r"n\d{8}")
META = "meta.mat"
_RECORD = re.compile(r"(ILSVRC2012_val_\d{8}),((?:n\d{8}(?: \d{1,9}){4} ?)+)")


def read_mapping(path: Path) -> list[str]:
    """WordNet ids of LOC_synset_mapping.txt: one a line, names after it."""
    lines = read_lines(path, "<wnid> <names> per line")
    wnids: dict[str, int] = {}
    for number, line in enumerate(lines.text, 1):
        wnid = line.partition(" ")[0]
        if line and (not WNID.fullmatch(wnid) or wnids.setdefault(wnid, number) != number):
            lines.refuse(number, "<wnid> <names>, each once, e.g. 'n01440764 tench, Tinca tinca'")
    return list(wnids)


def read_devkit(path: Path) -> dict[int, str]:
    """The devkit's numbers of classes, in an order of its own, and their WordNet ids, from meta.mat."""
    mat = MatFile(path)
    devkit: dict[int, str] = {}
    records = mat.records("synsets", ("WNID",), ("ILSVRC2012_ID", "num_children"))
    for at, record in enumerate(records, 1):
        number, wnid = record["ILSVRC2012_ID"], record["WNID"]
        if record["num_children"]:  # no class but a node above classes
            continue
        if not WNID.fullmatch(wnid) or number in devkit or wnid in devkit.values():
            raise mat.refuse(at, "synsets", f"class {number} is '{wnid}'", "one WordNet id per number, each once")
        devkit[number] = wnid
    return devkit


def read_truth(path: Path, devkit: dict[int, str]) -> dict[str, str]:
    """WordNet ids of the validation images, from one of the devkit's numbers a line: line 1 is ILSVRC2012_val_00000001."""
    lines = read_lines(path, "one class per line")
    last = max((number for number, line in enumerate(lines.text, 1) if line), default=0)
    told: dict[str, str] = {}
    for number, line in enumerate(lines.text[:last], 1):
        if not re.fullmatch(r"\d{1,6}", line.strip()) or int(line) not in devkit:
            lines.refuse(number, f"a class of {META} as a number from 1 to {max(devkit, default=0)}")
        told[f"ILSVRC2012_val_{number:08d}"] = devkit[int(line)]
    if not told:
        raise WsolbenchError(f"'{path}' is empty; expected one class per line")
    return told


@dataclass(frozen=True)
class Solution:
    """LOC_val_solution.csv: per image the WordNet id of its first object; per object of it line, image and box."""

    lines: Lines
    wnids: dict[str, str]
    numbers: Ints  # [M], lines
    names: list[str]  # [M], images
    boxes_M4: Ints


def read_solution(path: Path) -> Solution:
    """Read `ImageId,PredictionString`, the latter one or more `<wnid> <xmin> <ymin> <xmax> <ymax>`, in any order of lines."""
    lines = read_lines(path, "ImageId,PredictionString per line")
    wnids: dict[str, str] = {}
    numbers, names, boxes = [], [], []
    for number, line in enumerate(lines.text, 1):
        if not line or (number == 1 and line.startswith("ImageId")):
            continue
        found = _RECORD.fullmatch(line)
        if found is None:
            lines.refuse(number, "ILSVRC2012_val_<8 digits>,<wnid> <xmin> <ymin> <xmax> <ymax> ...")
        name, objects = found.groups()
        fields = objects.split()
        if name in wnids:
            lines.refuse(number, "one line per image, but an earlier line names this one too")
        wnids[name] = fields[0]
        for start in range(0, len(fields), 5):
            if fields[start] == fields[0]:
                numbers.append(number)
                names.append(name)
                boxes.append([int(field) for field in fields[start + 1 : start + 5]])
    if not wnids:
        raise WsolbenchError(f"'{path}' is empty; expected ImageId,PredictionString per line")
    return Solution(lines, wnids, np.array(numbers, np.int64), names, np.array(boxes, np.int64))


def read_xml_labels(folder: Path, names: list[str]) -> dict[str, str]:
    """WordNet ids of images from their annotation files: thousands of files, the last resort."""
    told = {}
    for name in names:
        path = folder / f"{name}.xml"
        wnid = next((each for each in read_voc(path).names if WNID.fullmatch(each)), None)
        if wnid is None:
            raise WsolbenchError(f"annotation '{path}' names no class; expected <object><name>nXXXXXXXX</name>")
        told[name] = wnid
    return told
