"""The run directory: where it lies, whose it is, one process at a time, and how recorded work is carried out."""

from __future__ import annotations

import json
import shutil
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

import torch

from wsolbench.errors import MachineError, WsolbenchError, reason
from wsolbench.record import RunRecord, read_record, to_json
from wsolbench.registry import slug
from wsolbench.system.environment import environment
from wsolbench.system.files import TEMPORARY, write_json, write_text
from wsolbench.system.lock import LOCK, locked

RECORD = "record.json"
SNAPSHOTS = "snapshots"  # folder of the states among which a checkpoint is chosen
OUTCOMES = "outcomes"  # and of what methods make of them
TRACK = "track"  # and of what a tracker was told
BEST = "best-*.safetensors"  # weights of the checkpoint that a selector chose
OURS = (  # what a run may leave; `clear` removes nothing else. The mark of being done goes first
    RECORD,
    "classifier.json",
    "training.json",
    "failed.json",
    "state.pt",
    "last.safetensors",
    "levels.npz",
    "images.csv.gz",
    "subset.json",
    "train.jsonl",
    "env.json",
    "config.yaml",
)


# --- identity --------------------------------------------------------------------------------------------------------


def run_path(out: str | Path, dataset: str, method: str, backbone: str, protocol: str, seed: int, hash: str) -> Path:
    """out/runs/<dataset>/<method>/<backbone>/<protocol>/s<seed>-<hash8>."""
    folders = (slug(name) or "-" for name in (dataset, method, backbone, protocol))
    return Path(out, "runs", *folders, f"s{seed}-{hash[:8]}")


def classifier_path(out: str | Path, dataset: str, hash: str) -> Path:
    """Where a classifier lies that several post-hoc methods read."""
    return Path(out, "runs", slug(dataset), "_classifiers", hash[:8])


def training_path(out: str | Path, dataset: str, hash: str) -> Path:
    """Where a training lies that several protocols read."""
    return Path(out, "runs", slug(dataset), "_trainings", hash[:8])


def trial_path(out: str | Path, dataset: str, hash: str) -> Path:
    """Where a trial of a hyper-parameter search leaves what it tried; its training is a shared one."""
    return Path(out, "runs", slug(dataset), "_trials", hash[:8])


# --- the directory ---------------------------------------------------------------------------------------------------


class RunDirectory:
    """One run's directory. `done` names the file whose presence means finished.

    Use: `with directory.locked(): if not directory.is_done(): directory.begin(config); ...; directory.finish(text)`.
    """

    def __init__(self, path: Path, hash: str, done: str = RECORD) -> None:
        self.path, self.hash, self.done = path, hash, done

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def is_done(self) -> bool:
        return (self.path / self.done).is_file()

    @contextmanager
    def locked(self, wait: bool = False, say: Callable[[str], None] | None = None) -> Iterator[None]:
        """Keep other processes out; `WsolbenchError` if one is in (`wait`: until it leaves, `say` is told who it is)."""
        with locked(self.path, wait=wait, say=say):
            yield

    def begin(self, config_yaml: str, environment: dict[str, Any], *, fresh: bool = False) -> None:
        """Claim the directory for this run, or take up where an interrupted run with the same hash left off.

        `fresh` forgets what an earlier run with the same hash left. `env.json` keeps the commits of all who took part.
        """
        config_file = self.path / "config.yaml"
        present = sorted(path.name for path in self.path.iterdir() if path.name != LOCK and path.suffix != TEMPORARY)
        if config_file.is_file():
            owner = config_file.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
            if owner != self._header():
                raise WsolbenchError(
                    f"run directory '{self.path}' belongs to another run (its config.yaml has another hash): "
                    "move it away, or write to another --out"
                )
        elif present:
            raise WsolbenchError(
                f"run directory '{self.path}' holds '{present[0]}' but no config.yaml, so it was not made by this run: "
                "move it away, or write to another --out"
            )
        else:
            self.settle(config_yaml)
        self.sweep()
        if fresh:
            self.clear()
            self.settle(config_yaml)
        commits = dict.fromkeys((*self.commits(), _commit(environment)))
        write_json(self.path / "env.json", environment | {"commits": list(commits)})

    def settle(self, config_yaml: str) -> None:
        """Replace the configuration of a run that has begun by what was settled since, as by a search."""
        write_text(self.path / "config.yaml", f"{self._header()}\n{config_yaml}")

    def commits(self) -> tuple[str, ...]:
        """The versions of the code that worked in this directory, in order."""
        try:
            content = json.loads((self.path / "env.json").read_text(encoding="utf-8"))
            return tuple(map(str, content["commits"]))
        except (OSError, ValueError, KeyError, TypeError):
            return ()

    def clear(self) -> None:
        """Remove what an earlier run of this configuration left, the mark of being done first."""
        for name in OURS:
            (self.path / name).unlink(missing_ok=True)
        for best in self.path.glob(BEST):
            best.unlink()
        for folder in (self.partial, self.path / SNAPSHOTS, self.path / OUTCOMES, self.path / TRACK):
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def partial(self) -> Path:
        """Folder of an unfinished evaluation."""
        return self.path / "partial"

    def fail(self, error: BaseException, details: str) -> None:
        """Leave the reason of a failure, unless there is no room for it."""
        with suppress(MachineError):
            write_json(self.path / "failed.json", {"reason": reason(error), "details": details})

    def finish(self, text: str) -> None:
        """Write the mark of being done, last of all, and remove what only an unfinished run needs."""
        write_text(self.path / self.done, text)
        self.tidy()

    def tidy(self) -> None:
        """Remove what a finished run does not need; killed in between, `finish` leaves it to the next process."""
        (self.path / "failed.json").unlink(missing_ok=True)
        (self.path / "state.pt").unlink(missing_ok=True)
        shutil.rmtree(self.partial, ignore_errors=True)
        self.sweep()

    def sweep(self) -> None:
        """Remove the temporary files of a process that was killed here. While locked, so nobody is writing them."""
        for file in self.path.glob(f"*{TEMPORARY}"):
            name = file.name.removesuffix(TEMPORARY)
            if name in OURS or fnmatch(name, BEST):
                file.unlink()
        for file in self.path.glob(f"*/*{TEMPORARY}"):  # of snapshots, of parts of an evaluation
            file.unlink()

    def _header(self) -> str:
        return f"# hash: {self.hash}"


def _commit(environment: dict[str, Any]) -> str:
    return f"{environment.get('commit') or 'unknown'}{' with changes' if environment.get('dirty') else ''}"


# --- the skeleton of whatever leaves a record -------------------------------------------------------------------------


@dataclass(frozen=True)
class Carried:
    """What became of it: done now, or skipped, with the reason."""

    status: Literal["done", "skipped"]
    reason: str
    record: RunRecord


def carry_out(
    directory: RunDirectory,
    work: Callable[[dict[str, Any], bool], RunRecord],
    *,
    config_yaml: str,
    device: torch.device,
    rerun: bool = False,
    is_stale: Callable[[RunRecord, str], bool] = lambda record, made: False,
) -> Carried:
    """Lock the directory; skip what is done, unless it is to be done again; else begin, work, and write the record last.

    Args:
        directory: of the run.
        work: is given the environment, and whether what was there is forgotten; gives the record.
        config_yaml: content of `config.yaml`.
        device: of the environment.
        rerun: forget what is there.
        is_stale: says of a record, and when and by whom it was made, that it no longer holds: it is made again.

    Raises:
        Exception: whatever `work` raises, after leaving the reason in `failed.json`.
    """
    with directory.locked():
        if directory.is_done() and not rerun:
            record = read_record(directory / directory.done)
            made = f"{record.provenance.get('created')} by commit {record.provenance.get('commit') or 'unknown'}"
            if not is_stale(record, made):
                directory.tidy()
                return Carried("skipped", f"done on {made}; --rerun forces", record)
            rerun = True
        about = environment(device)
        directory.begin(config_yaml, about, fresh=rerun)
        try:
            record = work(about, rerun)
        except Exception as error:
            directory.fail(error, traceback.format_exc())
            raise
        directory.finish(to_json(record))
    return Carried("done", "", record)
