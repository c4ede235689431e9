"""Images, true boxes and maps of the few images that a page shows; maps are computed once and cached."""
# B images shown, N boxes of an image, H W evaluation frame

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wsolbench.atomic import atomically
from wsolbench.errors import MachineError, WsolbenchError
from wsolbench.overlays import coloured, pixels
from wsolbench.progress import Reporter
from wsolbench.record import RunRecord
from wsolbench.rundir import digest, reason

if TYPE_CHECKING:
    from wsolbench.data import Split
    from wsolbench.outcomes import Geometry
    from wsolbench.report.gallery import Entry, Gallery

IMAGE_SIDE = 256  # pixels of the longer side of a picture
MAP_SIDE = 96  # of a map, which is smooth: the browser enlarges it
BATCH = 8


@dataclass
class Pictures:
    """What is drawn, by index of the image, and of the entry where it has a map."""

    split: Split
    frame: Geometry
    class_names: tuple[str, ...]
    images: dict[int, str] = field(default_factory=dict)  # data URIs
    truths: dict[int, list[list[int]]] = field(default_factory=dict)
    maps: dict[tuple[int, int], str] = field(default_factory=dict)  # (entry, image) -> data URI
    no_maps: dict[int, str] = field(default_factory=dict)  # entry -> why it has none

    @classmethod
    def of(cls, record: RunRecord, split: str) -> Pictures:
        """Open the data set of a record; `WsolbenchError` if it is not at hand, or not the one the run saw."""
        from wsolbench import create_dataset
        from wsolbench.outcomes import Geometry

        options = {key: value for key, value in record.config["dataset"].items() if key != "name"}
        dataset = create_dataset(record.dataset, root=record.config.get("root"), **options)
        info, seen = dataset.info, record.provenance.get("data_revision")
        if seen is not None and info.revision != seen:
            raise WsolbenchError(f"the data set at hand is revision {info.revision}, the runs saw {seen}")
        images = dataset.split(split)
        frame = Geometry(info.resolution_HW, False, info.has_boxes and images.annotated, info.geometry)
        return cls(images, frame, info.class_names)

    def add(self, gallery: Gallery, maps: bool, reporter: Reporter) -> None:
        """Read the gallery's images, and compute every entry's maps of them; what cannot be had is noted."""
        place = {id: at for at, id in enumerate(self.split.ids)}
        shown = [at for images in gallery.kinds.values() for at in images]
        missing = [gallery.ids[at] for at in shown if gallery.ids[at] not in place]
        if missing:
            raise WsolbenchError(f"the data set at hand has no image '{missing[0]}'")
        indices = [place[gallery.ids[at]] for at in shown]
        for at, index in zip(shown, indices, strict=True):
            self.images[at] = self._image(index)
            self.truths[at] = self.frame.boxes(self.split.annotation(gallery.ids[at])).tolist()
        if not maps:
            self.no_maps = dict.fromkeys(range(len(gallery.entries)), "maps were not asked for (--no-maps)")
            return
        with reporter.bar("maps of the gallery", len(gallery.entries), unit="methods") as advance:
            for number, entry in enumerate(gallery.entries):
                try:
                    maps_BHW = cached_maps(entry, self.split, indices, self.frame.resolution_HW)
                    for at, map_HW in zip(shown, maps_BHW, strict=True):
                        self.maps[number, at] = map_uri(map_HW)
                except Exception as error:  # noqa: BLE001  # third-party code runs here: whatever it raises, the page can do without
                    self.no_maps[number] = reason(error)
                advance(1)

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
    if record.ledger.get("training") == "elsewhere":
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

    from wsolbench import load_run
    from wsolbench.boxes import normalize_maps
    from wsolbench.loading import collate

    method, found = load_run(entry.directory), []
    for first in range(0, len(indices), BATCH):
        batch = collate([split.sample(index, None) for index in indices[first : first + BATCH]])
        with torch.no_grad():
            maps_Bhw = method.localize(batch.images_BCHW, batch.labels_B).maps_Bhw
        found.append(np.rint(255 * normalize_maps(maps_Bhw, resolution_HW)).astype(np.uint8))
    return np.concatenate(found)


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


def _jpeg(image_HW3: Any, quality: int) -> str:
    import cv2

    _, encoded = cv2.imencode(".jpg", image_HW3[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
