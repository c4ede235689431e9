"""Draws one image of `badges`: a photo crop, distractors, and objects with a striped body and a badge at one end.

Everything is integer arithmetic on integer random numbers, so that every machine draws the same bytes. Lengths are in
pixels; the geometry works in 1/128 pixel, and directions are 64ths of a turn from a table scaled by 64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import cos, isqrt, pi

import numpy as np
import numpy.typing as npt

from wsolbench_datasets.badges.glyphs import randint

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

SIZE = 64
BANDS = {"train": (0, 320), "val": (320, 448), "test": (448, 640)}  # photo columns [start, stop) of each split
# No entry of 64 cos lies near a half, so its rounding cannot differ between maths libraries.
_COS = tuple(round(64 * cos(2 * pi * k / 64)) for k in range(64))
_Y, _X = np.meshgrid(2 * np.arange(SIZE, dtype=np.int64) + 1, 2 * np.arange(SIZE, dtype=np.int64) + 1, indexing="ij")

# Two colours and a stripe period per texture; the direction follows from the index.
TEXTURES: tuple[tuple[tuple[int, int, int], tuple[int, int, int], int], ...] = (
    ((205, 60, 60), (50, 150, 160), 6),
    ((215, 225, 90), (150, 185, 60), 8),
    ((90, 50, 130), (190, 60, 90), 5),
    ((225, 100, 90), (60, 30, 40), 8),
    ((120, 70, 140), (225, 205, 80), 6),
    ((240, 160, 90), (120, 60, 110), 5),
    ((235, 140, 110), (245, 190, 130), 8),
    ((60, 160, 90), (150, 40, 50), 6),
    ((70, 200, 180), (40, 110, 130), 5),
    ((90, 110, 215), (205, 215, 240), 8),
    ((190, 80, 180), (240, 190, 220), 6),
    ((110, 70, 40), (200, 165, 110), 5),
    ((40, 70, 140), (230, 140, 50), 6),
    ((90, 190, 70), (30, 80, 50), 8),
    ((200, 200, 205), (80, 85, 95), 5),
    ((230, 60, 130), (90, 200, 220), 6),
)


@dataclass(frozen=True)
class Plan:
    """What the composer is asked for; the meaning of the fields is that of the data set's options."""

    classes: int
    part_share: float
    lengths: tuple[int, int]
    clutter: int
    agreement: float
    objects: int


@dataclass(frozen=True)
class Drawn:
    """One composed image: uint8 [64, 64, 3] and [64, 64], boxes and badge boxes [N, 4], texture indices in sight."""

    image_HW3: Bytes
    mask_HW: Bytes
    boxes_N4: Ints
    parts_N4: Ints
    textures: tuple[int, ...]


@dataclass(frozen=True)
class _Pose:
    """Where an object lies: centre in half pixels, direction in 64ths of a turn, extents in pixels."""

    x: int
    y: int
    turn: int
    length: int
    width: int
    badge: int  # diameter
    taper: int = 0  # the body widens towards the badge by this many 256ths of its width
    boxy: bool = False  # a rounded box instead of an ellipse

    def frame(self) -> tuple[Ints, Ints]:
        """Coordinates along and across the object's axis, in 1/128 pixel."""
        c, s = _direction(self.turn)
        return (_X - self.x) * c + (_Y - self.y) * s, (_Y - self.y) * c - (_X - self.x) * s


def _direction(turn: int) -> tuple[int, int]:
    return _COS[turn % 64], _COS[(turn - 16) % 64]


def compose(
    rng: np.random.RandomState, label: int, glyphs: Sequence[npt.NDArray[np.integer]], plan: Plan, split: str
) -> Drawn:
    """Draw one image of class `label` whose objects bear `glyphs` ([8, 8], ink 0 to 16), one for each object."""
    canvas = _background(rng, split)
    agrees = randint(rng, 0, 999) < round(1000 * plan.agreement)
    other = (label + randint(rng, 1, plan.classes - 1)) % plan.classes
    texture = label if agrees else other
    seen = {texture}
    for _ in range(randint(rng, min(1, plan.clutter), plan.clutter)):
        # Half of the distractors wear the object's own stripes: texture alone cannot tell an object from clutter.
        worn = texture if randint(rng, 0, 1) else randint(rng, 0, plan.classes - 1)
        shape = _distractor(rng)
        canvas[shape] = _stripes(rng, worn)[shape]
        if shape.any():
            seen.add(worn)
    occupied = np.zeros((SIZE, SIZE), dtype=bool)
    boxes, parts = [], []
    for glyph in glyphs:
        for _ in range(30):
            pose = _pose(rng, plan)
            body, plate = _body(pose), _plate(pose)
            whole = body | plate
            if not (occupied & whole).any():
                break
        else:
            continue  # no room left beside the objects that are there
        occupied |= whole
        canvas[body] = _stripes(rng, texture)[body]
        _badge(rng, canvas, pose, plate, glyph)
        boxes.append(tight_box(whole))
        parts.append(tight_box(plate))
    gain = randint(rng, 210, 280)
    noise = rng.randint(-10, 11, size=canvas.shape, dtype=np.int64)
    image = np.clip((canvas * gain >> 8) + noise, 0, 255).astype(np.uint8)
    return Drawn(image, occupied.astype(np.uint8), np.stack(boxes), np.stack(parts), tuple(sorted(seen)))


def tight_box(mask: Bools) -> Ints:
    """Bounding box [4] of a mask with the reference's corners: x1 = x0 + width, at most W - 1 (y alike)."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = mask.shape
    return np.array([xs[0], ys[0], min(int(xs[-1]) + 1, width - 1), min(int(ys[-1]) + 1, height - 1)], dtype=np.int64)


@cache
def _photos(split: str) -> tuple[Ints, ...]:
    """The split's band of each photo at full and at half resolution, [h, w, 3]."""
    from sklearn.datasets import load_sample_images

    start, stop = BANDS[split]
    bands = []
    for photo in load_sample_images().images:
        band = photo[:426, start:stop].astype(np.int64)
        half = band.reshape(213, 2, (stop - start) // 2, 2, 3).sum((1, 3)) >> 2
        bands += [band, half]
    return tuple(bands)


def _background(rng: np.random.RandomState, split: str) -> Ints:
    photo = _photos(split)[randint(rng, 0, 3)]
    y, x = randint(rng, 0, photo.shape[0] - SIZE), randint(rng, 0, photo.shape[1] - SIZE)
    crop = photo[y : y + SIZE, x : x + SIZE][:, :: 2 * randint(rng, 0, 1) - 1]
    crop = crop[..., rng.permutation(3)]  # other hues from the same real texture: two photos alone are few
    return (crop * randint(rng, 150, 290) >> 8) + randint(rng, -20, 30)


def _stripes(rng: np.random.RandomState, texture: int) -> Ints:
    """The texture all over the frame, [64, 64, 3], with jittered colours, direction and phase."""
    first, second, period = TEXTURES[texture]
    c, s = _direction(4 + 8 * texture + randint(rng, -1, 1))
    phase = randint(rng, 0, 128 * period)
    band = (_X * c + _Y * s + phase) // (64 * period) & 1
    pair = np.array([first, second]) + rng.randint(-18, 19, size=(2, 3), dtype=np.int64)
    colours: Ints = pair[band]
    return colours


def _distractor(rng: np.random.RandomState) -> Bools:
    """A bar, ring, half disc or blob anywhere in the frame, also cut by its edge: [64, 64]."""
    kind, turn = randint(rng, 0, 3), randint(rng, 0, 63)
    x, y = randint(rng, 4, 2 * SIZE - 4), randint(rng, 4, 2 * SIZE - 4)
    along, across = _Pose(x, y, turn, 0, 0, 0).frame()
    if kind == 0:
        return (abs(along) <= 64 * randint(rng, 22, 44)) & (abs(across) <= 64 * randint(rng, 5, 9))
    distance2 = along * along + across * across
    if kind == 1:
        outer = 128 * randint(rng, 8, 13)
        return (distance2 <= outer * outer) & (distance2 * 4 >= outer * outer)
    if kind == 2:
        radius = 128 * randint(rng, 9, 15)
        return (distance2 <= radius * radius) & (along >= 0)
    blob = np.zeros((SIZE, SIZE), dtype=bool)
    for _ in range(3):
        dx, dy, radius = randint(rng, -768, 768), randint(rng, -768, 768), 128 * randint(rng, 4, 7)
        blob |= (along - dx) ** 2 + (across - dy) ** 2 <= radius * radius
    return blob


def _pose(rng: np.random.RandomState, plan: Plan) -> _Pose:
    """A random object inside the frame whose badge's box is `part_share` of its own."""
    length = randint(rng, *plan.lengths)
    width = max(4, length * randint(rng, 108, 148) >> 8)
    turn = 16 * randint(rng, 0, 3) + randint(rng, -4, 4)
    pose = _Pose(SIZE, SIZE, turn, length, width, 4, taper=randint(rng, -48, 48), boxy=bool(randint(rng, 0, 1)))
    for _ in range(2):  # the object's box depends a little on its badge: the second round is within a pixel
        x0, y0, x1, y1 = (int(value) for value in tight_box(_body(pose) | _plate(pose)))
        badge = (isqrt(4 * round(1000 * plan.part_share) * (x1 - x0) * (y1 - y0) // 1000) + 1) // 2
        pose = replace(pose, badge=min(badge, length - 6))
    c, s = (abs(value) for value in _direction(turn))
    wide = max(width, pose.badge)
    # half extents in half pixels, rounded up, of the rectangle that holds the object
    reach_x, reach_y = -(-(c * length + s * wide) // 64), -(-(s * length + c * wide) // 64)
    x = randint(rng, min(reach_x, SIZE), max(2 * SIZE - reach_x, SIZE))
    y = randint(rng, min(reach_y, SIZE), max(2 * SIZE - reach_y, SIZE))
    return replace(pose, x=x, y=y)


def _body(pose: _Pose) -> Bools:
    """An ellipse or rounded box, a little tapered, from the far end of the object to the middle of the badge."""
    along, across = pose.frame()
    body = max(4, pose.length - pose.badge // 2)
    u = (along + 64 * (pose.length - body)) * 4 // body  # 256 at the end of the body
    half = np.maximum(pose.width * (256 + (pose.taper * u >> 8)) >> 2, 1)  # 1/128 pixel, along the body
    v = across * 256 // half
    power = 4 if pose.boxy else 2
    inside: Bools = (abs(u) <= 256) & (abs(v) <= 256) & (u**power + v**power <= 256**power)
    return inside


def _plate_centre(pose: _Pose) -> tuple[int, int]:
    """Centre of the badge in half pixels."""
    c, s = _direction(pose.turn)
    reach = pose.length - pose.badge
    return pose.x + (reach * c >> 6), pose.y + (reach * s >> 6)


def _plate(pose: _Pose) -> Bools:
    x, y = _plate_centre(pose)
    disc: Bools = (_X - x) ** 2 + (_Y - y) ** 2 <= pose.badge * pose.badge
    return disc


def _badge(rng: np.random.RandomState, canvas: Ints, pose: _Pose, plate: Bools, glyph: npt.NDArray[np.integer]) -> None:
    """Paint the plate and, upright on it, the glyph: bilinear enlargement in 1/256 of a cell."""
    light = randint(rng, 175, 235)
    colour = light + np.array([randint(rng, -8, 20), randint(rng, -8, 8), randint(rng, -40, 12)])
    ink = rng.randint(10, 60, size=3, dtype=np.int64)
    canvas[plate] = colour
    x, y = _plate_centre(pose)
    side = pose.badge * 15 >> 4
    table = np.zeros((11, 11), dtype=np.int64)  # the glyph in a blank frame
    table[1:9, 1:9] = glyph
    gx = ((_X - x) * 1024 // side + 1024 + 128).clip(0, 2304)
    gy = ((_Y - y) * 1024 // side + 1024 + 128).clip(0, 2304)
    column, row, fx, fy = gx >> 8, gy >> 8, gx & 255, gy & 255
    upper = table[row, column] * (256 - fx) + table[row, column + 1] * fx
    lower = table[row + 1, column] * (256 - fx) + table[row + 1, column + 1] * fx
    alpha = np.minimum((upper * (256 - fy) + lower * fy) * 5 >> 16, 64)[..., None]  # ink count 12.8 is already black
    blend = colour + ((ink - colour) * alpha >> 6)
    canvas[plate] = blend[plate]
