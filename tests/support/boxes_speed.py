"""How much faster one pass is than contour loops: the ratio in one interleaved run, per kind of map.

    python tests/support/boxes_speed.py [--maps 10] [--repeats 5] [--out results/profile/boxes-NAME.csv]

Every round times, on the same 224 x 224 map and one after the other: ours (all 255 levels), the contour loop as the
reference evaluator does it, and a loop over the map's distinct levels only. A ratio is that of one round; the table
holds medians and the 95 % interval of the median ratio (bootstrap over maps). One thread.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from speed_table import write_rows

from wsolbench.boxes.maps import normalize_maps
from wsolbench.boxes.scan import scan_maps
from wsolbench.boxes.truth import iou_matrix
from wsolbench.profile.device import context

SIDE = 224
TRUTH = np.array([[56, 40, 170, 180]])
TWO_BOXES = np.array([[56, 40, 170, 180], [20, 100, 120, 210]])  # one in four images of ILSVRC's val has several


# --- maps ------------------------------------------------------------------------------------------------------------


def cam_like(rng, side=SIDE, coarse=14):
    """Smooth blobs on a coarse grid, upsampled as class activation maps are."""
    return normalize_maps(cv2.GaussianBlur(rng.random((coarse, coarse)), (5, 5), 1.5)[None], side)[0]


KINDS = {
    "CAM-like 14x14": cam_like,
    "CAM-like 7x7": lambda rng: cam_like(rng, coarse=7),
    "random 14x14 upsampled": lambda rng: normalize_maps(rng.random((1, 14, 14)), SIDE)[0],
    "noise": lambda rng: rng.random((SIDE, SIDE)),
}


# --- the alternatives ------------------------------------------------------------------------------------------------


def _contour_boxes(binary_HW, contours):
    H, W = binary_HW.shape
    found, _ = cv2.findContours(binary_HW, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    if contours == "single":
        found = [max(found, key=cv2.contourArea)]
    rectangles = [cv2.boundingRect(contour) for contour in found]
    return [(x, y, min(x + w, W - 1), min(y + h, H - 1)) for x, y, w, h in rectangles]


def every_threshold(map_HW, truth, contours, thresholds):
    """Best IoU per threshold: contours anew for each, all boxes matched at once, the maximum taken anew for each."""
    q = (map_HW * 255).astype(np.uint8)
    boxes, counts = [], []
    for threshold in thresholds:
        _, binary = cv2.threshold(q, int(threshold * q.max()), 255, cv2.THRESH_BINARY)
        boxes.append(np.array(_contour_boxes(binary, contours)))
        counts.append(len(boxes[-1]))
    iou_MN = iou_matrix(np.concatenate(boxes), truth)
    best, start = [], 0
    for count in counts:
        best.append(max(iou_MN.max(1)[start : start + count]))
        start += count
    return np.array(best)


def distinct_levels(map_HW, truth, contours, thresholds):
    """Best IoU per threshold: contours once for each level at which the binary map changes."""
    q = (map_HW * 255).astype(np.uint8)
    levels = (thresholds * q.max()).astype(np.int64)
    values = np.unique(q)
    # thresholds between the same two values of the map cut it alike
    _, first, inverse = np.unique(np.searchsorted(values, levels, "right"), return_index=True, return_inverse=True)
    boxes, starts = [], []
    for level in levels[first]:
        starts.append(len(boxes))
        boxes += _contour_boxes((q > level).view(np.uint8), contours)
    best_M = iou_matrix(np.array(boxes), truth).max(1)
    return np.maximum.reduceat(best_M, starts)[inverse]


def ours(map_HW, truth, contours):
    """Best IoU per level, all 255."""
    return scan_maps(map_HW[None], [truth], contours)


# --- measuring -------------------------------------------------------------------------------------------------------


def _seconds(function, *arguments):
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started


def _interval(ratios_by_map, rng):
    """95 % interval of the median, maps drawn with replacement."""
    medians = [
        np.median([ratios_by_map[i] for i in rng.integers(len(ratios_by_map), size=len(ratios_by_map))])
        for _ in range(2000)
    ]
    return np.percentile(medians, [2.5, 97.5])


def measure(kind, contours, interval, truth, maps, repeats):
    """One row of the table."""
    rng = np.random.default_rng(0)
    thresholds = np.arange(0, 1, interval)
    ours(KINDS[kind](rng), truth, contours)  # compiled
    times = []
    for _ in range(maps):
        map_HW = np.ascontiguousarray(KINDS[kind](rng))
        for _ in range(repeats):
            one = _seconds(ours, map_HW, truth, contours)
            loop = _seconds(every_threshold, map_HW, truth, contours, thresholds)
            distinct = _seconds(distinct_levels, map_HW, truth, contours, thresholds)
            times.append((one, loop, distinct))
    times_MR3 = np.array(times).reshape(maps, repeats, 3)
    row = {
        "map": kind,
        "contours": contours,
        "interval": interval,
        "true boxes": len(truth),
        "maps": maps,
        "repeats": repeats,
    }
    for name, column in (("ours", 0), ("every threshold", 1), ("distinct levels", 2)):
        row[f"{name} [ms]"] = f"{1000 * np.median(times_MR3[..., column]):.3f}"
    for name, column in (("every threshold", 1), ("distinct levels", 2)):
        ratios_MR = times_MR3[..., column] / times_MR3[..., 0]
        low, high = _interval(ratios_MR, rng)
        row[f"ratio to {name}"] = f"{np.median(ratios_MR):.1f}"
        row[f"{name} 95 % low"], row[f"{name} 95 % high"] = f"{low:.1f}", f"{high:.1f}"
    return row


def two_threads(maps, repeats):
    """Median ratio of one thread's time to two threads', and its interval; CAM-like maps, both contour modes."""
    rng = np.random.default_rng(1)
    batch = np.stack([cam_like(rng) for _ in range(maps)])
    truth = [TRUTH] * maps
    scan_maps(batch, truth, "both", 2)
    ratios = [
        _seconds(scan_maps, batch, truth, "both", 1) / _seconds(scan_maps, batch, truth, "both", 2)
        for _ in range(repeats)
    ]
    return np.median(ratios), _interval([[ratio] for ratio in ratios], rng)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    rows = []
    for kind in KINDS:
        for contours in ("single", "multi"):
            for interval in (0.01, 0.001):
                for truth in (TRUTH, TWO_BOXES):
                    slow = kind == "noise"
                    if slow and truth is TWO_BOXES:
                        continue  # minutes a map
                    few = (
                        (2, 1) if slow and interval < 0.01 else (3, 2) if slow else (arguments.maps, arguments.repeats)
                    )
                    rows.append(measure(kind, contours, interval, truth, *few))
                    print(*rows[-1].values(), sep=" | ", flush=True)
    median, (low, high) = two_threads(64, 40)
    print(f"two threads: {median:.2f}x as fast as one ({low:.2f} to {high:.2f}), 64 CAM-like maps, both contour modes")
    if arguments.out is not None:
        about = context(torch.device("cpu"))
        rows = [row | about for row in rows]
        write_rows(arguments.out, rows)


if __name__ == "__main__":
    main()
