"""Every level of a quantised map in one pass: components and holes as a tree over pieces of rows, exactly.

The reference evaluator cuts a map anew at every threshold and follows contours. What it finds has an equivalent in
terms of connected components (Suzuki & Abe 1985; checked against OpenCV in tests/metrics/test_oracle.py):

* an outer contour of {q > t} is an 8-connected component of it,
* the contour of a hole is a 4-connected component of {q <= t} that does not reach the edge of the image,
* the contour of largest area is the largest filled component. With J(p) = the smallest possible maximum along a
  4-connected path from outside to p, filled components of {q > t} are the 8-connected components of {J > t}; a block of
  2 x 2 pixels adds 1/2 to the area at its third-largest and 1/2 at its smallest value of J.

As t falls, components appear, grow and merge (Salembier et al. 1998: the max-tree). Pixels need not be merged one by
one: a row is a chain of *pieces* that rise and then fall, so what a piece has above t is one segment. Pieces are the
nodes of a graph; an edge's weight is the level at which two pieces touch. A map of 224 x 224 has 50,000 pixels but, if
it is smooth, some hundred pieces. Likewise a pixel can extend a component's box only if no neighbour reaches as far at
its level. Edges and such pixels, sorted by value, are all the sweep has to look at.

The kernels run without the interpreter lock and allocate what they need, so threads may share them.
"""

from __future__ import annotations

import time

import numpy as np

from wsolbench.boxes.onepass.contours import LEVELS, best_iou, every_contour, fill, largest_contour, score_largest
from wsolbench.boxes.onepass.graph import make_graph
from wsolbench.boxes.onepass.kernels import F64, I32, I64, U8
from wsolbench.boxes.onepass.tree import sweep


def scan(q_HW: U8, truth_N4: I64, *, single: bool, multi: bool) -> tuple[F64, I32]:
    """Score one quantised map against its boxes at every level.

    Returns:
        The best IoU, float64 [modes, 255], single before multi, and the boxes of the largest contour, int32 [255, 4]
        (zeros unless `single`), both in the reference's corners. At levels >= max(q) no foreground is left, and the box
        is (0, 0, 0, 0).

    >>> q = np.zeros((8, 8), np.uint8); q[2:5, 2:6] = 255
    >>> best, boxes = scan(q, np.array([[2, 2, 6, 6]]), single=True, multi=True)
    >>> best[:, 100].tolist(), boxes[100].tolist()
    ([0.8, 0.8], [2, 2, 6, 5])
    """
    best_ML = np.full((single + multi, LEVELS), best_iou(0, 0, 0, 0, truth_N4))
    box_L4 = np.zeros((LEVELS, 4), np.int32)
    top = int(q_HW.max())
    if top == 0:
        return best_ML, box_L4
    background = make_graph(q_HW, True)
    holes = sweep(background, True)
    filled = q_HW
    if single and len(holes.branches):
        filled = q_HW.copy()
        fill(filled, background, holes.escapes)
    graph = make_graph(q_HW if multi else filled, False)
    tree = sweep(graph, False)
    if multi:
        best_ML[-1, :top] = 0.0
        every_contour(tree, holes, q_HW.shape, truth_N4, best_ML[-1])
        if filled is not q_HW:
            graph = make_graph(filled, False)
            tree = sweep(graph, False)
    if single:
        chosen_L = largest_contour(filled, graph, tree)
        score_largest(tree, chosen_L, truth_N4, best_ML[0, :top], box_L4[:top], q_HW.shape)
    return best_ML, box_L4


def compile_now() -> float:
    """Compile the kernels, or load what an earlier process compiled; returns the seconds it took.

    Some 15 s once per installation, a fraction of a second afterwards.
    """
    started = time.perf_counter()
    rim = np.zeros((5, 5), np.uint8)
    rim[1:4, 1:4] = 255
    rim[2, 2] = rim[0, 0] = 128
    scan(rim, np.array([[1, 1, 4, 4]]), single=True, multi=True)
    return time.perf_counter() - started
