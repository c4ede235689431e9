"""The checkpoints of a run and what the method makes of each: those of a training that a protocol chooses among, or the last.

Outcomes of a shared training are computed once, when first asked for, and kept beside the weights: whatever protocol comes
later finds them there, so the whole matrix of selectors is a look-up.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from wsolbench.config.selectors import LAST, PSEUDO
from wsolbench.evaluation.evaluate import Evaluated
from wsolbench.evaluation.levels import Levels
from wsolbench.method.checkpoint import read_tensors
from wsolbench.protocols.select import Checkpoint
from wsolbench.registry import slug
from wsolbench.runs.directory import OUTCOMES, RunDirectory
from wsolbench.runs.evaluator import Evaluator
from wsolbench.runs.job import Job
from wsolbench.runs.trained import Trained
from wsolbench.system.files import atomically, write_json
from wsolbench.system.hashing import digest


class Checkpoints(Protocol):
    """States of the trained network, as optimizer steps taken, ascending, and their outcomes."""

    steps: list[int]

    def evaluated(self, step: int, split: str) -> Evaluated:
        """The outcomes of a checkpoint on "val" or "test"."""

    def levels(self, step: int, name: str) -> Levels:
        """The same as selectors ask for them: "val", "test", "val-pseudo"."""

    def keep(self, chosen: Checkpoint, folder: Path) -> str | None:
        """Give the method the chosen weights and leave them in the run's folder; None: they lie elsewhere, or there are none."""

    def cost(self) -> dict[str, float | None]:
        """Seconds that this run spent on other checkpoints than the last, if there are others."""


@contextmanager
def open_checkpoints(job: Job, trained: Trained, evaluator: Evaluator) -> Iterator[Checkpoints]:
    """The checkpoints among which the run's protocol chooses."""
    if not job.shares_training:
        yield _Last(job, evaluator)
        return
    snapshots = Snapshots(job, trained, evaluator)
    home = RunDirectory(snapshots.folder, "")
    with home.locked(wait=True, say=evaluator.reporter.message):  # whoever comes second reads what the first has found
        home.sweep()
        yield snapshots


class _Last:
    """The one state there is."""

    def __init__(self, job: Job, evaluator: Evaluator) -> None:
        self.steps = [job.plan.steps]
        self._job, self._evaluator = job, evaluator
        self._found: dict[str, Evaluated] = {}

    def evaluated(self, step: int, split: str) -> Evaluated:
        if split not in self._found:
            self._found[split] = self._evaluator(split, self._job.directory.partial)
        return self._found[split]

    def levels(self, step: int, name: str) -> Levels:
        return _levels(self.evaluated(step, "val" if name == PSEUDO else name), name)

    def keep(self, chosen: Checkpoint, folder: Path) -> str | None:
        return "last.safetensors" if self._job.training == "own" else None

    def cost(self) -> dict[str, float | None]:
        return {}


class Snapshots:
    """The checkpoints of a shared training."""

    def __init__(self, job: Job, trained: Trained, evaluator: Evaluator) -> None:
        assert trained.home is not None
        assert trained.module is not None
        self._module, self._evaluator = trained.module, evaluator
        last = trained.home / "last.safetensors"
        self.files = trained.snapshots if job.has_snapshots else {job.plan.steps: last}
        self.steps = list(self.files)
        self.folder = trained.home / OUTCOMES / digest(_reading(job))[:8]
        self._loaded: int | None = None
        self._found: dict[tuple[int, str], Evaluated] = {}
        self._seconds = 0.0

    def evaluated(self, step: int, split: str) -> Evaluated:
        """What an interrupted evaluation left is taken up."""
        if (step, split) not in self._found:
            started = time.perf_counter()
            folder = self.folder / f"{step:08d}"
            whole = folder / f"{split}.json"  # written last
            self._load(step)
            found = self._evaluator(split, folder)
            if whole.is_file():  # nothing was left to do: the speed is that of when it was done
                found.images_per_second = json.loads(whole.read_text(encoding="utf-8"))["images_per_second"]
            else:
                write_json(whole, {"images_per_second": found.images_per_second})
            self._found[step, split] = found
            self._seconds += time.perf_counter() - started if step != self.steps[-1] else 0
        return self._found[step, split]

    def levels(self, step: int, name: str) -> Levels:
        return _levels(self.evaluated(step, "val" if name == PSEUDO else name), name)

    def keep(self, chosen: Checkpoint, folder: Path) -> str | None:
        """As a hard link where the file system has them."""
        name = "last.safetensors" if chosen.by == LAST else f"best-{slug(chosen.by)}.safetensors"
        self._load(chosen.step)
        (folder / name).unlink(missing_ok=True)
        try:
            os.link(self.files[chosen.step], folder / name)
        except OSError:
            with atomically(folder / name) as temporary:
                shutil.copyfile(self.files[chosen.step], temporary)
        return name

    def cost(self) -> dict[str, float | None]:
        return {"selection_seconds": self._seconds}

    def _load(self, step: int) -> None:
        if self._loaded != step:
            self._module.load_state_dict(read_tensors(self.files[step]))
            self._loaded = step


def _levels(evaluated: Evaluated, name: str) -> Levels:
    return evaluated.pseudo_levels() if name == PSEUDO else evaluated.levels()


def _reading(job: Job) -> dict[str, object]:
    """What decides the outcomes of given weights: the method that reads them, the images, and what they are compared with."""
    config = job.identity["config"]
    return {
        "method": config["method"],
        "method_version": job.identity["method_version"],
        "evaluate": {name: value for name, value in config["evaluate"].items() if name != "interval"},
        "val": job.val_split.ids if job.config.protocol.val_per_class is not None else None,
        "chosen": job.chosen.identity(),
        "pseudo_boxes": job.pseudo and job.pseudo.sha256,
    }
