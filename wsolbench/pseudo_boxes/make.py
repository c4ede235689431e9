"""Making pseudo-boxes for a split: proposals of a source, one of them chosen by pointing. No annotation is asked for.

The work goes on where an interrupted one left off: one line per image in `partial.jsonl` until all are done.
"""
# H W image, M boxes

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from wsolbench.data.metadata import IDS, LOCALIZATION
from wsolbench.data.workers import from_workers
from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.pseudo_boxes.folder import SOURCE, write_pseudo_boxes
from wsolbench.pseudo_boxes.pointing import Choice, Pointing
from wsolbench.pseudo_boxes.proposals import Boxes, Image
from wsolbench.system.environment import environment
from wsolbench.system.files import append, write_text
from wsolbench.system.hashing import digest, stable_seed
from wsolbench.system.interrupt import Interrupt, leave_to_parent
from wsolbench.system.lock import locked
from wsolbench.system.progress import Reporter, Silent
from wsolbench.types import Sample

PARTIAL = "partial.jsonl"
VERSION = 1  # moves when the same request gives other boxes


class Pictures(Protocol):
    """What of a split may be seen here: a `Split` without its annotations."""

    ids: list[str]
    labels: npt.NDArray[np.int64]

    def __getitem__(self, index: int) -> Sample: ...
    def picture(self, index: int) -> Image: ...


class Source(Protocol):
    """Where proposals come from. `external` says what models of others have a part in it, and how they were trained."""

    @property
    def name(self) -> str: ...
    @property
    def external(self) -> str | None: ...
    def __call__(self, image_HW3: Image, label: int) -> Boxes:
        """Boxes [M, 4] of an image in its own pixels, M >= 1."""
        ...


@dataclass(frozen=True)
class Made:
    """An image's pseudo-box."""

    id: str
    size_HW: tuple[int, int]
    choice: Choice


def make_pseudo_boxes(
    pictures: Pictures,
    source: Source,
    pointing: Pointing,
    folder: str | Path,
    *,
    about: dict[str, Any],
    seed: int = 0,
    workers: int = 0,
    reporter: Reporter | None = None,
) -> bool:
    """Choose one of the source's proposals for every image and write them in the released format; False: it was done before.

    Args:
        pictures: a split, all of whose images its samples show (no crops); its annotations are not asked for.
        folder: receives the files; an unfinished work of the same request there is taken up.
        about: what else decides the boxes (data set, classifier, ...), for `source.json`.
        seed: draws which proposals are rated where there are more than `pointing.limit`.
        workers: processes that seek proposals, for sources that need no device.

    Raises:
        UsageError: the folder holds pseudo-boxes that another request made, or none of ours.
        KeyboardInterrupt: after saving what was done; the same call goes on.
    """
    folder, reporter = Path(folder), reporter or Silent()
    with locked(folder, kind="folder"):
        return _make(pictures, source, pointing, folder, about, seed, workers, reporter)


def _make(
    pictures: Pictures,
    source: Source,
    pointing: Pointing,
    folder: Path,
    about: dict[str, Any],
    seed: int,
    workers: int,
    reporter: Reporter,
) -> bool:
    identity: dict[str, Any] = {
        "source": source.name,
        "external": source.external,
        "filter": Pointing.rule,
        "rated_at_most": pointing.limit,
        "seed": seed,
        "version": VERSION,
        **about,
        "images": hashlib.sha256("\n".join(pictures.ids).encode() + pictures.labels.tobytes()).hexdigest(),
    }
    key = digest(identity)
    if _is_done(folder, key):
        (folder / PARTIAL).unlink(missing_ok=True)  # a crash may have left it
        return False
    made = _resume(folder / PARTIAL, key, pictures.ids)
    with (
        reporter.live(),
        reporter.bar(f"pseudo-boxes ({source.name})", len(pictures.ids), done=len(made)) as advance,
        Interrupt() as interrupt,
    ):
        for sample, size_HW, boxes_M4 in _proposals(pictures, source, len(made), workers):
            random = np.random.RandomState(stable_seed("pseudo-boxes", seed, sample.id) % 2**32)
            made.append(Made(sample.id, size_HW, pointing.choose(sample, boxes_M4, size_HW, random)))
            append(folder / PARTIAL, json.dumps(asdict(made[-1])) + "\n", sync=False)
            advance(1)
            if interrupt.requested:
                raise interrupt.stopped()
    statistics = {
        "images_without_a_box_at_the_maximum": sum(not each.choice.pointed for each in made),
        "mean_boxes_rated": float(np.mean([each.choice.rated for each in made])),
    }
    write_pseudo_boxes(
        folder,
        pictures,
        [each.size_HW for each in made],
        [each.choice.box for each in made],
        {**identity, "statistics": statistics, "made_with": environment(pointing.device), "key": key},
    )
    (folder / PARTIAL).unlink()
    return True


# --- what is on disk -------------------------------------------------------------------------------------------------


def _is_done(folder: Path, key: str) -> bool:
    """Whether the folder holds what the request with this key makes; another's files are not written over."""
    if not any((folder / name).exists() for name in (IDS, LOCALIZATION, SOURCE)):
        return False
    try:
        found = json.loads((folder / SOURCE).read_text(encoding="utf-8"))["key"]
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if found != key:
        raise UsageError(
            f"'{folder}' holds other pseudo-boxes (another source, classifier, seed or split made them): move them away, or "
            "give another folder with -o"
        )
    return (folder / LOCALIZATION).is_file()


def _resume(path: Path, key: str, ids: list[str]) -> list[Made]:
    """What an unfinished work has left, a cut last line aside; the file then holds just that."""
    header = json.dumps({"key": key})
    lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else [header]
    if lines[0] != header:
        raise UsageError(
            f"'{path}' is unfinished work of another request (another source, classifier, seed or split): remove it, or give "
            "another folder with -o"
        )
    made: list[Made] = []
    for id, line in zip(ids, lines[1:], strict=False):
        try:
            content = json.loads(line)
            x0, y0, x1, y1 = content["choice"].pop("box")
            height, width = content["size_HW"]
            each = Made(content["id"], (height, width), Choice(box=(x0, y0, x1, y1), **content["choice"]))
        except (ValueError, KeyError, TypeError):
            break
        if each.id != id:
            break
        made.append(each)
    write_text(path, "\n".join([*lines[: 1 + len(made)], ""]))
    return made


# --- proposals -------------------------------------------------------------------------------------------------------

Proposed = tuple[Sample, tuple[int, int], Boxes]


class _Work(TorchDataset[Proposed | WsolbenchError]):
    def __init__(self, pictures: Pictures, source: Source) -> None:
        self.pictures, self.source = pictures, source

    def __getitem__(self, index: int) -> Proposed | WsolbenchError:
        try:
            image_HW3, sample = self.pictures.picture(index), self.pictures[index]
            boxes_M4 = self.source(image_HW3, sample.label)
        except WsolbenchError as error:  # as a value: torch would raise a worker's error with its traceback as message
            return error
        return sample, (image_HW3.shape[0], image_HW3.shape[1]), boxes_M4


def _proposals(pictures: Pictures, source: Source, first: int, workers: int) -> Iterator[Proposed]:
    """Images from `first` on, in order, with their proposals."""
    loader: Any = DataLoader(
        _Work(pictures, source),
        batch_size=None,
        sampler=range(first, len(pictures.ids)),
        collate_fn=_as_it_is,
        num_workers=workers,
        worker_init_fn=leave_to_parent,
    )
    yield from from_workers(loader, "--workers", lambda number: f"image '{pictures.ids[first + number]}'")


def _as_it_is(each: Any) -> Any:
    return each
