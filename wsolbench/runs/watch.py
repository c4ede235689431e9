"""What a run tells its tracker: the lines of its training log, maps of a few images, and in the end its results.

Nothing of it reaches the run: random numbers, modes and gradients are left as they were, no annotation is read, and what goes
wrong here (a full disk, a map that cannot be made yet) is said once and ends the watching, not the run.
"""
# B images watched, C channels, H W image, h w raw map

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsolbench import distributed
from wsolbench.boxes.maps import normalize_maps
from wsolbench.data.batches import collate
from wsolbench.data.pictures import overlay, pixels
from wsolbench.errors import reason
from wsolbench.method.base import Method
from wsolbench.record import RunRecord
from wsolbench.runs.directory import TRACK
from wsolbench.runs.job import Job
from wsolbench.runs.opening import Session
from wsolbench.runs.track import Tracker, open_tracker
from wsolbench.types import Batch

IMAGES = 4
TIMES = 20  # a training shows its maps about this often


@contextmanager
def watching(job: Job, method: Method, folder: Path, session: Session) -> Iterator[Watch | None]:
    """Whom a run tells while the block runs: None where nobody watches; of several processes only the first tells."""
    if job.config.track is None or not distributed.is_first():
        yield None
        return
    watch = Watch(job, method, folder, session)
    try:
        yield watch
    finally:
        watch.close()


class Watch:
    """Tells the tracker of one run."""

    def __init__(self, job: Job, method: Method, folder: Path, session: Session) -> None:
        assert job.config.track is not None
        self._name, self._title, self._folder = job.config.track, str(job), folder / TRACK
        self._method, self._device, self._steps = method, job.device, job.plan.steps
        self._split = job.val_split if len(job.val_split) else job.chosen.test_split
        self._say = session.reporter.message
        self._tracker: Tracker | None = None
        self._shown = 0  # how many twentieths of the training have shown their maps

    def begin(self, step: int) -> None:
        """Training begins after so many steps, or is taken up there."""
        self._shown = self._share(step)
        self._open("train", step)
        if step == 0:
            self._quietly(lambda tracker: self._show(tracker, step))

    def line(self, line: Mapping[str, Any]) -> None:
        """A line of `train.jsonl` was written."""
        values = {"train/loss": line["loss"], "train/lr": line["lr"], "train/epoch": line["epoch"]}
        values |= {f"train/loss of {name}": value for name, value in line["losses"].items() if len(line["losses"]) > 1}
        values["train/images per second"] = line["images_per_second"]

        def tell(tracker: Tracker) -> None:
            tracker.scalars(line["step"], values)
            if self._share(line["step"]) > self._shown:
                self._show(tracker, line["step"])

        self._quietly(tell)

    def result(self, record: RunRecord) -> None:
        """The run is done: its metrics in percent, and the maps of the weights that were chosen."""
        step = record.ledger.checkpoint_step or 0
        values = {f"test/{cell.column}": 100 * cell.value for cell in record.cells}
        speed = record.cost.get("eval_images_per_second")
        values |= {} if speed is None else {"test/images per second": speed}

        def tell(tracker: Tracker) -> None:
            tracker.scalars(step, values)
            self._show(tracker, step, "chosen")

        self._open("evaluate", step)
        self._quietly(tell)

    def close(self) -> None:
        """Leave everything on disk."""
        self._quietly(lambda tracker: tracker.close())
        self._tracker = None

    def _share(self, step: int) -> int:
        return TIMES * step // max(1, self._steps)

    def _open(self, part: str, since: int) -> None:
        try:
            self._tracker = open_tracker(self._name, self._folder, part, since, self._title)
        except Exception as error:  # noqa: BLE001  # third-party code runs here, and a run must not die of being watched
            self._say(f"{self._name} is told nothing: {reason(error)}")

    def _quietly(self, tell: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            tell(self._tracker)
        except Exception as error:  # noqa: BLE001  # as above
            self._tracker = None
            self._say(f"{self._name} is told no more: {reason(error)}")

    def _show(self, tracker: Tracker, step: int, group: str = "maps") -> None:
        self._shown = self._share(step)
        count = len(self._split)
        indices = sorted({int(at) for at in np.linspace(0, count - 1, min(IMAGES, count)).round()})
        batch = collate([self._split.sample(index, None) for index in indices])
        maps_Bhw = watched_maps(self._method, batch, self._device)
        height, width = batch.images_BCHW.shape[-2:]
        maps_BHW = np.rint(255 * normalize_maps(maps_Bhw, (height, width))).astype(np.uint8)
        for id, image_CHW, map_HW in zip(batch.ids, batch.images_BCHW, maps_BHW, strict=True):
            tracker.picture(step, f"{group}/{id}", overlay(pixels(image_CHW), map_HW))


def watched_maps(method: Method, batch: Batch, device: torch.device) -> Tensor:
    """The true class's maps of a batch [B, h, w], in the midst of a training that must not notice.

    Not what `torch.compile` may have made of `localize`: it would be compiled again for so small a batch.
    """
    modes = {module: module.training for module in method.modules()}
    devices = [device] if device.type == "cuda" else []
    localize = type(method).localize
    with torch.random.fork_rng(devices):
        method.to(device).eval()
        moved = batch.to(device)
        try:
            if "gradients" in type(method).needs:
                answer = localize(method, moved.images_BCHW, moved.labels_B)
            else:
                with torch.inference_mode():
                    answer = localize(method, moved.images_BCHW, moved.labels_B)
            return answer.maps_Bhw.detach().float().cpu().clone()
        finally:
            for module, mode in modes.items():
                module.training = mode
