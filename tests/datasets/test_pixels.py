"""Pixels of listed images are PIL's, whoever decodes and resizes them."""

from __future__ import annotations

import io
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wsolbench.errors import BadImage
from wsolbench_datasets.listed import resize as _resize
from wsolbench_datasets.listed.decode import as_rgb, decode, opencv_agrees, read_header
from wsolbench_datasets.listed.pixels import MEAN, STD, View, evaluation_view, normalise, training_view, view_pixels
from wsolbench_datasets.listed.resize import ORDERS, pillows_order, resize

PATH = Path("a.jpg")


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def by_pillow(image: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))


def encoded(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def smooth(height: int, width: int) -> Image.Image:
    return Image.fromarray(noise(height // 8 + 1, width // 8 + 1)).resize((width, height), Image.Resampling.BICUBIC)


# --- resize ----------------------------------------------------------------------------------------------------------


def test_the_quick_ways_are_taken_here():
    """Else everything below would compare PIL with itself."""
    assert pillows_order() is not None
    assert opencv_agrees()


def test_resized_pixels_are_pillows():
    rng = np.random.default_rng(1)
    sizes = [
        (375, 500),
        (500, 333),
        (500, 375),
        (1, 1),
        (1, 300),
        (700, 3),
        (224, 224),
        (256, 100),
        (100, 256),
        (2, 900),
    ]
    sizes += [tuple(map(int, np.exp(rng.uniform(0, 6.3, 2)).round())) for _ in range(60)]
    for index, (height, width) in enumerate(sizes):
        image = noise(height, width, index)
        for side in (224, 256, int(rng.integers(1, 99))):
            assert np.array_equal(resize(image, (side, side), order=pillows_order()), by_pillow(image, side)), (
                height,
                width,
                side,
            )


@pytest.mark.parametrize("size_HW", [(375, 500), (500, 333), (90, 70), (256, 256)])
def test_a_part_is_the_part_of_the_whole(size_HW):
    image = noise(*size_HW)
    whole = by_pillow(image, 256)
    for rows, columns in (
        (slice(16, 240), slice(16, 240)),
        (slice(0, 224), slice(223, None, -1)),
        (slice(32, 256), slice(255, 31, -1)),
        (slice(7, 231), slice(230, 6, -1)),
    ):
        assert np.array_equal(resize(image, (256, 256), (rows, columns), order=pillows_order()), whole[rows, columns])


def test_pillow_itself_is_used_where_it_computes_otherwise(monkeypatch):
    monkeypatch.setattr("wsolbench_datasets.listed.pixels.pillows_order", lambda: None)
    monkeypatch.setattr("wsolbench_datasets.listed.pixels.resize", None)
    image = noise(80, 60)
    assert np.array_equal(view_pixels(image, View(224)), by_pillow(image, 224))
    assert np.array_equal(view_pixels(image, evaluation_view("centre-crop")), by_pillow(image, 256)[16:240, 16:240])


@pytest.mark.parametrize("release", range(len(ORDERS)))
def test_the_order_is_found_by_trying(monkeypatch, release):
    """A Pillow of each age, and one that rounds otherwise."""

    class Resized:
        wrong = 0

        def __init__(self, pixels):
            self.pixels = pixels

        def resize(self, size, _):
            return resize(self.pixels, size, order=ORDERS[release]) ^ self.wrong

    monkeypatch.setattr(_resize.Image, "fromarray", Resized)
    for wrong, wanted in ((0, ORDERS[release]), (1, None)):
        Resized.wrong = wrong
        pillows_order.cache_clear()
        found = pillows_order()
        pillows_order.cache_clear()
        assert found is wanted


# --- decode ----------------------------------------------------------------------------------------------------------


def kinds() -> list[bytes]:
    image = smooth(61, 83)
    colour = [encoded(image, quality=quality, subsampling=sub) for quality in (30, 90) for sub in (0, 1, 2)]
    tags = Image.Exif()
    tags[0x0112] = 6  # to be shown turned
    return [
        *colour,
        encoded(image.convert("L")),
        encoded(image.convert("CMYK")),
        encoded(image, progressive=True),
        encoded(image, restart_marker_rows=1),
        encoded(image, keep_rgb=True),
        encoded(image, exif=tags),
        encoded(smooth(1, 1)),
        encoded(smooth(17, 3), subsampling=2),
    ]


@pytest.mark.parametrize("content", kinds())
def test_decoded_pixels_are_pillows(content):
    with Image.open(io.BytesIO(content)) as image:
        wanted = np.asarray(image.convert("RGB"))
    found = decode(read_header(PATH, content), content, PATH)
    assert found.flags.c_contiguous
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "CMYK"])
def test_other_formats_are_pillows_too(mode):
    image = smooth(20, 30).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    file = io.BytesIO()
    image.save(file, "TIFF" if mode == "CMYK" else "PNG")
    with Image.open(file) as again:
        wanted = np.asarray(again.convert("RGB"))
    content = file.getvalue()
    assert np.array_equal(decode(read_header(PATH, content), content, PATH), wanted)


def test_what_is_damaged_is_pillows_answer():
    """Whatever is done to a file, either both read the same pixels or both refuse it with the same words."""

    def outcome(read):
        try:
            return read()
        except BadImage as error:
            return str(error)

    files, refused = kinds(), 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged tags
        for seed in range(600):
            content = _damaged(random.Random(seed), random.Random(seed + 1).choice(files))
            wanted = outcome(lambda: np.asarray(as_rgb(read_header(PATH, content), PATH)))  # noqa: B023
            found = outcome(lambda: decode(read_header(PATH, content), content, PATH))  # noqa: B023
            refused += isinstance(wanted, str)
            assert type(found) is type(wanted), seed
            assert np.array_equal(found, wanted), seed
    assert 100 < refused < 500


def _damaged(draw: random.Random, content: bytes) -> bytes:
    broken = bytearray(content)
    how = draw.randrange(4)
    if how == 0:
        return bytes(broken[: draw.randrange(2, len(broken))])
    if how == 1:
        at = draw.randrange(2, len(broken))
        return bytes(broken[:at] + broken[at + draw.randrange(1, 30) :])
    for _ in range(draw.randrange(1, 4)):  # a marker in the coded pixels, or anything
        at = draw.randrange(2, len(broken) - 1)
        broken[at : at + 2] = bytes([255, draw.randrange(256)]) if how == 2 else draw.randbytes(2)
    return bytes(broken)


# --- views and values ------------------------------------------------------------------------------------------------


def test_values_are_those_of_torch_arithmetic():
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    wanted = (torch.from_numpy(image[0]).permute(2, 0, 1).float() / 255 - MEAN) / STD
    assert normalise(image)[0].equal(wanted)


def test_training_views_are_crops_and_their_mirror_images():
    image = noise(120, 100)
    whole = by_pillow(image, 256)
    seen = set()
    for seed in range(40):
        y, x = torch.randint(0, 33, (2,), generator=(again := torch.Generator().manual_seed(seed))).tolist()
        flipped = bool(torch.rand((), generator=again) < 0.5)
        crop = whole[y : y + 224, x : x + 224]
        view = training_view(torch.Generator().manual_seed(seed))
        assert np.array_equal(view_pixels(image, view), crop[:, ::-1] if flipped else crop)
        seen.add(flipped)
    assert seen == {False, True}
