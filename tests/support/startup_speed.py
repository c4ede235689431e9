"""How long it takes to open ILSVRC's training split, 1.28 million images, and how much memory: metadata lists and folders.

    python tests/support/startup_speed.py [--repeats 5] [--keep DIR]

Lists and folders of the real size are generated (files of no bytes: none is opened), each measurement is a process of its
own: import, `create_dataset("ilsvrc")`, `split("train")`; the peak is of the whole process, torch and all.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CLASSES, IMAGES = 1000, 1_281_167
ROOT = Path(__file__).resolve().parents[2]


def names() -> list[tuple[str, list[str]]]:
    """WordNet ids and file names as long as ImageNet's."""
    each, more = divmod(IMAGES, CLASSES)
    wnids = [f"n{1_440_764 + 13_693 * label:08d}" for label in range(CLASSES)]
    return [
        (wnid, [f"{wnid}_{number * 31 + 2}.JPEG" for number in range(each + (label < more))])
        for label, wnid in enumerate(wnids)
    ]


def write(root: Path) -> None:
    """metadata/ILSVRC/{train,test}/ in `root/lists`, train/<wnid>/ in `root/folders`."""
    folder = root / "lists" / "metadata" / "ILSVRC"
    ids, labels = [], []
    for label, (wnid, files) in enumerate(names()):
        (root / "folders" / "train" / wnid).mkdir(parents=True)
        for file in files:
            os.close(os.open(root / "folders" / "train" / wnid / file, os.O_CREAT | os.O_WRONLY))
            ids.append(f"train/{wnid}/{file}")
            labels.append(f"train/{wnid}/{file},{label}")
    test = [f"val/ILSVRC2012_val_{number + 1:08d}.JPEG" for number in range(50 * CLASSES)]
    write_lists(folder / "train", ids, labels, [], [])
    write_lists(
        folder / "test",
        test,
        [f"{id},{number * 7919 % CLASSES}" for number, id in enumerate(test)],
        [f"{id},500,375" for id in test],
        [f"{id},10,20,499,374" for id in test],
    )


def write_lists(folder: Path, ids: list[str], labels: list[str], sizes: list[str], boxes: list[str]) -> None:
    folder.mkdir(parents=True)
    files = {"image_ids": ids, "class_labels": labels, "image_sizes": sizes, "localization": boxes}
    for name, lines in files.items():
        (folder / f"{name}.txt").write_text("\n".join(lines))


def child(root: str) -> None:
    start = time.perf_counter()
    from wsolbench import create_dataset

    dataset = create_dataset("ilsvrc", root=root)
    imported = time.perf_counter()
    split = dataset.split("train")
    opened = time.perf_counter()
    dataset.fingerprint()
    hashed = time.perf_counter()
    assert len(split) == IMAGES
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(imported - start, opened - imported, hashed - opened, peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="write the lists and folders here, or use those that are here")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child)
        return
    with tempfile.TemporaryDirectory() as made:
        root = arguments.keep or Path(made)
        if not (root / "lists").is_dir():
            write(root)
        path = os.pathsep.join(str(ROOT / name) for name in (".", "methods", "datasets"))
        print("lists      import s   split s (min median)   fingerprint s   peak MB")
        for kind in ("lists", "folders"):
            command = [sys.executable, __file__, "--child", str(root / kind)]
            runs = [
                [
                    float(value)
                    for value in subprocess.run(
                        command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=True
                    ).stdout.split()
                ]
                for _ in range(arguments.repeats)
            ]
            imported, opened, hashed, peak = zip(*runs, strict=True)
            print(
                f"{kind:10s} {min(imported):8.1f} {min(opened):9.1f} {statistics.median(opened):8.1f}"
                f" {statistics.median(hashed):18.1f} {max(peak):12.0f}"
            )


if __name__ == "__main__":
    main()
