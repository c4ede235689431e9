"""Images that cannot be used, found before a run starts.

Looking first keeps every number a function of the files alone: which images are left out is known before the first batch is
composed, so it cannot depend on workers, on batches or on where an interrupted run was taken up.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from wsolbench.data.split import Split
from wsolbench.errors import BadImage, MachineError
from wsolbench.system.files import atomically
from wsolbench.system.progress import Reporter

MAX_SHARE = 0.1  # of the images looked at; where more are bad, a path or a disk is wrong and not some files
Item = TypeVar("Item")
Answer = TypeVar("Answer")
AHEAD = 16  # images per thread that may wait to be looked at


def cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(function: Callable[[Item], Answer], items: Iterable[Item], threads: int) -> Iterator[Answer]:
    """`map(function, items)` in several threads, in order, with a bounded number of items under way."""
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[Answer]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= AHEAD * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:  # left early, e.g. on Ctrl-C: what has not begun is not begun
            pool.shutdown(wait=True, cancel_futures=True)


class BadImages:
    """Finds the images of splits that cannot be loaded, and remembers them while their files stay as they are.

    Images are loaded as evaluation loads them, so what passes here is what a run can read. Answers are kept below
    `WSOLBENCH_CACHE` (default ~/.cache/wsolbench), under a key made of the ids and of the place, size and time of every file.
    """

    def __init__(self, reporter: Reporter, threads: int | None = None) -> None:
        self.reporter, self.threads = reporter, threads or cpus()
        self._known: dict[str, dict[str, str]] = {}

    def find(self, name: str, split: Split, fingerprint: str, indices: Sequence[int]) -> dict[str, str]:
        """What is wrong with each bad image among `indices`, by id, in their order.

        Args:
            name: of the split, for the progress bar.
            split: where the images are.
            fingerprint: of the data set.
            indices: which of them to look at.
        """
        key = self._key(split, indices, fingerprint)
        if key not in self._known:
            path = _cache_folder() / "bad-images" / f"{key}.json"
            kept = _read(path) if hasattr(split, "image_path") else None
            # those remembered as bad are looked at again: a disk may have failed for a moment
            again = indices if kept is None else [index for index in indices if split.ids[index] in kept]
            self._known[key] = self._look(name, split, again)
            if kept is None and hasattr(split, "image_path"):
                _write(path, self._known[key])
        return self._known[key]

    def _look(self, name: str, split: Split, indices: Sequence[int]) -> dict[str, str]:
        def look(index: int) -> BadImage | None:
            try:
                split[index]
            except BadImage as error:
                return error
            return None

        found: dict[str, str] = {}
        errors = in_threads(look, indices, self.threads)
        with self.reporter.bar(f"look for bad images in {name}", len(indices)) as advance:
            for index, error in zip(indices, errors, strict=True):
                if error is not None:
                    found[split.ids[index]] = str(error)
                advance(1)
        return found

    def _key(self, split: Split, indices: Sequence[int], fingerprint: str) -> str:
        digest = hashlib.sha256(fingerprint.encode())
        image_path = getattr(split, "image_path", None)
        for index in indices:
            file = "" if image_path is None else _stamp(image_path(index))
            digest.update(f"\n{split.ids[index]}|{file}".encode(errors="surrogateescape"))
        return digest.hexdigest()


def _stamp(path: Path) -> str:
    """What changes when a file is replaced."""
    try:
        state = path.stat()
    except (OSError, ValueError):
        return f"{path}|-"
    return f"{path}|{state.st_size}|{state.st_mtime_ns}|{state.st_mode}"


def _cache_folder() -> Path:
    return Path(os.environ.get("WSOLBENCH_CACHE") or Path.home() / ".cache" / "wsolbench")


def _read(path: Path) -> dict[str, str] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {str(id): str(why) for id, why in content["bad"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write(path: Path, bad: dict[str, str]) -> None:
    """Keep an answer; a cache that cannot be written costs time, not the run."""
    with suppress(MachineError), atomically(path, shared=True) as temporary:
        temporary.write_text(json.dumps({"bad": bad}), encoding="utf-8")
