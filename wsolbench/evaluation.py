"""Maps of a split, scored while the next batch is on its way; parts of an unfinished evaluation outlive the process."""

# B batch, C channels, H W evaluation frame, h w raw map, K classes, N boxes

from __future__ import annotations

import csv
import gzip
import io
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wsolbench.boxes import boxes_at_threshold, iou_matrix, normalize_maps, resize_boxes, resize_mask
from wsolbench.config import EvaluateConfig
from wsolbench.data import Split, eval_batches, stable_seed
from wsolbench.errors import WsolbenchError
from wsolbench.interrupt import Interrupt
from wsolbench.levels import Levels, load_levels, save_levels, score_maps
from wsolbench.method import Method
from wsolbench.progress import Reporter
from wsolbench.protocol import AnnotationReader
from wsolbench.types import Annotation, Batch, Prediction

MAPS_IN_MEMORY = 256 * 2**20  # bytes of raw maps after which a part goes to disk
QUEUE = 2  # batches that may wait for their scores

Maps = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Geometry:
    """What a split looks like where maps and boxes are compared."""

    resolution_HW: tuple[int, int]
    has_masks: bool


@dataclass
class Evaluated:
    """A split's outcomes and raw maps; the maps may lie on disk. `images_per_second` is that of `localize` alone."""

    levels: Levels
    maps: list[Maps | Path]
    images_per_second: float | None

    def each_map(self) -> Iterator[Maps]:
        """The raw maps [n, h, w], part by part."""
        for part in self.maps:
            yield np.load(part) if isinstance(part, Path) else part


def evaluate(
    method: Method,
    name: str,
    split: Split,
    geometry: Geometry,
    config: EvaluateConfig,
    *,
    seed: int,
    device: torch.device,
    reader: AnnotationReader,
    folder: Path,
    reporter: Reporter,
) -> Evaluated:
    """Localise and score every image of the split called `name`, going on after the parts saved in `folder`.

    The map is that of the true class, as in the reference evaluator. On Ctrl-C, and every `config.save_every` seconds,
    what is finished is saved; batches keep their boundaries, so resuming cannot change a number.
    """
    parts = _Parts(folder, name)
    done = parts.load()
    method.to(device).eval()
    clock = _Clock()
    pending: deque[tuple[Future[Levels], Maps]] = deque()
    saved_at = time.monotonic()
    with (
        ThreadPoolExecutor(1) as scorer,
        reporter.bar(f"evaluate {name}", len(split), done=done) as advance,
        Interrupt() as interrupt,
    ):

        def collect(keep: int) -> None:
            while len(pending) > keep:
                future, maps_Bhw = pending.popleft()
                parts.add(future.result(), maps_Bhw)

        for batch in eval_batches(split, batch_size=config.batch_size, workers=config.workers, skip=done):
            torch.manual_seed(stable_seed("evaluate", seed, name, batch.ids[0]))  # for methods that draw
            prediction, seconds = _localize(method, batch, device)
            clock.add(len(batch.ids), seconds)
            maps_Bhw = prediction.maps_Bhw.numpy()
            annotations = reader.read(name, split, batch.ids)
            scoring = scorer.submit(_score, batch, prediction, annotations, geometry, config.threads)
            pending.append((scoring, maps_Bhw))
            collect(QUEUE)
            advance(len(batch.ids))
            if interrupt.requested or parts.is_large() or time.monotonic() - saved_at >= config.save_every:
                collect(0)
                parts.flush()
                saved_at = time.monotonic()
            if interrupt.requested:
                raise KeyboardInterrupt
        collect(0)
    return Evaluated(Levels.concat(parts.levels), parts.maps, clock.rate())


def _localize(method: Method, batch: Batch, device: torch.device) -> tuple[Prediction, float]:
    """The prediction on the CPU, and the seconds it took."""
    moved = batch.to(device)
    started = time.perf_counter()
    if "gradients" in type(method).needs:
        answer = method.localize(moved.images_BCHW, moved.labels_B)
    else:
        with torch.inference_mode():
            answer = method.localize(moved.images_BCHW, moved.labels_B)
    maps = answer.maps_Bhw.detach().float().cpu()  # waits for the device
    seconds = time.perf_counter() - started
    if maps.ndim != 3 or len(maps) != len(batch.ids):
        raise WsolbenchError(
            f"{type(method).__name__}.localize answered maps of shape {list(maps.shape)} for {len(batch.ids)} images; "
            "expected [B, h, w]"
        )
    return Prediction(None if answer.logits_BK is None else answer.logits_BK.detach().cpu(), maps), seconds


def _score(
    batch: Batch, prediction: Prediction, annotations: Sequence[Annotation], geometry: Geometry, threads: int
) -> Levels:
    from wsolbench.metrics import label_rank

    ranks: Tensor | None = None
    predictions: Tensor | None = None
    if prediction.logits_BK is not None:
        ranks = label_rank(prediction.logits_BK, batch.labels_B)
        predictions = prediction.logits_BK.argmax(1)
    masks = None
    if geometry.has_masks:
        masks = np.stack([resize_mask(_mask(annotation), geometry.resolution_HW) for annotation in annotations])
    return score_maps(
        normalize_maps(prediction.maps_Bhw, geometry.resolution_HW),
        [_boxes(annotation, geometry) for annotation in annotations],
        batch.labels_B,
        ranks,
        predictions,
        batch.ids,
        masks,
        threads,
    )


def _boxes(annotation: Annotation, geometry: Geometry) -> npt.NDArray[np.int64]:
    if annotation.boxes_N4 is None or not len(annotation.boxes_N4):
        raise WsolbenchError(f"image '{annotation.id}' has no boxes, so its maps cannot be scored")
    return resize_boxes(annotation.boxes_N4, annotation.size_HW, geometry.resolution_HW)


def _mask(annotation: Annotation) -> npt.NDArray[np.uint8]:
    if annotation.mask_HW is None:
        raise WsolbenchError(f"image '{annotation.id}' has no mask although its data set promises masks")
    return annotation.mask_HW


class _Clock:
    """Images per second; the first batch pays for warming up and is left out where there are others."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, float]] = []

    def add(self, images: int, seconds: float) -> None:
        self.batches.append((images, seconds))

    def rate(self) -> float | None:
        counted = self.batches[1:] or self.batches
        seconds = sum(seconds for _, seconds in counted)
        return sum(images for images, _ in counted) / seconds if seconds else None


class _Parts:
    """Outcomes and raw maps in order: parts on disk first, then what has come since the last flush.

    A part is `<split>-<number>.maps.npy` and then `<split>-<number>.levels.npz`: the latter's presence makes it whole.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.levels: list[Levels] = []
        self.maps: list[Maps | Path] = []
        self.saved = 0  # entries of the lists that lie on disk

    def load(self) -> int:
        """Take over finished parts; returns how many images they hold."""
        while (path := self._path(len(self.levels), "levels.npz")).is_file():
            self.levels.append(load_levels(path)[self.name])
            self.maps.append(self._path(len(self.maps), "maps.npy"))
        self.saved = len(self.levels)
        return sum(map(len, self.levels))

    def add(self, levels: Levels, maps_Bhw: Maps) -> None:
        self.levels.append(levels)
        self.maps.append(maps_Bhw)

    def is_large(self) -> bool:
        return sum(part.nbytes for part in self.maps[self.saved :] if not isinstance(part, Path)) > MAPS_IN_MEMORY

    def flush(self) -> None:
        """Write what has come since the last flush as one part."""
        fresh = [part for part in self.maps[self.saved :] if not isinstance(part, Path)]
        if not fresh:
            return
        self.folder.mkdir(exist_ok=True)
        maps_file = self._path(self.saved, "maps.npy")
        levels = Levels.concat(self.levels[self.saved :])
        np.save(maps_file, np.concatenate(fresh))
        save_levels(self._path(self.saved, "levels.npz"), {self.name: levels})
        self.levels[self.saved :] = [levels]
        self.maps[self.saved :] = [maps_file]
        self.saved += 1

    def _path(self, number: int, kind: str) -> Path:
        return self.folder / f"{self.name}-{number:06d}.{kind}"


# --- per image -------------------------------------------------------------------------------------------------------

COLUMNS = ("split", "id", "label", "prediction", "rank", "iou", "x0", "y0", "x1", "y1", "hit")


def outcomes_csv(
    evaluated: Mapping[str, Evaluated],
    splits: Mapping[str, Split],
    geometry: Geometry,
    threshold: float,
    reader: AnnotationReader,
) -> bytes:
    """The content of `images.csv.gz`: per image the box at the threshold, in the evaluation frame, and its best IoU.

    Every image's annotation is read again, so the ledger is complete after an interruption too. Equal outcomes give
    equal bytes (no time stamp). `prediction` and `rank` are empty without a classifier.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, outcome in evaluated.items():
        levels, first = outcome.levels, 0
        for maps_Bhw in outcome.each_map():
            ids = levels.ids[first : first + len(maps_Bhw)].tolist()
            annotations = reader.read(name, splits[name], ids)
            for index, (map_hw, annotation) in enumerate(zip(maps_Bhw, annotations, strict=True), first):
                map_HW = normalize_maps(map_hw[None], geometry.resolution_HW)[0]
                box_14 = boxes_at_threshold(map_HW, threshold)
                iou = float(iou_matrix(box_14, _boxes(annotation, geometry)).max())
                rank = int(levels.ranks[index])
                classes = ("", "") if rank < 0 else (int(levels.predictions[index]), rank)
                label = int(levels.labels[index])
                writer.writerow(
                    [name, annotation.id, label, *classes, f"{iou:.6f}", *box_14[0].tolist(), int(iou >= 0.5)]
                )
            first += len(maps_Bhw)
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=0) as file:
        file.write(text.getvalue().encode())
    return packed.getvalue()
