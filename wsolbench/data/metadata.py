"""Reader of the reference evaluator's metadata folders: ids, labels, sizes, and boxes or masks of one split.

Source: the file format of clovaai/wsolevaluation (commit 96f4b88), `metadata/<data set>/<train|val|test>/`: one record a
line, comma-separated, no header, no quoting. Boxes are integers (x0, y0, x1, y1) in original pixels with x1 = x0 + width,
clipped to the last pixel. Whatever does not hold together is refused with the file, the line and the value at fault.
"""
# n images, M boxes of all images, N boxes of one image, H W image

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from wsolbench.data.ids import EXPECTED, is_safe
from wsolbench.data.lists import SIGNED, Index, Ints, Lines, boxes_per_image, ids_of, read_lines
from wsolbench.errors import WsolbenchError

IDS = "image_ids.txt"
PROXY_IDS = "image_ids_proxy.txt"
LABELS = "class_labels.txt"
SIZES = "image_sizes.txt"
LOCALIZATION = "localization.txt"
MAX_CLASSES = 100_000  # a larger number is a mistake, and would make a table of as many classes


@dataclass(frozen=True)
class MaskFiles:
    """Ids of an image's mask files: one per instance, and the one of the region to ignore ("": nothing is ignored)."""

    masks: tuple[str, ...]
    ignore: str


@dataclass(frozen=True)
class Located:
    """What an annotation file says of its image: boxes [N, 4], and (height, width) where it tells them."""

    boxes_N4: Ints
    size_HW: tuple[int, int] | None = None


@dataclass(frozen=True)
class AnnotationFiles:
    """Annotation files, one per image, read when an image's annotation is asked for and not before."""

    paths: list[Path]  # per image
    read: Callable[[Path, str, int], Located]  # from path, id and label; `WsolbenchError` names the file
    sizes_bind: bool = (
        True  # an image of another size than its file says is refused; False: the image's own size counts
    )

    def __getitem__(self, indices: Sequence[int]) -> AnnotationFiles:
        return replace(self, paths=[self.paths[index] for index in indices])


@dataclass(frozen=True, eq=False)
class Metadata:
    """What is known of a split without opening an image, in evaluation order; whatever the layout on disk was."""

    folder: Path  # where the lists lie
    ids: list[str]
    labels: Ints  # [n]
    sizes_HW: Ints | None = None  # [n, 2]; None: no list tells them
    boxes_M4: Ints | None = None  # [M, 4], the boxes of an image in one piece; None: the split has no boxes
    first_box: Ints | None = None  # [n + 1]: the boxes of image i are rows first_box[i] .. first_box[i + 1] - 1
    located: AnnotationFiles | None = None  # where each image has an annotation file; boxes_M4 is None then
    masks: list[MaskFiles] | None = None  # per image; None: the split has no masks
    masks_in: Path | None = None  # the folder of mask files; None: that of the images
    mask_above: int = 0  # grey values of mask files above it are foreground
    clipped: int = 0  # boxes that ended at x1 = width or y1 = height
    images: Path | None = None  # the folder of this split's images; None: the data set knows
    files: list[str] | None = None  # image files below the folder of images; None: they are the ids
    sources: Mapping[str, Path] = field(default_factory=dict)  # labels, sizes, localization: the files that tell them

    def __len__(self) -> int:
        return len(self.ids)

    def file(self, index: int) -> str:
        """An image's file, relative to the folder of images."""
        return self.ids[index] if self.files is None else self.files[index]

    def source(self, what: str) -> Path:
        """The file that tells "labels", "sizes" or "localization"; the folder where none was named."""
        return self.sources.get(what, self.folder)

    @property
    def has_boxes(self) -> bool:
        return self.boxes_M4 is not None or self.located is not None

    def locate(self, index: int) -> Located | None:
        """What an image's own annotation file says; None where there is none such."""
        if self.located is None:
            return None
        return self.located.read(self.located.paths[index], self.ids[index], int(self.labels[index]))

    def boxes(self, index: int) -> Ints | None:
        """The boxes [N, 4] of an image, N >= 1, as the lists have them; None where the split has none."""
        if (located := self.locate(index)) is not None:
            return located.boxes_N4
        if self.boxes_M4 is None or self.first_box is None:
            return None
        return self.boxes_M4[self.first_box[index] : self.first_box[index + 1]]

    def subset(self, indices: Sequence[int]) -> Metadata:
        """The images at `indices`, in that order."""
        chosen = np.asarray(indices, np.int64)
        boxes_M4, first_box = self.boxes_M4, self.first_box
        if boxes_M4 is not None and first_box is not None:
            boxes_M4 = np.concatenate([boxes_M4[first_box[i] : first_box[i + 1]] for i in indices])
            first_box = np.append(0, np.cumsum(np.diff(first_box)[chosen])).astype(np.int64)
        return replace(
            self,
            ids=[self.ids[index] for index in indices],
            labels=self.labels[chosen],
            sizes_HW=None if self.sizes_HW is None else self.sizes_HW[chosen],
            boxes_M4=boxes_M4,
            first_box=first_box,
            located=None if self.located is None else self.located[indices],
            masks=None if self.masks is None else [self.masks[index] for index in indices],
            files=None if self.files is None else [self.files[index] for index in indices],
        )


def read_metadata(folder: str | Path, *, proxy: bool = False) -> Metadata:
    """Read the metadata folder of one split.

    Line ends of Windows, a missing last line end and blank lines are accepted. `image_sizes.txt` and `localization.txt`
    may be absent or empty; where they hold anything they must cover exactly the ids of `image_ids.txt`, in any order. A box that
    ends at x1 = width or y1 = height is clipped to the last pixel, and the number of such boxes is warned of.

    Args:
        folder: holds image_ids.txt, class_labels.txt, image_sizes.txt, localization.txt.
        proxy: take the reduced list of images in image_ids_proxy.txt.

    Raises:
        WsolbenchError: a file is missing or one of its lines cannot be right; the sentence names file, line and value.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> files = {IDS: "a.jpg", LABELS: "a.jpg,3", SIZES: "a.jpg,500,335", LOCALIZATION: "a.jpg,60,27,385,331"}
    >>> written = [(folder / name).write_text(text) for name, text in files.items()]
    >>> metadata = read_metadata(folder)
    >>> metadata.ids, metadata.labels.tolist(), metadata.sizes_HW.tolist(), metadata.boxes(0).tolist()
    (['a.jpg'], [3], [[335, 500]], [[60, 27, 385, 331]])
    """
    folder = Path(folder)
    ids = ids_of(_lines(folder / IDS))
    index = Index(folder / IDS, ids)
    labels = _read_labels(folder / LABELS, index)
    sizes_HW = _read_sizes(folder / SIZES, index)
    sources = {"labels": folder / LABELS, "sizes": folder / SIZES, "localization": folder / LOCALIZATION}
    metadata = _read_localization(Metadata(folder, ids, labels, sizes_HW, sources=sources), index)
    if metadata.clipped:
        warnings.warn(
            f"'{folder / LOCALIZATION}': {metadata.clipped} boxes end at x1 = width or y1 = height; "
            "they are clipped to the last pixel, as the reference metadata is",
            stacklevel=2,
        )
    return _reduced(metadata, index) if proxy else metadata


def count_ids(folder: str | Path) -> int:
    """How many images a metadata folder lists, without checking them; 0 where it lists none."""
    path = Path(folder, IDS)
    return sum(1 for line in _lines(path).text if line) if path.is_file() else 0


# --- files -----------------------------------------------------------------------------------------------------------


def _lines(path: Path) -> Lines:
    return read_lines(path, f"{IDS}, {LABELS}, {SIZES} and {LOCALIZATION} in '{path.parent}'")


def _read_labels(path: Path, index: Index) -> Ints:
    lines = _lines(path)
    numbers, where, values = index.place_integers(lines, 1, "<id>,<class>, a whole number from 0")
    lines.refuse_any(numbers, values[:, 0] >= MAX_CLASSES, f"a class number below {MAX_CLASSES:,}")
    labels = np.empty(len(index.ids), np.int64)
    labels[where] = values[:, 0]
    return labels


def _read_sizes(path: Path, index: Index) -> Ints | None:
    if not path.is_file() or not any((lines := _lines(path)).text):
        return None
    expected = "<id>,<width>,<height>, whole numbers from 1"
    numbers, where, sizes_WH = index.place_integers(lines, 2, expected)
    lines.refuse_any(numbers, (sizes_WH < 1).any(1), expected)
    sizes_HW = np.empty_like(sizes_WH)
    sizes_HW[where] = sizes_WH[:, ::-1]
    return sizes_HW


def _read_localization(metadata: Metadata, index: Index) -> Metadata:
    """The metadata with its boxes or masks, whichever the first line shows."""
    path = metadata.folder / LOCALIZATION
    if not path.is_file() or not any((lines := _lines(path)).text):
        return metadata
    number, first = next((number, line) for number, line in enumerate(lines.text, 1) if line)
    if first.count(",") == 4:
        return _with_boxes(metadata, lines, index)
    if first.count(",") == 2:
        return replace(metadata, masks=_read_masks(lines, index))
    lines.refuse(number, "<id>,<x0>,<y0>,<x1>,<y1> or <id>,<mask file>,<ignore file>")


def _with_boxes(metadata: Metadata, lines: Lines, index: Index) -> Metadata:
    expected = "<id>,<x0>,<y0>,<x1>,<y1>, whole numbers of pixels"
    numbers, where, boxes = index.place_integers(lines, 4, expected, number=SIGNED, once=False)
    boxes_M4, first_box, clipped = boxes_per_image(lines, numbers, where, boxes, metadata.sizes_HW, len(index.ids))
    return replace(metadata, boxes_M4=boxes_M4, first_box=first_box, clipped=clipped)


def _read_masks(lines: Lines, index: Index) -> list[MaskFiles]:
    masks: list[list[str]] = [[] for _ in index.ids]
    ignored = [""] * len(index.ids)
    expected = "<id>,<mask file>,<ignore file or nothing>"
    for number, image, (mask, ignore) in index.place(lines, "([^,]+),([^,]*)", expected):
        if not is_safe(mask) or (ignore and not is_safe(ignore)):
            lines.refuse(number, f"mask files as {EXPECTED}")
        if ignore and ignored[image] not in ("", ignore):
            lines.refuse(number, f"one ignore file per image, but an earlier line names {ignored[image]!r}")
        masks[image].append(mask)
        ignored[image] = ignore or ignored[image]
    return [MaskFiles(tuple(files), ignore) for files, ignore in zip(masks, ignored, strict=True)]


def _reduced(metadata: Metadata, index: Index) -> Metadata:
    path = metadata.folder / PROXY_IDS
    chosen = ids_of(_lines(path))
    unknown = next((id for id in chosen if id not in index.at), None)
    if unknown is not None:
        raise WsolbenchError(f"'{path}' lists {unknown!r}, expected ids of '{IDS}' in the same folder")
    return metadata.subset([index.at[id] for id in chosen])
