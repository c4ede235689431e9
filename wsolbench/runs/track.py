"""Where a run can be watched while it goes on: TensorBoard, or Weights & Biases. By default nowhere.

A tracker is told numbers and pictures, by optimizer step, and keeps them in a folder of the run. It never gives anything
back, so it cannot change a number. What a run tells is in `wsolbench.runs.watch`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from wsolbench.errors import UsageError, unknown

if TYPE_CHECKING:  # the command line asks here before anything heavy is imported
    from wsolbench.data.pictures import Pixels

INSTALL = {"tensorboard": "pip install 'wsolbench[track]'", "wandb": "pip install wandb"}


class Tracker(Protocol):
    """What is told."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers after so many optimizer steps; a name may hold slashes, which group."""

    def picture(self, step: int, name: str, image_HW3: Pixels) -> None:
        """RGB pixels."""

    def close(self) -> None:
        """Leave everything on disk."""


def check_tracker(name: str | None) -> None:
    """Refuse a tracker that does not exist, or whose package is not installed, before anything is computed."""
    if name is None:
        return
    if name not in INSTALL:
        raise unknown("tracker", name, INSTALL)
    if find_spec(name) is None:
        raise UsageError(f"--track {name} needs the package {name}, which is not installed: {INSTALL[name]}")


def open_tracker(name: str, folder: Path, part: str, since: int, title: str) -> Tracker:
    """Start to write, or go on writing.

    Args:
        name: one of `INSTALL`.
        folder: what is written goes here.
        part: "train" or "evaluate": each is taken up, or written anew, by itself.
        since: steps up to this one were told before; what was told of later ones, by a process that died, is forgotten.
        title: what the run is called where names are shown.
    """
    folder.mkdir(exist_ok=True)
    return _TensorBoard(folder, part, since) if name == "tensorboard" else _WandB(folder, part, title)


class _TensorBoard:
    """Event files, one for each time a part was begun. Readers drop what lies after a part's new beginning."""

    def __init__(self, folder: Path, part: str, since: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        suffix = f".{part}"
        if part == "evaluate":  # it is told at once: an earlier one is replaced
            for path in folder.glob(f"events.out.tfevents.*{suffix}"):
                path.unlink()
        purge = {} if part == "evaluate" else {"purge_step": since + 1 if since else 0}
        self._writer: Any = SummaryWriter(str(folder), filename_suffix=suffix, **purge)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def picture(self, step: int, name: str, image_HW3: Pixels) -> None:
        self._writer.add_image(name, image_HW3, step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _WandB:
    """One run of Weights & Biases for each part, named by its folder; without an account or a network it stays on disk.

    A run that is taken up goes on under the same id; points of steps that it has seen are dropped by the package itself.
    """

    def __init__(self, folder: Path, part: str, title: str) -> None:
        import wandb

        online = os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
        self._package: Any = wandb
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "wsolbench"),
            id=f"{folder.parent.name}-{part}",
            name=f"{title}, {part}",
            dir=str(folder),
            mode=online,
            resume="allow",
            settings={"silent": True},  # what is said to the user is the reporter's
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, step: int, name: str, image_HW3: Pixels) -> None:
        self._run.log({name: self._package.Image(image_HW3)}, step=step)

    def close(self) -> None:
        self._run.finish()
