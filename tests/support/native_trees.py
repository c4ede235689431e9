"""Miniature archives of the real data sets, in the exact layout they unpack to, with the oddities the real ones have.

CUB and ILSVRC are made from a tree in the reference layout (`reference_trees`), so that both carry the same annotation.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image
from reference_trees import BIRDS, WNIDS, Tree, random_boxes, write_image
from scipy.io import savemat

DEVKIT_ORDER = (WNIDS[2], WNIDS[0], WNIDS[1])  # class 1, 2, 3 of the devkit
BREEDS = ("n02085620-Chihuahua", "n02085782-Japanese_spaniel", "n02112706-Brabancon_griffon")
CARS = ("AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012", "Volvo C30 Hatchback 2012")
VARIANTS = ("707-320", "F-16A/B", "Cessna 208")  # in the order of the file, which is no sorted order


@dataclass
class Archive:
    """What was written: per split the ids in order; labels, sizes (width, height) and boxes (as they should be read) by id."""

    root: Path
    ids: dict[str, list[str]] = field(default_factory=lambda: {"train": [], "test": []})
    labels: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    boxes: dict[str, list[list[int]]] = field(default_factory=dict)


def write_lines(path: Path, lines: list[str]) -> None:
    """Without an end of the last line, as some of the real files are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines), encoding="utf-8")


# --- CUB -------------------------------------------------------------------------------------------------------------


def write_cub(tree: Tree, root: Path) -> Path:
    """CUB_200_2011/ with train and test of the tree, mixed; a box that the reference clips may exceed its image here."""
    folder = root / "CUB_200_2011"
    ids = [id for pair in zip(tree.ids["train"], tree.ids["test"], strict=True) for id in pair]
    rows: dict[str, list[str]] = {
        name: [] for name in ("images", "image_class_labels", "train_test_split", "bounding_boxes")
    }
    for number, id in enumerate(ids, 1):
        _copy(tree.images / id, folder / "images" / id)
        ((x0, y0, x1, y1),) = tree.boxes[id]
        width, height = tree.sizes[id]
        x1 += number % 4 if x1 == width - 1 else 0
        y1 += number % 3 if y1 == height - 1 else 0
        rows["images"].append(f"{number} {id}")
        rows["image_class_labels"].append(f"{number} {tree.labels[id] + 1}")
        rows["train_test_split"].append(f"{number} {int(id in tree.ids['train'])}")
        rows["bounding_boxes"].append(f"{number} {x0}.0 {y0}.0 {x1 - x0}.0 {y1 - y0}.0")
    for name, lines in rows.items():
        write_lines(folder / f"{name}.txt", lines)
    write_lines(folder / "classes.txt", [f"{number} {name}" for number, name in enumerate(BIRDS, 1)])
    return folder


def write_segmentations(tree: Tree, folder: Path) -> None:
    """Grey by how many of five annotators marked a pixel, 51 each: the left third by two, the middle by three."""
    for split in ("train", "test"):
        for id in tree.ids[split]:
            width, height = tree.sizes[id]
            marks = np.repeat(np.array([[2, 3, 5]], np.uint8) * 51, height, 0)
            path = folder / "segmentations" / PurePosixPath(id).with_suffix(".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(marks).resize((width, height), Image.Resampling.NEAREST).save(path)


# --- ILSVRC ----------------------------------------------------------------------------------------------------------


def write_ilsvrc(
    tree: Tree,
    root: Path,
    *,
    boxes: str = "xml",
    labels: str = "solution",
    sorted_val: bool = False,
    mapping: bool = True,
    v2: str = "imagenetv2-threshold0.7-format-val",
    base: str = "ILSVRC/Data/CLS-LOC",
) -> Path:
    """ImageNet's archives. boxes: "xml" or "solution"; labels: "solution", "devkit", "folders" or "xml"."""
    for id in tree.ids["train"]:
        _copy(tree.images / id, root / base / id)
    for id in tree.ids["test"]:
        wnid = WNIDS[tree.labels[id]]
        file = PurePosixPath("val", wnid, PurePosixPath(id).name) if sorted_val else id
        _copy(tree.images / id, root / base / file)
    for id in tree.ids["val"]:
        _copy(tree.images / id, root / base / v2 / id.removeprefix("val2/"))
    located = [
        f"{id.removeprefix('val2/')},{','.join(map(str, unclipped(box, tree.sizes[id])))}"
        for id in tree.ids["val"]
        for box in tree.boxes[id]
    ]
    write_lines(root / "release" / "ImageNetV2_boxes.txt", ["image_id,x0,y0,x1,y1", *located])
    if mapping:
        write_lines(root / "LOC_synset_mapping.txt", [f"{wnid} name, another name" for wnid in WNIDS])
    if "solution" in (boxes, labels):
        write_solution(tree, root / "LOC_val_solution.csv")
    if boxes == "xml":
        for id in tree.ids["test"]:
            write_voc(
                root / "ILSVRC" / "Annotations" / "CLS-LOC" / "val" / f"{PurePosixPath(id).stem}.xml",
                PurePosixPath(id).stem,
                tree.sizes[id],
                [unclipped(box, tree.sizes[id]) for box in tree.boxes[id]],
                WNIDS[tree.labels[id]],
            )
    if labels == "devkit":
        data = root / "ILSVRC2012_devkit_t12" / "data"
        numbers = [str(DEVKIT_ORDER.index(WNIDS[tree.labels[id]]) + 1) for id in sorted(tree.ids["test"])]
        write_lines(data / "ILSVRC2012_validation_ground_truth.txt", numbers)
        write_meta(data / "meta.mat")
    return root


def unclipped(box: list[int], size: tuple[int, int]) -> list[int]:
    """The box as archives have it: one that reaches the last pixel ends at x1 = width or y1 = height."""
    x0, y0, x1, y1 = box
    return [x0, y0, size[0] if x1 == size[0] - 1 else x1, size[1] if y1 == size[1] - 1 else y1]


def write_solution(tree: Tree, path: Path) -> None:
    """Kaggle's list, in an order of its own, a blank at the end of each line."""
    lines = []
    for id in reversed(tree.ids["test"]):
        wnid = WNIDS[tree.labels[id]]
        objects = [f"{wnid} {' '.join(map(str, unclipped(box, tree.sizes[id])))} " for box in tree.boxes[id]]
        lines.append(f"{PurePosixPath(id).stem},{''.join(objects)}")
    write_lines(path, ["ImageId,PredictionString", *lines])


def write_meta(path: Path) -> None:
    """The devkit's classes, and a node above them."""
    rows = [(number, wnid, 0) for number, wnid in enumerate(DEVKIT_ORDER, 1)] + [(4, "n00001740", 3)]
    write_records(
        path, "synsets", [dict(zip(("ILSVRC2012_ID", "WNID", "num_children"), row, strict=True)) for row in rows]
    )


def write_voc(path: Path, image: str, size: tuple[int, int], boxes: list[list[int]], name: str) -> None:
    objects = "".join(
        f"<object><name>{name}</name><pose>Unspecified</pose><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
        f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>\n"
        for x0, y0, x1, y1 in boxes
    )
    write_lines(
        path,
        [
            f"<annotation>\n<folder>val</folder><filename>{image}</filename>",
            f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>\n{objects}</annotation>",
        ],
    )


# --- sets without a val split ----------------------------------------------------------------------------------------


def write_dogs(root: Path, per_class: int = 6, seed: int = 0) -> Archive:
    """Stanford Dogs: annotation without an extension, lists numbered from 1, up to three boxes; sizes differ here and there."""
    rng, archive = np.random.default_rng(seed), Archive(root)
    for label, breed in enumerate(BREEDS):
        for number in range(per_class):
            split = "test" if number % 3 == 2 else "train"
            stem = f"{breed.partition('-')[0]}_{number * 17 + label}"
            id = f"{breed}/{stem}.jpg"
            size, boxes = _picture(archive, split, id, label, root / "Images" / id, rng, count=1 + number % 3)
            told = (size[0] + 1, size[1]) if number == 4 else size
            name = "%s" if number == 3 else stem
            write_voc(
                root / "Annotation" / breed / stem,
                name,
                told,
                [unclipped(box, size) for box in boxes],
                breed.partition("-")[2],
            )
    for split in ("train", "test"):
        ids = archive.ids[split]
        cells = np.empty((len(ids), 2), object)
        for row, id in enumerate(ids):
            cells[row] = id, id.removesuffix(".jpg")
        numbers = np.array([[archive.labels[id] + 1] for id in ids], np.uint8)
        savemat(
            root / f"{split}_list.mat",
            {"file_list": cells[:, :1], "annotation_list": cells[:, 1:], "labels": numbers},
            do_compression=True,
        )
    return archive


def write_cars(root: Path, merged: bool, per_class: int = 6, seed: int = 0) -> Archive:
    """Stanford Cars in either form: boxes from 1, some up to x2 = width, one of train beyond its image."""
    rng, archive = np.random.default_rng(seed), Archive(root)
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    for number in range(per_class * len(CARS)):
        label, split = number % len(CARS), "test" if number % 4 == 3 else "train"
        name = f"{number + 1:06d}.jpg" if merged else f"{len(rows[split]) + 1:05d}.jpg"
        id = f"car_ims/{name}" if merged else f"cars_{split}/{name}"
        size, ((x0, y0, x1, y1),) = _picture(archive, split, id, label, root / id, rng)
        if number == 4:
            x1 = archive.boxes[id][0][2] = size[0] - 1
        beyond = 40 if number == 4 else 0
        row: dict[str, Any] = {"bbox_x1": x0 + 1, "bbox_y1": y0 + 1, "bbox_x2": x1 + 1 + beyond, "bbox_y2": y1 + 1}
        row["class"] = label + 1
        rows[split].append(
            {"relative_im_path": id, **row, "test": int(split == "test")} if merged else row | {"fname": name}
        )
    names = np.empty((1, len(CARS)), object)
    names[0] = CARS
    if merged:
        all_rows = sorted(rows["train"] + rows["test"], key=lambda row: row["relative_im_path"])
        write_records(root / "cars_annos.mat", "annotations", all_rows, class_names=names)
    else:
        write_records(root / "devkit" / "cars_train_annos.mat", "annotations", rows["train"])
        write_records(root / "devkit" / "cars_test_annos_withlabels.mat", "annotations", rows["test"])
        savemat(root / "devkit" / "cars_meta.mat", {"class_names": names})
    return archive


def write_aircraft(root: Path, per_class: int = 6, seed: int = 0, first: int = 1) -> Archive:
    """FGVC-Aircraft: variants with blanks and slashes, boxes counted from `first`, train and val apart."""
    rng, archive = np.random.default_rng(seed), Archive(root)
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    located = []
    data = root / "fgvc-aircraft-2013b" / "data"
    for number in range(per_class * len(VARIANTS)):
        label, part = number % len(VARIANTS), ("train", "val", "test")[number // len(VARIANTS) % 3]
        stem = f"{(number * 7919 + 34309) % 10**7:07d}"
        _, ((x0, y0, x1, y1),) = _picture(
            archive, "test" if part == "test" else "train", f"{stem}.jpg", label, data / "images" / f"{stem}.jpg", rng
        )
        lists[part].append(f"{stem} {VARIANTS[label]}")
        located.append(f"{stem} {x0 + first} {y0 + first} {x1 + first} {y1 + first}")
    if first == 0:  # a file that counts from 0 shows it
        stem, _, y0, x1, y1 = located[0].split(" ")
        located[0] = f"{stem} 0 {y0} {x1} {y1}"
        archive.boxes[f"{stem}.jpg"][0][0] = 0
    archive.ids["train"] = [f"{line.split(' ')[0]}.jpg" for part in ("train", "val") for line in lists[part]]
    for part, lines in lists.items():
        write_lines(data / f"images_variant_{part}.txt", lines)
    write_lines(data / "variants.txt", list(VARIANTS))
    write_lines(data / "images_box.txt", sorted(located))
    return archive


def write_records(path: Path, name: str, rows: list[dict[str, Any]], **variables: Any) -> None:
    """A struct array, as MATLAB saves it."""
    table = np.empty((1, len(rows)), dtype=[(key, object) for key in rows[0]])
    for column, row in enumerate(rows):
        table[0, column] = tuple(row.values())
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {name: table, **variables})


def _picture(
    archive: Archive, split: str, id: str, label: int, path: Path, rng: np.random.Generator, count: int = 1
) -> tuple[tuple[int, int], list[list[int]]]:
    size = (int(rng.integers(40, 90)), int(rng.integers(40, 90)))
    write_image(path, size, len(archive.labels), rng)
    archive.ids[split].append(id)
    archive.labels[id], archive.sizes[id] = label, size
    archive.boxes[id] = random_boxes(size, count, rng)
    return size, archive.boxes[id]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
