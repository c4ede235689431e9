"""Pseudo-boxes: one box per image that no person drew, in place of a split's ground truth where a protocol selects.

Source: the realistic protocol of Murtaza et al., WACV 2025, https://arxiv.org/abs/2404.10034, and the files released with it
(`metadata_generated_by_<generator>/<data set>/val/`): the reference evaluator's metadata format (`wsolbench.data.metadata`) with
exactly one box per image and a `localization_iou.txt` for people to read. `wsolbench data pseudo-boxes` writes the same
format, with a `source.json` beside it.
"""
# H W image

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from wsolbench.data.lists import Ints
from wsolbench.data.metadata import IDS, LABELS, LOCALIZATION, SIZES, read_metadata
from wsolbench.errors import WsolbenchError, unknown
from wsolbench.registry import slug
from wsolbench.system.files import write_text
from wsolbench.types import Annotation

if TYPE_CHECKING:
    from wsolbench.data.split import Split

SOURCE = "source.json"
MEAN_IOU = "localization_iou.txt"
RELEASED: dict[str, tuple[str, str | None]] = {  # the folders of the files released with the paper; models behind them
    "metadata_generated_by_selective_search_bboxs": ("selective-search", None),
    "metadata_generated_by_clip_maps": ("clip", "CLIP, pretrained with images and captions"),
    "metadata_generated_by_rpn_bboxs": ("rpn", "a pretrained region proposal network"),
}


class HasLabels(Protocol):
    """A split, as far as lists of its images need one."""

    ids: list[str]
    labels: Ints


@dataclass(frozen=True, eq=False)
class PseudoBoxes:
    """One box (x0, y0, x1, y1) per image in original pixels, x1 = x0 + width clipped to the last pixel."""

    source: str  # who made them: "selective-search", "clip", "rpn", "segments", ...
    boxes: Mapping[str, Ints]  # id -> int64 [4]
    sizes_HW: Mapping[str, tuple[int, int]]  # id -> of the image
    sha256: str  # of the files, line ends aside
    clipped: int = 0  # boxes of the files that ended at x1 = width or y1 = height
    external: str | None = (
        "unknown"  # models of others that had a part in it, and how they were trained; None: none had
    )

    def __len__(self) -> int:
        return len(self.boxes)

    def annotation(self, id: str) -> Annotation:
        """The image's one box, in the shape in which a split gives ground truth."""
        if id not in self.boxes:
            raise unknown(f"image of the pseudo-boxes '{self.source}'", id, list(self.boxes)[:3])
        return Annotation(id, self.sizes_HW[id], self.boxes[id][None])


def read_pseudo_boxes(folder: str | Path, split: Split) -> PseudoBoxes:
    """Read the pseudo-boxes of a split's images; the split's own annotations are not looked at.

    The files may hold more images than the split if it is a `Subset` of another. Boxes that touch x1 = width or
    y1 = height are clipped, and the number of such boxes is warned of.

    Args:
        folder: holds image_ids.txt, class_labels.txt, image_sizes.txt, localization.txt; a last line end may be missing.
        split: whose ids and labels must agree with the files.

    Raises:
        WsolbenchError: a file is missing or damaged, an image has no box or several, a box lies outside of its image, or
            ids or labels are not those of the split; the sentence names file, image and values.

    >>> import tempfile
    >>> from wsolbench import create_dataset
    >>> split = create_dataset("badges", val=1).split("val")
    >>> write_pseudo_boxes(folder := tempfile.mkdtemp(), split, [(64, 64)], [(3, 4, 20, 30)], {"source": "by hand"})
    >>> boxes = read_pseudo_boxes(folder, split)
    >>> boxes.source, boxes.boxes["val/00000"].tolist(), boxes.annotation("val/00000").size_HW
    ('by-hand', [3, 4, 20, 30], (64, 64))
    """
    folder = Path(folder)
    metadata = read_metadata(folder)
    if metadata.boxes_M4 is None or metadata.first_box is None:
        raise WsolbenchError(
            f"'{folder / LOCALIZATION}' holds no boxes; expected <id>,<x0>,<y0>,<x1>,<y1> for each image"
        )
    if metadata.sizes_HW is None:
        raise WsolbenchError(f"'{folder / SIZES}' holds no sizes; expected <id>,<width>,<height> for each image")
    counts = np.diff(metadata.first_box)
    for index in np.flatnonzero(counts != 1)[:1]:
        raise WsolbenchError(
            f"'{folder / LOCALIZATION}' holds {counts[index]} boxes of {metadata.ids[index]!r}, expected exactly one "
            "pseudo-box per image"
        )
    at = {id: index for index, id in enumerate(metadata.ids)}
    _check_images(folder, at, split)
    for id, label in zip(split.ids, split.labels.tolist(), strict=True):
        if metadata.labels[at[id]] != label:
            raise WsolbenchError(
                f"'{folder / LABELS}' says class {metadata.labels[at[id]]} of {id!r}, but the data set says {label}: these "
                "are pseudo-boxes of another data set or split"
            )
    height_width = metadata.sizes_HW.tolist()
    source, external = _source_of(folder)
    return PseudoBoxes(
        source=source,
        boxes={id: metadata.boxes_M4[at[id]] for id in split.ids},
        sizes_HW={id: (height_width[at[id]][0], height_width[at[id]][1]) for id in split.ids},
        sha256=_sha256(folder),
        clipped=metadata.clipped,
        external=external,
    )


def write_pseudo_boxes(
    folder: str | Path,
    split: HasLabels,
    sizes_HW: Sequence[tuple[int, int]],
    boxes: Sequence[tuple[int, int, int, int]],
    source: Mapping[str, object],
) -> None:
    """Write pseudo-boxes, in the order of `split.ids`, in the released format: no line end after the last line.

    `localization.txt` comes last, so that a folder which has it is whole. `source` is what `source.json` says; its
    "source" names the generator.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = list(zip(split.ids, split.labels.tolist(), sizes_HW, boxes, strict=True))
    files = {
        SOURCE: [json.dumps(dict(source), indent=2, ensure_ascii=False)],
        IDS: split.ids,
        LABELS: [f"{id},{label}" for id, label, _, _ in rows],
        SIZES: [f"{id},{width},{height}" for id, _, (height, width), _ in rows],
        LOCALIZATION: [f"{id},{','.join(map(str, box))}" for id, _, _, box in rows],
    }
    for name, lines in files.items():
        write_text(folder / name, "\n".join(lines))


def _check_images(folder: Path, at: Mapping[str, int], split: Split) -> None:
    from wsolbench.data.split import Subset

    missing = [id for id in split.ids if id not in at]
    if missing:
        raise WsolbenchError(
            f"'{folder}' has no pseudo-box for {len(missing)} of the {len(split.ids)} images of the split, first "
            f"{missing[0]!r}; it holds {len(at)} images, first {next(iter(at))!r}"
        )
    if len(at) > len(split.ids) and not isinstance(split, Subset):
        known = set(split.ids)
        foreign = [id for id in at if id not in known]
        raise WsolbenchError(
            f"'{folder}' has pseudo-boxes of {len(foreign)} images which the split does not have, first {foreign[0]!r}: "
            "they are of another data set or split"
        )


def _source_of(folder: Path) -> tuple[str, str | None]:
    """Generator and the models behind it: by `source.json`, else a released folder's name, else the folder's own name."""
    path = folder / SOURCE
    if path.is_file():
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            name, external = content["source"], content.get("external", "unknown")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise WsolbenchError(f"'{path}' cannot be read; expected a JSON object with the key 'source'") from error
        if isinstance(name, str) and slug(name):
            return slug(name), None if external is None else str(external)
        raise WsolbenchError(f"'{path}' says source {name!r}, expected a name")
    folder = folder.absolute()
    return next((RELEASED[part] for part in folder.parts if part in RELEASED), (slug(folder.name), "unknown"))


def _sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in (IDS, LABELS, SIZES, LOCALIZATION):
        content = (folder / name).read_bytes().replace(b"\r\n", b"\n").strip(b"\n")
        digest.update(f"{name}:{len(content)}\n".encode() + content)
    return digest.hexdigest()
