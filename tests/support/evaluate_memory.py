"""Peak memory and speed of `wsolbench evaluate` on many score maps against few: it streams, so both peaks are alike.

    python tests/support/evaluate_memory.py FOLDER [--few 1000] [--many 50000]

Makes 300 distinct CAM-like 224 x 224 score maps in FOLDER, one hard link to one of them per image (as files, 50,000 maps
would take 20 GB) and a metadata folder in the reference evaluator's format, then scores them in processes of their own.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

DISTINCT = 300
CLASSES = 1000


def make_maps(folder: Path, count: int) -> list[str]:
    """One `<id>.npy` per image; returns the ids."""
    from wsolbench.boxes.maps import normalize_maps

    rng = np.random.default_rng(0)
    (folder / "distinct").mkdir(parents=True, exist_ok=True)
    (folder / "maps" / "val").mkdir(parents=True, exist_ok=True)
    sources = [folder / "distinct" / f"{number}.npy" for number in range(DISTINCT)]
    for source in sources:
        if not source.exists():
            blobs = cv2.GaussianBlur(rng.random((14, 14)), (5, 5), 1.5)
            np.save(source, normalize_maps(blobs[None], 224)[0])
    ids = [f"val/{number:08d}.jpg" for number in range(count)]
    for number, id in enumerate(ids):
        link = folder / "maps" / f"{id}.npy"
        if not link.exists():
            os.link(sources[number % DISTINCT], link)
    return ids


def make_metadata(root: Path, ids: list[str]) -> None:
    """The test split of an ILSVRC-like data set."""
    rng = np.random.default_rng(1)
    folder = root / "metadata" / "ILSVRC" / "test"
    folder.mkdir(parents=True, exist_ok=True)
    corners = np.sort(rng.integers(0, 500, (len(ids), 2, 2)), axis=1).reshape(-1, 4)
    columns = {
        "image_ids": ids,
        "class_labels": [f"{id},{number % CLASSES}" for number, id in enumerate(ids)],
        "image_sizes": [f"{id},500,500" for id in ids],
        "localization": [",".join(map(str, (id, *box))) for id, box in zip(ids, corners.tolist(), strict=True)],
    }
    for name, lines in columns.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")


def child(arguments: list[str]) -> None:
    """Run the command line and say the peak of resident memory."""
    from wsolbench.boxes.onepass import compile_now
    from wsolbench.cli.main import main

    compile_now()
    status = main(arguments)
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB", file=sys.stderr)
    raise SystemExit(status)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--few", type=int, default=1000)
    parser.add_argument("--many", type=int, default=50_000)
    chosen = parser.parse_args()
    # compiled in a process before: compiling takes memory of its own
    subprocess.run([sys.executable, "-c", "from wsolbench.boxes.onepass import compile_now; compile_now()"], check=True)
    ids = make_maps(chosen.folder, chosen.many)
    for count in (chosen.few, chosen.many):
        root = chosen.folder / str(count)
        make_metadata(root, ids[:count])
        words = ["evaluate", "--maps", str(chosen.folder / "maps"), "--dataset", "ilsvrc", "--root", str(root)]
        words += ["--name", f"maps-{count}", "--out", str(chosen.folder / "out"), "--rerun"]
        done = subprocess.run([sys.executable, __file__, "--child", *words], capture_output=True, text=True, check=True)
        print(f"{count} maps:", *(line for line in done.stderr.splitlines() if "maps/s" in line or "peak" in line))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
    else:
        main()
