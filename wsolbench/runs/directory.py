"""The run directory: where it lies, whose it is, files that are whole or absent, and one process at a time."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from wsolbench.distributed import group as dist
from wsolbench.errors import MachineError, UsageError, WsolbenchError
from wsolbench.registry import slug
from wsolbench.system.files import TEMPORARY, atomically
from wsolbench.system.lock import LOCK, locked

RECORD = "record.json"
SNAPSHOTS = "snapshots"  # folder of the states among which a checkpoint is chosen
OUTCOMES = "outcomes"  # and of what methods make of them
TRACK = "track"  # and of what a tracker was told
PACKAGES = (
    "wsolbench",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "safetensors",
    "torchmetrics",
    "scikit-image",
)
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


def plain(value: Any) -> Any:
    """Dataclasses, enums, paths and tuples as what JSON and YAML hold."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def digest(identity: Any) -> str:
    """SHA-256 over plain values, independent of the order of keys.

    >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    True
    """
    text = json.dumps(plain(identity), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes; a `UsageError` if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"file '{path}' cannot be read: {error.strerror}") from error


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


# --- files that are whole or absent ----------------------------------------------------------------------------------


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: after a crash it holds the old content or the new, never a part."""
    with atomically(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(plain(content), indent=2, ensure_ascii=False) + "\n")


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


def reason(error: BaseException) -> str:
    """An error as one sentence: its own text where it is meant for users, else with its type in front."""
    text = " ".join(str(error).split())
    return text if isinstance(error, WsolbenchError) and text else f"{type(error).__name__}: {text}".rstrip(": ")


# --- environment -----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def source_commit() -> tuple[str | None, bool | None]:
    """Commit of the checkout this package runs from and whether it has changes; (None, None) if it is installed."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # a wheel inside someone's repository is not ours
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def environment(device: torch.device) -> dict[str, Any]:
    """What the numbers may depend on besides the configuration: versions, device, threads, commit."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    commit, dirty = source_commit()
    return {
        "versions": versions,
        "platform": f"{sys.platform} {platform.machine()}",
        "device": f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        **({"processes": dist.world()} if dist.world() > 1 else {}),
        "commit": commit,
        "dirty": dirty,
    }
