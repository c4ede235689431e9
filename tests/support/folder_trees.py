"""Miniature folders of a user's own images: a bright rectangle (the object) on noise, with boxes in any of the formats."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("cat", "dog", "Große Vögel")  # a space and letters outside of ASCII
NAMES = ("a.jpg", "b 2.JPG", "deep/er/c.jpeg", "d.png", "é.webp", "f.bmp")
FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP"}
COUNTS = {"train": 6, "val": 4, "test": 4}


@dataclass
class FolderTree:
    """What was written: per split the ids in order, and by id the size (width, height) and the box (x0, y0, x1, y1)."""

    root: Path
    ids: dict[str, list[str]] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    boxes: dict[str, list[int]] = field(default_factory=dict)

    @property
    def scored(self) -> list[str]:
        return [id for split in ("val", "test") for id in self.ids.get(split, [])]

    def class_of(self, id: str) -> str:
        return id.split("/")[1]

    def write_csv(self, name: str = "boxes.csv", ids: list[str] | None = None) -> Path:
        path = self.root / name
        lines = [f"{id},{','.join(map(str, self.boxes[id]))}" for id in (self.scored if ids is None else ids)]
        path.write_text("\n".join(["id,x0,y0,x1,y1", *lines]), encoding="utf-8")
        return path

    def coco(self, ids: list[str]) -> dict[str, list[dict[str, object]]]:
        categories = [*CLASSES]
        images, annotations = [], []
        for number, id in enumerate(ids):
            x0, y0, x1, y1 = self.boxes[id]
            width, height = self.sizes[id]
            images.append({"id": number + 7, "file_name": id, "width": width, "height": height})
            category = categories.index(self.class_of(id)) + 1
            box = [float(x0), y0 + 0.25, x1 - x0, y1 - y0]
            annotations.append({"id": number, "image_id": number + 7, "category_id": category, "bbox": box})
        named = [{"id": number, "name": name} for number, name in enumerate(categories, 1)]
        return {"images": images, "annotations": annotations, "categories": named}

    def write_coco(self, name: str = "annotations.json", ids: list[str] | None = None) -> Path:
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(self.coco(self.scored if ids is None else ids)))
        return path

    def write_voc(self, below: str = "") -> list[Path]:
        """One XML file per scored image, beside it or in a folder `below` the root."""
        written = []
        for id in self.scored:
            path = (self.root / below / id).with_suffix(".xml")
            path.parent.mkdir(parents=True, exist_ok=True)
            width, height = self.sizes[id]
            corners = zip(("xmin", "ymin", "xmax", "ymax"), self.boxes[id], strict=True)
            box = "".join(f"<{name}>{value}</{name}>" for name, value in corners)
            path.write_text(
                f"<annotation>\n<path>C:\\\\me\\\\{path.stem}.jpg</path>"
                f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
                f"<object><name>{self.class_of(id)}</name><bndbox>{box}</bndbox></object></annotation>",
                encoding="utf-8",
            )
            written.append(path)
        return written

    def write_masks(self, name: str = "masks", value: int = 255) -> list[Path]:
        written = []
        for id in self.scored:
            width, height = self.sizes[id]
            x0, y0, x1, y1 = self.boxes[id]
            mask = np.zeros((height, width), np.uint8)
            mask[y0 : y1 + 1, x0 : x1 + 1] = value
            path = (self.root / name / id).with_suffix(".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(path)
            written.append(path)
        return written


def write_folder(root: Path, *, splits: bool = True, counts: dict[str, int] = COUNTS, seed: int = 0) -> FolderTree:
    """Write images of all splits, without ground truth; `splits` False: one tree of class folders, all "train".

    `counts`: images per class of each split.
    """
    rng = np.random.default_rng(seed)
    tree = FolderTree(root)
    for split, count in counts.items() if splits else [("train", 10)]:
        ids = []
        for name in CLASSES:
            for number in range(count):
                stem = NAMES[number % len(NAMES)]
                id = f"{split}/{name}/{'more/' if number >= len(NAMES) else ''}{stem}"
                width, height = (int(value) for value in rng.integers(40, 90, 2))
                x0, y0 = int(rng.integers(0, width // 2)), int(rng.integers(0, height // 2))
                x1, y1 = x0 + int(rng.integers(10, width // 2)), y0 + int(rng.integers(10, height // 2))
                pixels = rng.integers(0, 90, (height, width, 3), dtype=np.uint8)
                pixels[y0 : y1 + 1, x0 : x1 + 1, CLASSES.index(name)] = 230
                path = root / (id if splits else id.removeprefix("train/"))
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path, format=FORMATS[Path(id).suffix.lower()])
                ids.append(id if splits else id.removeprefix("train/"))
                tree.sizes[ids[-1]], tree.boxes[ids[-1]] = (width, height), [x0, y0, x1, y1]
        tree.ids[split] = sorted(ids)
    return tree
