"""How much faster listed images load than through torchvision's ImageFolder: the ratio in one interleaved run.

    python tests/support/loading_speed.py [--images 384] [--rounds 9] [--out results/profile/loading-NAME.csv]

The usual pipeline is ImageFolder (PIL), Resize, RandomCrop and RandomHorizontalFlip for training, ToTensor, Normalize and
torch's DataLoader. Every round times both, one after the other, on the same JPEGs (500x375 and 375x500, quality 90, made from
a seed, in the page cache); a ratio is that of one round, the table holds medians and the 95 % interval of the median ratio
(bootstrap over rounds). One thread per process; processes that start before the first batch of a pass and end after
its last one are not counted.
Pixels are compared first: evaluation batches must be equal bit for bit.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from speed_table import write_rows
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from wsolbench.data.loading import eval_batches, train_batches
from wsolbench.data.metadata import Metadata
from wsolbench_datasets.listed.dataset import ListedSplit

BATCH = 16
NORMALISE = [transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
USUAL = {
    "eval": transforms.Compose([transforms.Resize((224, 224)), *NORMALISE]),
    "train": transforms.Compose(
        [transforms.Resize((256, 256)), transforms.RandomCrop(224), transforms.RandomHorizontalFlip(), *NORMALISE]
    ),
}


def write_images(folder: Path, count: int) -> None:
    """Smooth colours, edges and grain: files of some 90 kB, as ImageNet's."""
    rng = np.random.default_rng(0)
    for number in range(count):
        size = (500, 375) if number % 4 else (375, 500)
        smooth, fine = (
            cv2.resize(rng.random((side, side, 3), np.float32), size, interpolation=cv2.INTER_CUBIC) for side in (9, 70)
        )
        pixels = 190 * smooth + 60 * fine + rng.normal(0, 10, (*size[::-1], 3))
        path = folder / f"class{number % 4}" / f"{number:05d}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)


def usual(folder: Path, kind: str, workers: int):
    data = ImageFolder(str(folder), USUAL[kind])
    return iter(DataLoader(data, BATCH, shuffle=kind == "train", num_workers=workers, drop_last=True))


def ours(split: ListedSplit, kind: str, workers: int, epoch: int):
    if kind == "eval":
        return eval_batches(split, batch_size=BATCH, workers=workers)
    return train_batches(split, range(len(split)), batch_size=BATCH, seed=0, epoch=epoch, workers=workers)


def rate(batches, count: int) -> float:
    """Images per second between the first and the last of `count` batches."""
    next(batches)
    started = time.perf_counter()
    for _ in range(count - 1):
        next(batches)
    seconds = time.perf_counter() - started
    assert next(batches, None) is None
    return (count - 1) * BATCH / seconds


def check_pixels(folder: Path, split: ListedSplit) -> None:
    for (wanted, labels), batch in zip(usual(folder, "eval", 0), eval_batches(split, batch_size=BATCH), strict=True):
        assert labels.tolist() == batch.labels_B.tolist()
        assert batch.images_BCHW.equal(wanted)


def measure(folder: Path, split: ListedSplit, kind: str, workers: int, rounds: int) -> dict[str, object]:
    rates, batches = [], len(split) // BATCH
    list(ours(split, kind, 0, 0))  # fills the cache where there is one
    for number in range(rounds):
        pair = [
            lambda: rate(usual(folder, kind, workers), batches),
            lambda number=number: rate(ours(split, kind, workers, number), batches),
        ]
        first = number % 2  # who begins alternates
        results = {which: pair[which]() for which in (first, 1 - first)}
        rates.append((results[0], results[1]))
    usual_R, ours_R = np.array(rates).T
    ratio_R = ours_R / usual_R
    draws = np.random.default_rng(0).integers(0, rounds, (2000, rounds))
    low, high = np.quantile(np.median(ratio_R[draws], axis=1), [0.025, 0.975])
    return {
        "geometry": kind,
        "workers": workers,
        "cache": "off" if split.cache is None else "warm",
        "images": len(split),
        "rounds": rounds,
        "ours [images/s]": f"{np.median(ours_R):.0f}",
        "ImageFolder [images/s]": f"{np.median(usual_R):.0f}",
        "speedup": f"{np.median(ratio_R):.2f}",
        "speedup, 95 % low": f"{low:.2f}",
        "speedup, 95 % high": f"{high:.2f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    count = arguments.images // BATCH * BATCH
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "images")
        folder.mkdir()
        write_images(folder, count)
        ids = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*"))
        labels = np.array([int(id[5]) for id in ids], np.int64)
        rows = []
        for cache in (None, Path(place, "cache")):
            split = ListedSplit("speed/test", Metadata(folder, ids, labels), folder, "", cache=cache)
            check_pixels(folder, split)
            for kind in ("eval", "train"):
                for workers in (0, 2):
                    rows.append(measure(folder, split, kind, workers, arguments.rounds))
                    print(*(f"{key} {value}" for key, value in rows[-1].items()), sep=" | ", flush=True)
    if arguments.out is not None:
        write_rows(arguments.out, rows)


if __name__ == "__main__":
    main()
