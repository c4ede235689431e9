"""From trees to outcomes per level: the best box among every contour, and the box of the largest one."""
# H W map, P pieces, E edges, C extents (pixels that may extend a box), K branches, R records, L = 255 levels, N boxes

from __future__ import annotations

import numpy as np

from wsolbench.boxes.onepass.graph import START, Graph
from wsolbench.boxes.onepass.kernels import F64, I32, I64, NONE, U8, by_value, larger, smaller
from wsolbench.boxes.onepass.tree import (
    BORN,
    FIRST,
    INTO,
    MERGED,
    NEXT,
    TOP,
    X0,
    X1,
    Y0,
    Y1,
    Tree,
    branch_at,
    lowest_level,
)
from wsolbench.system.compiled import compiled

LEVELS = 255


@compiled
def best_iou(x0: int, y0: int, x1: int, y1: int, truth: I64) -> float:
    """Return the best IoU of a box with any of truth [N, 4]; extents count x1 - x0 + 1."""
    best = 0.0
    area = (x1 - x0 + 1) * (y1 - y0 + 1)
    for n in range(len(truth)):
        width = min(x1, truth[n, 2]) - max(x0, truth[n, 0]) + 1
        height = min(y1, truth[n, 3]) - max(y0, truth[n, 1]) + 1
        if width > 0 and height > 0:
            shared = width * height
            other = (truth[n, 2] - truth[n, 0] + 1) * (truth[n, 3] - truth[n, 1] + 1)
            best = max(best, shared / (area + other - shared))
    return best


# --- every contour ---------------------------------------------------------------------------------------------------


@compiled
def every_contour(tree: Tree, holes: Tree, size_HW: tuple[int, int], truth: I64, best_L: F64) -> None:
    """Raise best_L to the IoU of each component's box, holes too, at the levels at which it has that box.

    A hole's box is that of the pixels around it: one larger on each side. Its levels count down from 254.
    """
    _raise_to_boxes(tree, 0, size_HW, truth, best_L)
    _raise_to_boxes(holes, 1, size_HW, truth, best_L)


@compiled
def _raise_to_boxes(tree: Tree, margin: int, size_HW: tuple[int, int], truth: I64, best_L: F64) -> None:
    """`every_contour` of a tree of components (margin 0), or of holes (1)."""
    for branch in range(len(tree.branches)):
        record = tree.branches[branch, FIRST]
        while record != NONE:
            box = tree.records[record]
            x1, y1 = min(box[X1] + 1 + margin, size_HW[1] - 1), min(box[Y1] + 1 + margin, size_HW[0] - 1)
            iou = best_iou(box[X0] - margin, box[Y0] - margin, x1, y1, truth)
            for level in range(lowest_level(tree, branch, record), box[TOP] + 1):
                index = 254 - level if margin else level
                best_L[index] = max(best_L[index], iou)
            record = box[NEXT]


# --- the largest contour ---------------------------------------------------------------------------------------------


@compiled
def fill(j_HW: U8, graph: Graph, escapes: U8) -> None:
    """Turn a map into J by filling its holes level by level; `graph` is that of the holes."""
    for y in range(len(j_HW)):
        for piece in range(graph.first[y], graph.first[y + 1]):
            if graph.peaks[piece] > escapes[piece]:
                end = graph.pieces[piece + 1, START] if piece + 1 < graph.first[y + 1] else j_HW.shape[1]
                rim = np.uint8(255) ^ escapes[piece]
                for x in range(graph.pieces[piece, START], end):
                    j_HW[y, x] = larger(j_HW[y, x], rim)


@compiled
def largest_contour(j: U8, graph: Graph, tree: Tree) -> I32:
    """Return the record of the largest component per level; of equals the one that begins last in raster order."""
    count = len(tree.branches)
    slots = np.empty(count + 1, np.int64)  # where a branch's level 0 would be; the last entry is how many there are
    used = 0
    for branch in range(count):
        slots[branch] = used + tree.branches[branch, BORN] - 1
        used += tree.branches[branch, BORN] - tree.branches[branch, MERGED]
    slots[count] = used
    areas = _areas(j, graph, tree, slots) if count > 1 else np.zeros(used, np.int32)
    chosen = np.full(LEVELS, NONE, np.int32)
    largest, leader = np.full(LEVELS, NONE, np.int32), np.empty(LEVELS, np.int32)
    for branch in range(count):
        record = tree.branches[branch, FIRST]
        for level in range(tree.branches[branch, BORN] - 1, tree.branches[branch, MERGED] - 1, -1):
            following = tree.records[record, NEXT]
            if following != NONE and tree.records[following, TOP] == level:
                record = following
            area = areas[slots[branch] - level]
            if area < largest[level]:
                continue
            if area == largest[level]:
                y, other_y = tree.records[record, Y0], tree.records[chosen[level], Y0]
                if y < other_y:
                    continue
                if y == other_y:
                    other_x = _first_x(j, graph, tree, leader[level], y, level)
                    if _first_x(j, graph, tree, branch, y, level) < other_x:
                        continue
            largest[level], leader[level], chosen[level] = area, branch, record
    return chosen


@compiled
def _areas(j: U8, graph: Graph, tree: Tree, slots: I64) -> I32:
    """Return the doubled area of every branch at every level it lives at: branch b's at slots[b] - level."""
    H, W = j.shape
    branches = tree.branches
    areas = np.zeros(slots[-1], np.int32)
    third, fourth = np.empty(W, np.uint8), np.empty(W, np.uint8)
    for y in range(H - 1):
        for x in range(W - 1):
            low, high = smaller(j[y, x], j[y, x + 1]), larger(j[y, x], j[y, x + 1])
            low_2, high_2 = smaller(j[y + 1, x], j[y + 1, x + 1]), larger(j[y + 1, x], j[y + 1, x + 1])
            fourth[x] = smaller(low, low_2)
            third[x] = smaller(larger(low, low_2), smaller(high, high_2))
        for piece in range(graph.first[y], graph.first[y + 1]):
            leaf = tree.appeared[piece]
            if leaf == NONE:
                continue
            # a block counts for the piece of its larger upper pixel: that one is in the component if the block counts
            begin, end = graph.pieces[piece, START], W - 1
            if begin > 0 and j[y, begin] >= j[y, begin - 1]:
                begin -= 1
            if piece + 1 < graph.first[y + 1]:
                end = graph.pieces[piece + 1, START] - 1
                if j[y, end] > j[y, end + 1]:
                    end += 1
            merged, slot = branches[leaf, MERGED], slots[leaf]
            for x in range(begin, end):
                for value in (third[x], fourth[x]):
                    if value > merged:
                        areas[slot - value + 1] += 1
                    elif value > 0:
                        areas[slots[branch_at(branches, leaf, value - 1)] - value + 1] += 1
    # a branch is complete when all that merge into it are; these merge at higher levels
    order, _ = by_value(branches[:, MERGED])
    for at in range(len(order) - 1, -1, -1):
        branch = order[at]
        lowest = branches[branch, MERGED]
        for level in range(branches[branch, BORN] - 2, lowest - 1, -1):
            areas[slots[branch] - level] += areas[slots[branch] - level - 1]
        if branches[branch, INTO] != NONE:
            into = branch_at(branches, branches[branch, INTO], lowest - 1)
            areas[slots[into] - lowest + 1] += areas[slots[branch] - lowest]
    return areas


@compiled
def _first_x(j: U8, graph: Graph, tree: Tree, branch: int, y: int, level: int) -> int:
    """Return the first column of row y in which a branch has a pixel at a level."""
    for piece in range(graph.first[y], graph.first[y + 1]):
        if graph.peaks[piece] > level and branch_at(tree.branches, tree.appeared[piece], level) == branch:
            x = graph.pieces[piece, START]
            while j[y, x] <= level:
                x += 1
            return int(x)
    return NONE


@compiled
def score_largest(tree: Tree, chosen_L: I32, truth: I64, best_L: F64, box_L4: I32, size_HW: tuple[int, int]) -> None:
    """Write the box of the chosen record, and its best IoU, per level."""
    H, W = size_HW
    for level in range(len(box_L4)):
        box = tree.records[chosen_L[level]]
        x0, y0, x1, y1 = box[X0], box[Y0], min(box[X1] + 1, W - 1), min(box[Y1] + 1, H - 1)
        box_L4[level, 0], box_L4[level, 1], box_L4[level, 2], box_L4[level, 3] = x0, y0, x1, y1
        if level and chosen_L[level] == chosen_L[level - 1]:
            best_L[level] = best_L[level - 1]
        else:
            best_L[level] = best_iou(x0, y0, x1, y1, truth)
