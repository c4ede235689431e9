"""`train.jsonl`: what a training says of itself, one line per pass."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from wsolbench import distributed
from wsolbench.system.files import append, write_text
from wsolbench.training.plan import TrainingPlan
from wsolbench.training.stepping import Losses

NOTE_SECONDS = 0.3  # least time between two losses shown on a bar
LINES = 20  # a run of many tiny passes writes about this many lines to train.jsonl


class Listener(Protocol):
    """Whom a training tells how it goes, such as `wsolbench.runs.watch`."""

    def begin(self, step: int) -> None:
        """Training begins after so many steps, or is taken up there."""

    def line(self, line: Mapping[str, Any]) -> None:
        """A line was written."""


def training_cost(folder: Path) -> dict[str, float | None]:
    """Seconds and images per second of a finished training, from its `train.jsonl`."""
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    seconds = sum(line["seconds"] for line in lines)
    images = sum(line["images"] for line in lines)
    return {"train_seconds": seconds, "train_images_per_second": images / seconds if seconds else None}


class Log:
    """`train.jsonl`: one line per pass; `sums` is what has run up since the last line, and travels with the state."""

    def __init__(self, path: Path, plan: TrainingPlan, sums: dict[str, float], watch: Listener | None = None) -> None:
        self.path, self.plan, self.sums, self.watch = path, plan, sums, watch
        self.every = min(plan.steps_per_epoch, max(1, math.ceil(plan.steps / LINES)))
        self.clock = time.perf_counter()
        self.totals: dict[str, Tensor] = {}  # on the device: what `sums` will hold of the losses once it is settled
        self.last: Tensor | None = None
        self.noted_at = -math.inf

    def cut_back(self, step: int) -> None:
        """Drop the lines that an interrupted run wrote after its last saved state."""
        if distributed.is_main() and self.path.is_file():
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            write_text(self.path, "".join(kept))
        if self.watch is not None:
            self.watch.begin(step)
            self.clock = time.perf_counter()

    def add(self, losses: Losses, images: int) -> None:
        """Count a step. Losses are summed on the device, in float64 where it has that, and read by `settle`."""
        values = {f"loss/{name}": value for name, value in losses.terms.items()} | {"loss": losses.sum}
        wide = torch.float32 if losses.sum.device.type == "mps" else torch.float64
        for name, value in values.items():
            before = self.totals[name] if name in self.totals else self.sums.get(name, 0.0)
            self.totals[name] = value.to(wide) + before
        self.sums["images"] = self.sums.get("images", 0) + images
        self.sums["steps"] = self.sums.get("steps", 0) + 1
        self.last = losses.sum

    def settle(self) -> None:
        """Bring `sums` up to date; waits for the device."""
        if self.totals:
            self.sums.update(zip(self.totals, torch.stack([*self.totals.values()]).tolist(), strict=True))
        now = time.perf_counter()
        self.sums["seconds"] = self.sums.get("seconds", 0.0) + now - self.clock
        self.clock = now

    def note(self) -> str | None:
        """The loss of the step counted last, for a bar; seldom, since it waits for the device."""
        now = time.monotonic()
        if self.last is None or now - self.noted_at < NOTE_SECONDS:
            return None
        self.noted_at = now
        return f"loss {self.last.item():.3f}"

    def is_due(self, step: int) -> bool:
        """A line comes at the end of a pass, unless passes are so short that there would be far too many."""
        end_of_pass = step % self.plan.steps_per_pass == 0 and self.sums["steps"] >= self.every
        return end_of_pass or step == self.plan.steps

    def write_if_due(self, step: int, lr: float) -> None:
        """Write a line at the end of a pass, from settled sums."""
        if not self.is_due(step):
            return
        steps = self.sums["steps"]
        line = {
            "epoch": -(-step // self.plan.steps_per_pass),
            "step": step,
            "loss": self.sums["loss"] / steps,
            "losses": {
                name.removeprefix("loss/"): total / steps
                for name, total in self.sums.items()
                if name.startswith("loss/")
            },
            "lr": lr,
            "images": int(self.sums["images"]),
            "seconds": round(self.sums["seconds"], 4),
            "images_per_second": round(self.sums["images"] / max(self.sums["seconds"], 1e-9), 2),
        }
        if distributed.is_main():
            append(self.path, json.dumps(line) + "\n")
        if self.watch is not None:
            self.watch.line(line)
            self.clock = time.perf_counter()  # watching is no training
        self.sums.clear()
        self.totals.clear()
