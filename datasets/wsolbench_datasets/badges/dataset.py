"""`badges`: a data set for weakly supervised localisation made from what ships inside scikit-learn.

Each 64x64 image holds a striped body with a badge at one end that bears a real handwritten digit, the class. The badge is
about 31 % of the object's box, so a classifier may look at a part while ground truth is the whole: WSOL's core difficulty.
The body's stripes are only weakly tied to the class, distractors wear them too, and crops of real photos lie behind.
The variant `letters` puts other symbols on the same kind of object, for pretraining: body plan, textures and training
photos are shared with the benchmark, as much of CUB is with ImageNet.

Drawn by integer arithmetic, the same bytes on every machine (committed SHA-256 per split), once, and kept below
`WSOLBENCH_CACHE` (default ~/.cache/wsolbench). Images are normalised as (value / 255 - 0.5) / 0.25.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import zipfile
from dataclasses import astuple, dataclass, fields
from enum import Enum
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from wsolbench.data import Dataset, DatasetInfo, Split
from wsolbench.errors import MachineError, UsageError, WsolbenchError, unknown
from wsolbench.registry import register_dataset
from wsolbench.system.files import atomically
from wsolbench.system.hashing import stable_seed
from wsolbench.types import Annotation, Sample
from wsolbench_datasets.badges.compose import SIZE, TEXTURES, Plan, compose
from wsolbench_datasets.badges.glyphs import LETTERS, digit_pools, draw_letter, randint

REVISION = "1"  # moves when any byte of an image or annotation moves
MEAN, STD = 0.5, 0.25
SHIFT = 4  # pixels by which augmentation moves an image at most

# SHA-256 of the default configuration's splits: images, labels, boxes, masks, badge boxes, textures.
DIGESTS = {
    "train": "73326824e761b7995f4bd43bda788a43aafc36ed5cb98aa001ff7b5aabdbdde8",
    "val": "ead52490f531ae6567b27b1288c033f88b0602fefcec8b28a2accdb8d3fe6cd8",
    "test": "526f8c537aa5dcc921f7783f0ce637e7f3afac7fefbee10b54a4a28c666c3a21",
}


class Variant(Enum):
    digits = "digits"
    letters = "letters"


@dataclass
class BadgesConfig:
    """The dials of the generator; turn them to see why a method fails."""

    part_share: float = 0.31  # badge's box as a share of the object's
    min_length: int = 34  # pixels from end to end of an object, at least
    max_length: int = 54  # and at most
    clutter: int = 2  # distractors per image, at most (at least one unless 0)
    agreement: float = 0.4  # probability that the body wears its class's texture
    objects: int = 1  # objects of the class per image, as many as find room
    train: int = 2000  # images per split
    val: int = 300
    test: int = 600
    variant: Variant = Variant.digits


@dataclass(frozen=True)
class Arrays:
    """A split's content. Rows of boxes beyond an image's objects are -1; textures [n, T] is 1 where a texture is in sight."""

    images_nHW3: npt.NDArray[np.uint8]
    masks_nHW: npt.NDArray[np.uint8]
    boxes_nN4: npt.NDArray[np.int64]
    parts_nN4: npt.NDArray[np.int64]
    textures_nT: npt.NDArray[np.uint8]
    labels_n: npt.NDArray[np.int64]

    def digest(self) -> str:
        """SHA-256 over names, shapes and bytes, the same on machines of either byte order."""
        digest = hashlib.sha256()
        for field in fields(self):
            value = getattr(self, field.name)
            digest.update(f"{field.name}{value.shape}".encode())
            digest.update(np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()


class BadgesSplit(Split):
    """One role of `badges`; its images are drawn, or read from the cache, when first asked for."""

    def __init__(self, name: str, config: BadgesConfig) -> None:
        self.name = name
        self._config = config
        count = getattr(config, name)
        self.ids = [f"{name}/{index:05d}" for index in range(count)]
        self.labels = np.arange(count, dtype=np.int64) % len(class_names(config.variant))
        self._index = {id: index for index, id in enumerate(self.ids)}

    @cached_property
    def arrays(self) -> Arrays:
        """Everything the split holds, as arrays."""
        return _cached(self.name, self._config)

    def sample(self, index: int, augment: torch.Generator | None) -> Sample:
        """The image as float32 [3, 64, 64]; augmented by a shift of up to 4 pixels and by light. Digits are not flipped."""
        image = torch.from_numpy(self.arrays.images_nHW3[index]).permute(2, 0, 1).float().div(255)
        if augment is not None:
            image = _augmented(image, augment)
        return Sample(self.ids[index], ((image - MEAN) / STD).contiguous(), int(self.labels[index]))

    def picture(self, index: int) -> npt.NDArray[np.uint8]:
        """The image as it was drawn, [64, 64, 3]."""
        image_HW3: npt.NDArray[np.uint8] = self.arrays.images_nHW3[index]
        return image_HW3

    def annotation(self, id: str) -> Annotation:
        """Boxes and mask of the image's objects, exact to the pixel."""
        index = self._at(id)
        boxes = self.arrays.boxes_nN4[index]
        return Annotation(id, (SIZE, SIZE), boxes[boxes[:, 0] >= 0], self.arrays.masks_nHW[index])

    def part_box(self, id: str) -> npt.NDArray[np.int64]:
        """Boxes of the badges, [N, 4], in the order and with the corners of the annotation's boxes."""
        parts = self.arrays.parts_nN4[self._at(id)]
        present: npt.NDArray[np.int64] = parts[parts[:, 0] >= 0]
        return present

    def _at(self, id: str) -> int:
        if id not in self._index:
            raise unknown(f"image of badges/{self.name}", id, self.ids[:3])
        return self._index[id]


@register_dataset("badges")
class Badges(Dataset):
    """Striped bodies with a digit's badge at one end, composed from scikit-learn's digits and photos (embedded)."""

    Config = BadgesConfig
    config: BadgesConfig

    def __init__(self, config: BadgesConfig, *, root: str | Path | None = None) -> None:
        super().__init__(config, root=root)
        _check(config)

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo(
            title="badges",
            citation=(
                "Digits: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, "
                "1998 (scikit-learn load_digits). Photos: china.jpg by danielbuechele, flower.jpg by vultilion, Flickr "
                "(scikit-learn load_sample_images)."
            ),
            licence="digits CC BY 4.0 (UCI); photos CC BY 2.0; neither is redistributed, both are read from scikit-learn",
            revision=REVISION,
            class_names=class_names(self.config.variant),
            resolution_HW=(SIZE, SIZE),
            counts={name: getattr(self.config, name) for name in self.splits},
            has_boxes=True,
            has_masks=True,
            expected_counts={name: getattr(self.config, name) for name in self.splits},
            preprocessing="drawn at 64x64; train shifted by up to 4 pixels and changed in light",
            val_source="drawn by the generator around digits that neither train nor test uses",
        )

    def split(self, name: str) -> BadgesSplit:
        if name not in self.splits:
            raise unknown("split of badges", name, self.splits)
        return BadgesSplit(name, self.config)


def class_names(variant: Variant) -> tuple[str, ...]:
    """The symbols that the badges of a variant bear."""
    return LETTERS if variant is Variant.letters else tuple("0123456789")


def _check(config: BadgesConfig) -> None:
    for name, low, high in (
        ("part_share", 0.05, 0.8),
        ("agreement", 0.0, 1.0),
        ("min_length", 16, config.max_length),
        ("max_length", config.min_length, 58),
        ("clutter", 0, 32),
        ("objects", 1, 8),
        ("train", 1, 10**6),
        ("val", 1, 10**6),
        ("test", 1, 10**6),
    ):
        value = getattr(config, name)
        if not low <= value <= high:
            raise UsageError(f"option {name} of data set 'badges' is {value}; it must lie between {low} and {high}")


def _augmented(image_CHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shift with repeated edges, then contrast and a gain and offset per channel; values stay in [0, 1]."""
    dy, dx = (int(value) for value in torch.randint(0, 2 * SHIFT + 1, (2,), generator=generator))
    padded = F.pad(image_CHW[None], (SHIFT,) * 4, mode="replicate")[0]
    shifted = padded[:, dy : dy + SIZE, dx : dx + SIZE]
    gain, offset = torch.rand((2, 3, 1, 1), generator=generator).sub(0.5)
    contrast = 1 + 0.4 * (torch.rand((), generator=generator) - 0.5)
    lit: torch.Tensor = (shifted - 0.5) * contrast * (1 + 0.2 * gain) + 0.5 + 0.15 * offset
    return lit.clamp(0, 1)


def draw(name: str, config: BadgesConfig) -> Arrays:
    """Compose a split. An image depends on its own index alone, so smaller counts are prefixes of larger ones."""
    names, count = class_names(config.variant), getattr(config, name)
    plan = Plan(
        classes=len(names),
        part_share=config.part_share,
        lengths=(config.min_length, config.max_length),
        clutter=config.clutter,
        agreement=config.agreement,
        objects=config.objects,
    )
    images = np.zeros((count, SIZE, SIZE, 3), np.uint8)
    masks = np.zeros((count, SIZE, SIZE), np.uint8)
    boxes = np.full((count, config.objects, 4), -1, np.int64)
    parts = np.full((count, config.objects, 4), -1, np.int64)
    textures = np.zeros((count, len(TEXTURES)), np.uint8)
    labels = np.arange(count, dtype=np.int64) % len(names)
    for index, label in enumerate(labels):
        rng = np.random.RandomState(stable_seed("badges", REVISION, config.variant.value, name, index) % 2**32)
        glyphs = [_glyph(rng, config.variant, name, int(label)) for _ in range(config.objects)]
        drawn = compose(rng, int(label), glyphs, plan, name)
        images[index], masks[index] = drawn.image_HW3, drawn.mask_HW
        boxes[index, : len(drawn.boxes_N4)] = drawn.boxes_N4
        parts[index, : len(drawn.parts_N4)] = drawn.parts_N4
        textures[index, list(drawn.textures)] = 1
    return Arrays(images, masks, boxes, parts, textures, labels)


def _glyph(rng: np.random.RandomState, variant: Variant, split: str, label: int) -> npt.NDArray[np.integer]:
    if variant is Variant.letters:
        return draw_letter(label, rng)
    pool = digit_pools(split)[label]
    glyph: npt.NDArray[np.integer] = pool[randint(rng, 0, len(pool) - 1)]
    return glyph


def cache_folder() -> Path:
    """Where drawn splits are kept."""
    return Path(os.environ.get("WSOLBENCH_CACHE") or Path.home() / ".cache" / "wsolbench")


def _cached(name: str, config: BadgesConfig) -> Arrays:
    """The split from the cache, or drawn and put there; a damaged file is drawn again, and racing processes agree."""
    expected = DIGESTS.get(name) if config == BadgesConfig() else None
    key = hashlib.sha256(f"{REVISION}|{astuple(config)!r}".encode()).hexdigest()[:16]
    path = cache_folder() / "badges" / f"{name}-{key}.npz"
    kept = _read(path)
    if kept is not None and expected in (None, kept.digest()):
        return kept
    arrays = draw(name, config)
    if expected not in (None, arrays.digest()):
        raise WsolbenchError(
            f"data set 'badges' came out differently here: split {name} has SHA-256 {arrays.digest()} instead of {expected}; "
            "scikit-learn's digits or photos are not the known files, or another JPEG decoder read the photos"
        )
    _write(path, arrays)
    return arrays


def _read(path: Path) -> Arrays | None:
    """The arrays of a cache file; None where it is absent, damaged, or not what its own digest says."""
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = Arrays(**{field.name: content[field.name] for field in fields(Arrays)})
            return arrays if str(content["digest"]) == arrays.digest() else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _write(path: Path, arrays: Arrays) -> None:
    """Keep the arrays; a cache that cannot be written costs time, not the run."""
    buffer = io.BytesIO()
    np.savez(buffer, digest=arrays.digest(), **{field.name: getattr(arrays, field.name) for field in fields(arrays)})
    with contextlib.suppress(MachineError), atomically(path, shared=True) as temporary:
        temporary.write_bytes(buffer.getvalue())
