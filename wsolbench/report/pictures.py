"""Images, true boxes and maps of the few images that a page shows; maps are computed once and cached."""
# B images shown, N boxes of an image, H W evaluation frame

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wsolbench.data.pictures import coloured, pixels
from wsolbench.errors import MachineError, WsolbenchError, reason
from wsolbench.leaderboard.comparison import split_of
from wsolbench.options import Named
from wsolbench.record import RunRecord
from wsolbench.report.gallery import Bytes, Entry, Gallery, Pictures
from wsolbench.system.files import atomically
from wsolbench.system.hashing import digest
from wsolbench.system.progress import Reporter

if TYPE_CHECKING:
    from wsolbench.data.split import Split
    from wsolbench.evaluation.frame import Frame

IMAGE_SIDE = 256  # pixels of the longer side of a picture
MAP_SIDE = 96  # of a map, which is smooth: the browser enlarges it
BATCH = 8


class Illustrator:
    """Fills the pictures of a gallery from a data set at hand."""

    def __init__(self, split: Split, frame: Frame, class_names: tuple[str, ...]) -> None:
        self.split, self.frame = split, frame
        self.pictures = Pictures(class_names, frame.resolution_HW)

    @classmethod
    def of(cls, record: RunRecord, split: str) -> Illustrator:
        """Open the data set of a record; `WsolbenchError` if it is not at hand, or not the one the run saw."""
        from wsolbench.data.dataset import create_dataset
        from wsolbench.evaluation.frame import Frame

        name, options = Named.of(record.config["dataset"])
        dataset = create_dataset(name, root=record.config.get("root"), **options)
        info, seen = dataset.info, record.provenance.get("data_revision")
        if seen is not None and info.revision != seen:
            raise WsolbenchError(f"the data set at hand is revision {info.revision}, the runs saw {seen}")
        images = dataset.split(split)
        has_boxes = info.has_boxes and images.annotated
        frame = Frame(info.resolution_HW, info.has_masks and not has_boxes, has_boxes, info.geometry)
        return cls(images, frame, info.class_names)

    def draw(self, gallery: Gallery, maps: bool, reporter: Reporter) -> Pictures:
        """Read the gallery's images, and compute every entry's maps of them; what cannot be had is noted."""
        pictures = self.pictures
        place = {id: at for at, id in enumerate(self.split.ids)}
        shown = [at for images in gallery.kinds.values() for at in images]
        missing = [gallery.ids[at] for at in shown if gallery.ids[at] not in place]
        if missing:
            raise WsolbenchError(f"the data set at hand has no image '{missing[0]}'")
        indices = [place[gallery.ids[at]] for at in shown]
        for at, index in zip(shown, indices, strict=True):
            pictures.images[at] = self._image(index)
            pictures.truths[at] = self._truth(gallery.ids[at])
            for number, entry in enumerate(gallery.entries):
                if entry.boxes_n4[at, 0] >= 0:
                    pictures.predicted[number, at] = box_path(entry.boxes_n4[at])
        if not maps:
            pictures.no_maps = dict.fromkeys(range(len(gallery.entries)), "maps were not asked for (--no-maps)")
            return pictures
        with reporter.bar("maps of the gallery", len(gallery.entries), unit="methods") as advance:
            for number, entry in enumerate(gallery.entries):
                try:
                    maps_BHW = cached_maps(entry, self.split, indices, self.frame.resolution_HW)
                    for at, map_HW in zip(shown, maps_BHW, strict=True):
                        pictures.maps[number, at] = map_uri(map_HW)
                    if self.frame.has_masks:
                        self._regions(number, entry, dict(zip(shown, maps_BHW, strict=True)), gallery.ids)
                except Exception as error:  # noqa: BLE001  # third-party code runs here: whatever it raises, the page can do without
                    pictures.no_maps[number] = reason(error)
                advance(1)
        return pictures

    def _truth(self, id: str) -> list[str]:
        annotation = self.split.annotation(id)
        if self.frame.has_masks:
            return [outline(self.frame.mask(annotation) == 1)]
        return [box_path(box) for box in self.frame.boxes(annotation)] if self.frame.has_boxes else []

    def _regions(self, number: int, entry: Entry, maps: Mapping[int, Bytes], ids: Sequence[str]) -> None:
        """Where a map reaches the threshold of the run's peak IoU over the whole split, and the IoU with the image's mask."""
        try:
            threshold = peak_threshold(entry)
        except (WsolbenchError, OSError, ValueError, KeyError) as error:
            self.pictures.no_regions[number] = reason(error)
            return
        for at, map_HW in maps.items():
            region_HW = map_HW / 255 >= threshold
            mask_HW = self.frame.mask(self.split.annotation(ids[at]))
            counted_HW = mask_HW != 255
            joined = ((region_HW | (mask_HW == 1)) & counted_HW).sum()
            self.pictures.predicted[number, at] = outline(region_HW)
            self.pictures.values[number, at] = float((region_HW & (mask_HW == 1)).sum() / max(1, joined))

    def _image(self, index: int) -> str:
        if self.frame.content == "resize":
            return image_uri(self.split.picture(index), self.frame.resolution_HW)
        return image_uri(pixels(self.split.sample(index, None).image_CHW), self.frame.resolution_HW)  # the crop seen


def cached_maps(
    entry: Entry, split: Split, indices: Sequence[int], resolution_HW: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """The true class's maps of some images, normalised as the reference does it, 0 .. 255: uint8 [B, H, W].

    They lie in `WSOLBENCH_CACHE`/report (default ~/.cache/wsolbench), under a key made of the run, when it was made, and
    the images.
    """
    record = entry.record
    if record.ledger.is_elsewhere:
        raise WsolbenchError("its maps were made elsewhere; the record keeps boxes alone")
    ids = [split.ids[index] for index in indices]
    made = record.provenance.get("created")
    key = digest(["maps", 1, record.hash, made, record.provenance.get("data_fingerprint"), ids, list(resolution_HW)])
    cache = Path(os.environ.get("WSOLBENCH_CACHE") or Path.home() / ".cache" / "wsolbench") / "report"
    path = cache / f"{key[:32]}.npz"
    if path.is_file():
        try:
            with np.load(path, allow_pickle=False) as file:
                return np.asarray(file["maps"], np.uint8)
        except (OSError, ValueError, KeyError):
            path.unlink(missing_ok=True)  # a damaged one is made again
    maps = _compute(entry, split, indices, resolution_HW)
    with suppress(MachineError), atomically(path, shared=True) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, maps=maps)  # a full or read-only disk: computed anew next time
    return maps


def _compute(
    entry: Entry, split: Split, indices: Sequence[int], resolution_HW: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    import torch

    from wsolbench.boxes.maps import normalize_maps
    from wsolbench.data.batches import collate
    from wsolbench.runs.load import load_run

    method, found = load_run(entry.directory), []
    for first in range(0, len(indices), BATCH):
        batch = collate([split.sample(index, None) for index in indices[first : first + BATCH]])
        with torch.no_grad():
            maps_Bhw = method.localize(batch.images_BCHW, batch.labels_B).maps_Bhw
        found.append(np.rint(255 * normalize_maps(maps_Bhw, resolution_HW)).astype(np.uint8))
    return np.concatenate(found)


def peak_threshold(entry: Entry) -> float:
    """The threshold at which the pixels of the whole split have their peak IoU: a test oracle, as the value is."""
    from wsolbench.evaluation.levels import load_levels

    found = load_levels(entry.directory / "levels.npz")[split_of(entry.record)].pxap()
    if found is None:
        raise WsolbenchError("its outcomes (levels.npz) hold no pixels of masks")
    return found["piou_threshold"]


# --- as text in a page -------------------------------------------------------------------------------------------------


def image_uri(image_HW3: npt.NDArray[np.uint8], resolution_HW: tuple[int, int]) -> str:
    """RGB pixels as a JPEG data URI, with the proportions of the evaluation frame."""
    import cv2

    height, width = resolution_HW
    scale = min(1.0, IMAGE_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return _jpeg(cv2.resize(image_HW3, size, interpolation=cv2.INTER_AREA), 82)


def map_uri(map_HW: npt.NDArray[np.uint8]) -> str:
    """A map of 0 .. 255 in viridis, which colour-blind eyes read too, as a JPEG data URI."""
    import cv2

    height, width = map_HW.shape
    scale = min(1.0, MAP_SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(map_HW, size, interpolation=cv2.INTER_AREA)
    return _jpeg(coloured(np.asarray(small, np.uint8)), 75)


def box_path(box_4: npt.NDArray[Any]) -> str:
    """A box as the path of an SVG."""
    x0, y0, x1, y1 = (int(value) for value in box_4)
    return f"M{x0} {y0}H{x1}V{y1}H{x0}Z"


def outline(region_HW: npt.NDArray[np.bool_]) -> str:
    """The outlines of a region, its holes too, as the path of an SVG that runs along the edges of its pixels."""
    import cv2

    # twice as large, so that contours through the centres of pixels lie a quarter of one inside of their edges
    doubled: Any = region_HW.repeat(2, 0).repeat(2, 1).astype(np.uint8)
    contours, _ = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    path = []
    for contour in contours:
        points = cv2.approxPolyDP(contour, 0.8, True)[:, 0] / 2 + 0.25
        path.append("M" + "L".join(f"{x:g} {y:g}" for x, y in points.tolist()) + "Z")
    return "".join(path)


def _jpeg(image_HW3: Any, quality: int) -> str:
    import cv2

    _, encoded = cv2.imencode(".jpg", image_HW3[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
