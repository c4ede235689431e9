"""Files that are whole or absent: written beside their place, forced to disk, then moved there.

Killed at any moment, or with no room left on the disk, a file holds its old content or its new one, never a part. A process
that is killed may leave a temporary file (`<name>.tmp`), which its successor writes over or removes.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from wsolbench.errors import MachineError
from wsolbench.system.hashing import plain

TEMPORARY = ".tmp"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def atomically(path: Path, *, shared: bool = False) -> Iterator[Path]:
    """Write a file atomically: the yielded path beside it is to be written, and becomes the file when the block ends.

    Args:
        path: of the file; its folder is made if need be.
        shared: several processes may write it at once, as in a cache: each has a temporary file of its own.

    Raises:
        MachineError: it could not be written; the file is as it was and nothing is left beside it.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}" if shared else path.name + TEMPORARY)
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system has against writing `path` into one sentence, a `MachineError`; other errors pass."""
    try:
        yield
    except Exception as error:
        number = _errno(error)
        if number is None or isinstance(error, MachineError):
            raise
        mend = "; what was saved before is whole: make room and run the same command again" if number in NO_ROOM else ""
        raise MachineError(f"'{path}' could not be written: {os.strerror(number)}{mend}") from error


def append(path: Path, text: str, *, sync: bool = True) -> None:
    """Add a line of UTF-8 text to a file and force it to disk (`sync`); whoever reads it must bear with a cut last line.

    Raises:
        MachineError: it could not be written.
    """
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(text)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def _errno(error: BaseException | None) -> int | None:
    """The system's error behind an error: writers in C++ and Rust raise their own, in its wake or in its words."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            return int(found[1])
        error = error.__cause__ or error.__context__
    return None


def _sync(path: Path) -> None:
    """Force a file, or the names in a folder, to disk; some file systems refuse it for folders."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(handle)


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
