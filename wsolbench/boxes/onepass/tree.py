"""The sweep over all levels: components that appear, grow and merge, as a tree of branches and a record per box."""
# H W map, P pieces, E edges, C extents (pixels that may extend a box), K branches, R records, L = 255 levels, N boxes

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from wsolbench.boxes.onepass.graph import OUTSIDE, PIECE, ROW, Graph, X
from wsolbench.boxes.onepass.kernels import I32, NONE, U8, by_value
from wsolbench.system.compiled import compiled

X0, Y0, X1, Y1, TOP, NEXT = range(6)  # columns of `Tree.records`
BORN, MERGED, INTO, FIRST, LAST = range(5)  # of `Tree.branches`
PARENT, SIZE, BRANCH, SEEN = range(4, 8)  # of the sweep's components, after their box


class Tree(NamedTuple):
    """Components of {f > t} for all t. A branch is a component that lives from level BORN - 1 down to level MERGED.

    Below MERGED it is part of branch INTO (NONE: of the outside, or there is no level below). Its boxes are a chain of
    records from FIRST to LAST, each valid from level TOP down to TOP + 1 of the NEXT.
    """

    branches: I32  # [K, 5] BORN, MERGED, INTO, FIRST, LAST
    records: I32  # [R, 6] X0, Y0, X1, Y1 (inclusive), TOP, NEXT
    appeared: I32  # [P] branch of each piece at the level where it appears; NONE: it never does
    escapes: U8  # [P] value at which a piece joins the outside; 0: never


@compiled
def sweep(graph: Graph, holes: bool) -> Tree:
    """Sweep the levels downwards: pieces appear at their peaks, merge along edges, and extents widen their boxes."""
    count = len(graph.pieces)
    pieces, piece_begin = by_value(graph.peaks)
    edges, edge_begin = by_value(graph.edge_values)
    extents, extent_begin = by_value(graph.extent_values)

    components = np.empty((count, 8), np.int32)
    for piece in range(count):
        row = graph.pieces[piece, ROW]
        components[piece, X0], components[piece, Y0] = 1 << 30, row
        components[piece, X1], components[piece, Y1] = NONE, row
        components[piece, PARENT], components[piece, SIZE] = piece, 1
        components[piece, BRANCH], components[piece, SEEN] = NONE, 0
    links = np.empty((count, 3), np.int32)  # in order: the piece that was linked, to which, at which value
    linked = branched = recorded = 0
    branches, records = np.empty((64, 5), np.int32), np.empty((512, 6), np.int32)
    appeared = np.full(count, NONE, np.int32)
    changed = np.empty(count + len(edges) + len(extents), np.int32)

    for value in range(255, 0, -1):
        changes = 0
        for at in range(piece_begin[value], piece_begin[value + 1]):
            changed[changes] = pieces[at]
            changes += 1
        for at in range(edge_begin[value], edge_begin[value + 1]):
            keep = _root(components, graph.edges[edges[at], 0])
            lose = _root(components, graph.edges[edges[at], 1])
            if keep == lose:
                continue
            outside = holes and (keep == OUTSIDE or lose == OUTSIDE)  # it stays the root, and has no box
            if lose == OUTSIDE if outside else components[keep, SIZE] < components[lose, SIZE]:
                keep, lose = lose, keep
            components[lose, PARENT] = keep
            components[keep, SIZE] += components[lose, SIZE]
            links[linked, 0], links[linked, 1], links[linked, 2] = lose, keep, value
            linked += 1
            lost = components[lose, BRANCH]
            if lost != NONE and components[keep, BRANCH] == NONE and not outside:
                components[keep, BRANCH] = lost
            elif lost != NONE:
                branches[lost, MERGED], branches[lost, INTO] = value, components[keep, BRANCH]
            if not outside:
                box = components[lose]
                _widen(components, keep, box[X0], box[Y0], box[X1], box[Y1])
                changed[changes] = keep
                changes += 1
        for at in range(extent_begin[value], extent_begin[value + 1]):
            root, x = _root(components, graph.extents[extents[at], PIECE]), graph.extents[extents[at], X]
            if x < components[root, X0] or x > components[root, X1]:
                _widen(components, root, x, components[root, Y0], x, components[root, Y1])
                changed[changes] = root
                changes += 1

        for at in range(changes):  # the level is complete: record the boxes that are new
            root = _root(components, changed[at])
            if components[root, SEEN] == value or (holes and root == OUTSIDE):
                continue
            components[root, SEEN] = value
            branch = components[root, BRANCH]
            if branch == NONE:
                if branched == len(branches):
                    branches = _grown(branches)
                branch = components[root, BRANCH] = branched
                branches[branch, BORN], branches[branch, MERGED], branches[branch, INTO] = value, 0, NONE
                branches[branch, FIRST] = recorded
                branched += 1
            else:
                last, same = branches[branch, LAST], True
                for side in range(4):
                    same = same and records[last, side] == components[root, side]
                if same:
                    continue
                records[last, NEXT] = recorded
            if recorded == len(records):
                records = _grown(records)
            for side in range(4):
                records[recorded, side] = components[root, side]
            records[recorded, TOP], records[recorded, NEXT] = value - 1, NONE
            branches[branch, LAST] = recorded
            recorded += 1
        for at in range(piece_begin[value], piece_begin[value + 1]):
            appeared[pieces[at]] = components[_root(components, pieces[at]), BRANCH]

    escapes = np.zeros(count, np.uint8)
    if holes:
        _escape(links[:linked], escapes)
    return Tree(branches[:branched], records[:recorded], appeared, escapes)


@compiled
def _escape(links: I32, escapes: U8) -> None:
    """For each piece, the level at which it joins the outside; none that never does."""
    for at in range(len(links) - 1, -1, -1):  # a piece was linked before the one it is linked to was
        to = links[at, 1]
        escapes[links[at, 0]] = links[at, 2] if to == OUTSIDE else escapes[to]


@compiled
def _root(components: I32, piece: int) -> int:
    while components[piece, PARENT] != piece:
        components[piece, PARENT] = components[components[piece, PARENT], PARENT]
        piece = components[piece, PARENT]
    return piece


@compiled
def _widen(components: I32, root: int, x0: int, y0: int, x1: int, y1: int) -> None:
    components[root, X0] = min(components[root, X0], x0)
    components[root, Y0] = min(components[root, Y0], y0)
    components[root, X1] = max(components[root, X1], x1)
    components[root, Y1] = max(components[root, Y1], y1)


@compiled
def _grown(table: I32) -> I32:
    larger = np.empty((2 * len(table), table.shape[1]), np.int32)
    for row in range(len(table)):
        for column in range(table.shape[1]):
            larger[row, column] = table[row, column]
    return larger


@compiled
def lowest_level(tree: Tree, branch: int, record: int) -> int:
    """Return the lowest level at which a branch has the box of a record."""
    following = tree.records[record, NEXT]
    return int(tree.branches[branch, MERGED] if following == NONE else tree.records[following, TOP] + 1)


@compiled
def branch_at(branches: I32, branch: int, level: int) -> int:
    """Return the branch that `branch` has become part of at a level."""
    while branches[branch, MERGED] > level:
        branch = branches[branch, INTO]
    return branch
