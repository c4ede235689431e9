"""Miniature trees of CUB, ILSVRC and OpenImages in the exact layout of the reference evaluator's repository."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 3
SPLITS = ("train", "val", "test")
BIRDS = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross")
WNIDS = ("n01440764", "n01443537", "n01484850")
MACHINES = ("01226z", "0130jx", "01_5g")


@dataclass
class Tree:
    """What was written: per split the ids in order, labels, sizes (width, height), boxes or union masks by id."""

    root: Path
    name: str
    ids: dict[str, list[str]] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    boxes: dict[str, list[list[int]]] = field(default_factory=dict)
    masks: dict[str, list[Path]] = field(default_factory=dict)
    ignore: dict[str, Path] = field(default_factory=dict)

    @property
    def metadata(self) -> Path:
        return self.root / "metadata" / self.name

    @property
    def images(self) -> Path:
        return self.root / "dataset" / self.name


def image_id(name: str, split: str, label: int, number: int) -> str:
    if name == "CUB":
        return f"{BIRDS[label]}/{'Bird' if split != 'val' else ''}{SPLITS.index(split)}{label}{number:04d}.jpg"
    if name == "OpenImages":
        return f"{split}/{MACHINES[label]}/{SPLITS.index(split)}{label}{number:014x}.jpg"
    return {
        "train": f"train/{WNIDS[label]}/{WNIDS[label]}_{number}.JPEG",
        "val": f"val2/{label}/{number}.jpeg",
        "test": f"val/ILSVRC2012_val_{number * CLASSES + label + 1:08d}.JPEG",  # numbered without gaps, as the devkit does
    }[split]


def write_tree(root: Path, name: str, per_class: int = 4, *, images: bool = True, seed: int = 0) -> Tree:
    """Write metadata (and images; masks always): noise pictures of odd sizes in every pixel format that real sets hold."""
    rng = np.random.default_rng(seed)
    tree = Tree(root, name)
    for split in SPLITS:
        ids = tree.ids[split] = [
            image_id(name, split, label, number) for number in range(per_class) for label in range(CLASSES)
        ]
        for index, id in enumerate(ids):
            tree.labels[id] = index % CLASSES
            tree.sizes[id] = (int(rng.integers(40, 90)), int(rng.integers(40, 90)))
            if images:
                write_image(tree.images / id, tree.sizes[id], index, rng)
            if name == "OpenImages" and split != "train":
                _write_masks(tree, id, index, rng)
            elif (name, split) not in (("ILSVRC", "train"), ("OpenImages", "train")):
                tree.boxes[id] = random_boxes(tree.sizes[id], 1 + (index % 3 if name == "ILSVRC" else 0), rng)
        _write_metadata(tree, split)
    return tree


def _write_metadata(tree: Tree, split: str) -> None:
    ids = tree.ids[split]
    sized = tree.name != "OpenImages" and (tree.name, split) != ("ILSVRC", "train")
    located = []
    for id in ids:
        located += [f"{id},{','.join(map(str, box))}" for box in tree.boxes.get(id, [])]
        for number, mask in enumerate(tree.masks.get(id, [])):
            ignore = tree.ignore[id].relative_to(tree.images).as_posix() if number == 0 else ""
            located.append(f"{id},{mask.relative_to(tree.images).as_posix()},{ignore}")
    files = {
        "image_ids.txt": ids,
        "class_labels.txt": [f"{id},{tree.labels[id]}" for id in ids],
        "image_sizes.txt": [f"{id},{tree.sizes[id][0]},{tree.sizes[id][1]}" for id in ids] if sized else [],
        "localization.txt": located,
    }
    if split == "train":
        files["image_ids_proxy.txt"] = ids[:CLASSES]
    for file, lines in files.items():
        path = tree.metadata / split / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines))  # the last line lacks its end, as in some of the real files


def random_boxes(size: tuple[int, int], count: int, rng: np.random.Generator) -> list[list[int]]:
    width, height = size
    boxes = []
    for _ in range(count):
        x0, y0 = int(rng.integers(0, width // 2)), int(rng.integers(0, height // 2))
        x1 = min(x0 + int(rng.integers(width // 4, width)), width - 1)
        boxes.append([x0, y0, x1, min(y0 + int(rng.integers(height // 4, height)), height - 1)])
    return boxes


def write_image(path: Path, size: tuple[int, int], index: int, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    mode, format = [
        ("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG"), ("LA", "PNG"), ("RGBA", "PNG")
    ][index % 6]  # fmt: skip
    image.convert(mode).save(path, format=format)  # PNG in disguise: ImageNet holds one


def _write_masks(tree: Tree, id: str, index: int, rng: np.random.Generator) -> None:
    """One to three instances, 0/1 or 0/255; every third image's files differ in size; the ignore file overlaps."""
    stem = (tree.images / id).with_suffix("")
    stem.parent.mkdir(parents=True, exist_ok=True)
    width, height = tree.sizes[id]
    tree.masks[id] = []
    for number in range(1 + index % 3):
        grow = 7 * number if index % 3 == 2 else 0
        mask = np.zeros((height + grow, width + grow), np.uint8)
        for x0, y0, x1, y1 in random_boxes((width, height), 1, rng):
            mask[y0 : y1 + 1, x0 : x1 + 1] = (1, 255)[index % 2]
        path = stem.with_name(f"{stem.name}_m{Path(id).parent.name}_{number:08x}.png")
        Image.fromarray(mask).save(path)
        tree.masks[id].append(path)
    ignore = np.zeros((height, width), np.uint8)
    ignore[: height // 3] = 255
    tree.ignore[id] = stem.with_name(f"{stem.name}_ignore.png")
    Image.fromarray(ignore).save(tree.ignore[id])
