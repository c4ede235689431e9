"""A map as a graph: pieces of rows, the values at which they touch, and the pixels that may extend a box."""
# H W map, P pieces, E edges, C extents (pixels that may extend a box), K branches, R records, L = 255 levels, N boxes

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from wsolbench.boxes.onepass.kernels import I32, NONE, U8, larger, smaller
from wsolbench.system.compiled import compiled

OUTSIDE = 0  # the first piece of a graph of holes stands for everything beyond the edge
ROW, START = 0, 1  # columns of `Graph.pieces`
PIECE, X = 0, 1  # of `Graph.extents`


class Graph(NamedTuple):
    """A map as pieces of rows. A piece spans columns START .. START of the next piece of its row (or W)."""

    first: I32  # [H + 1] first piece of each row
    pieces: I32  # [P, 2] ROW, START
    peaks: U8  # [P] largest value of a piece
    edges: I32  # [E, 2] pieces that touch at levels below
    edge_values: U8  # [E]
    extents: I32  # [C, 2] PIECE, X of pixels that may extend a box to the left or right
    extent_values: U8  # [C]


@compiled
def make_graph(f: U8, holes: bool) -> Graph:
    """Return the 8-connected graph of a map; for holes the 4-connected one of 255 - map, with an outside at its edge."""
    H, W = f.shape
    framed = _framed(f, holes)
    first, pieces, peaks, valleys, extents, extent_values = _pieces(framed, holes)
    most = 7 * len(pieces) + 4 * H  # two rows have fewer stretches than pieces, a stretch has at most three edges
    edges, values = np.empty((most, 2), np.int32), np.empty(most, np.uint8)
    count = 0
    touch = np.empty(W, np.uint8)
    for y in range(H):
        for piece in range(first[y] + 1, first[y + 1]):
            edges[count, 0], edges[count, 1], values[count] = piece - 1, piece, valleys[piece]
            count += 1
        if holes:
            last = first[y + 1] - 1
            edges[count, 0], edges[count, 1], values[count] = OUTSIDE, first[y], framed[y + 1, 1]
            edges[count + 1, 0], edges[count + 1, 1], values[count + 1] = OUTSIDE, last, framed[y + 1, W]
            count += 2
            if y == 0 or y == H - 1:
                for piece in range(first[y], first[y + 1]):
                    edges[count, 0], edges[count, 1], values[count] = OUTSIDE, piece, peaks[piece]
                    count += 1
        if y == H - 1:
            break
        _touch(framed, y, not holes, touch)
        above, below, x, value = first[y], first[y + 1], 0, np.uint8(0)
        while x < W:  # stretches of columns in which the pieces above and below stay the same
            end_above = pieces[above + 1, START] if above + 1 < first[y + 1] else W
            end_below = pieces[below + 1, START] if below + 1 < first[y + 2] else W
            end = min(end_above, end_below)
            for column in range(x, end - 1):
                value = larger(value, touch[column])
            value = larger(value, smaller(framed[y + 1, end], framed[y + 2, end]))
            following = np.uint8(0)
            above_next, below_next = above + (end == end_above), below + (end == end_below)
            if end < W and not holes:  # two diagonals lead out of the stretch
                falling = smaller(framed[y + 1, end], framed[y + 2, end + 1])
                rising = smaller(framed[y + 1, end + 1], framed[y + 2, end])
                if below_next == below:
                    value, following = larger(value, falling), rising
                elif above_next == above:
                    value, following = larger(value, rising), falling
                else:
                    edges[count, 0], edges[count, 1], values[count] = above, below_next, falling
                    edges[count + 1, 0], edges[count + 1, 1], values[count + 1] = above_next, below, rising
                    count += 2
            edges[count, 0], edges[count, 1], values[count] = above, below, value
            count += 1
            above, below, x, value = above_next, below_next, end, following
    return Graph(first, pieces, peaks, edges[:count], values[:count], extents, extent_values)


@compiled
def _pieces(framed: U8, holes: bool) -> tuple[I32, I32, U8, U8, I32, U8]:
    """Cut rows where they rise after a fall, and collect the pixels that may extend a box.

    `valleys` are the values at which a piece touches the one before it in its row.
    """
    H, W = framed.shape[0] - 2, framed.shape[1] - 2
    most = H * ((W + 1) // 2) + 1
    first, pieces = np.empty(H + 1, np.int32), np.empty((most, 2), np.int32)
    peaks, valleys = np.empty(most, np.uint8), np.empty(most, np.uint8)
    extents, extent_values = np.empty((H * W, 2), np.int32), np.empty(H * W, np.uint8)
    beside, extends = np.empty(W + 2, np.uint8), np.empty(W, np.bool_)
    piece, count = NONE, 0
    if holes:
        piece = OUTSIDE
        pieces[piece, ROW], pieces[piece, START], peaks[piece] = 0, 0, 255
    for y in range(H):
        _extending(framed, y, not holes, beside, extends)
        piece += 1
        first[y] = piece
        pieces[piece, ROW], pieces[piece, START] = y, 0
        here = framed[y + 1, 1:]
        before = top = here[0]
        falling = False
        for x in range(W):
            value = here[x]
            if falling and value > before:
                peaks[piece] = top
                piece += 1
                pieces[piece, ROW], pieces[piece, START], valleys[piece] = y, x, before
                top = value
            falling = value < before or (falling and value == before)
            top = larger(top, value)
            before = value
            if extends[x]:
                extents[count, PIECE], extents[count, X], extent_values[count] = piece, x, value
                count += 1
        peaks[piece] = top
    first[H] = piece + 1
    return first, pieces[: piece + 1], peaks[: piece + 1], valleys, extents[:count], extent_values[:count]


@compiled
def _framed(f: U8, inverted: bool) -> U8:
    """Return the map, or 255 minus it, in a frame of zeros: [H + 2, W + 2]."""
    H, W = f.shape
    framed = np.zeros((H + 2, W + 2), np.uint8)
    for y in range(H):
        for x in range(W):
            framed[y + 1, x + 1] = f[y, x] ^ np.uint8(255) if inverted else f[y, x]
    return framed


@compiled
def _extending(framed: U8, y: int, eight: bool, beside: U8, extends: npt.NDArray[np.bool_]) -> None:
    """Mark the pixels of a row that reach further left, or right, than their neighbours do at their level.

    Whatever component holds a pixel holds its larger neighbours too. So a neighbour that reaches as far makes the pixel
    redundant; of equals in a column, the upper one stays.
    """
    above, here, below = framed[y], framed[y + 1], framed[y + 2]
    for x in range(len(here)):
        beside[x] = larger(larger(above[x], below[x]), here[x]) if eight else here[x]
    for x in range(1, len(here) - 1):
        value = here[x]
        extends[x - 1] = (value > above[x]) & (value >= below[x]) & (value > smaller(beside[x - 1], beside[x + 1]))


@compiled
def _touch(framed: U8, y: int, eight: bool, touch: U8) -> None:
    """Write for each column x of rows y and y + 1 where pixels of x, or of x and x + 1 diagonally, touch."""
    upper, lower = framed[y + 1], framed[y + 2]
    for x in range(len(touch)):
        touch[x] = smaller(upper[x + 1], lower[x + 1])
    if eight:
        for x in range(len(touch) - 1):
            crossed = larger(smaller(upper[x + 1], lower[x + 2]), smaller(upper[x + 2], lower[x + 1]))
            touch[x] = larger(touch[x], crossed)
