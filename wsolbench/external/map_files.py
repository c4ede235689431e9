"""Score maps made by any code: finding them by image id, reading one at a time, refusing what could not be compared.

A folder holds `<id>.npy` per image, as the reference evaluator (clovaai/wsolevaluation) expects it, the id with its
extension, or the id without it; one `.npz` holds the same names as keys. Nothing is ever unpickled.
"""
# n images, h w map, H W evaluation frame

from __future__ import annotations

import hashlib
import io
import math
import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from wsolbench.data.ids import EXPECTED, is_safe, safe_path
from wsolbench.errors import UsageError, WsolbenchError

MapKind = Literal["score", "raw"]
SUFFIX = ".npy"

Array = npt.NDArray[Any]


class Store(Protocol):
    """Where arrays lie: a folder of .npy files, or one .npz. Names are relative and end in .npy."""

    path: Path

    def names(self) -> set[str]: ...

    def has(self, name: str) -> bool:
        """Like `name in names()`, through links to folders too."""

    def stamp(self, name: str) -> tuple[int, int]:
        """Two numbers that change when the array changes, without reading it."""

    def read(self, name: str) -> bytes:
        """The whole .npy file; several threads may read."""

    def say(self, name: str) -> str:
        """How messages name the array."""


class Folder:
    """A folder of .npy files, in subfolders as the ids have them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> set[str]:
        found: set[str] = set()
        for folder, _, files in os.walk(self.path):
            inside = PurePosixPath(Path(folder).relative_to(self.path).as_posix())
            found.update(str(inside / file) for file in files if file.endswith(SUFFIX))
        return found

    def has(self, name: str) -> bool:
        return safe_path(self.path, name).is_file()

    def stamp(self, name: str) -> tuple[int, int]:
        about = safe_path(self.path, name).stat()
        return about.st_size, about.st_mtime_ns

    def read(self, name: str) -> bytes:
        return safe_path(self.path, name).read_bytes()

    def say(self, name: str) -> str:
        return f"'{self.path / name}'"


class Archive:
    """The entries of a .npz, read one by one: the file is never loaded whole, and nothing is unpacked to disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise WsolbenchError(f"'{path}' cannot be read as .npz: {error}") from error

    def names(self) -> set[str]:
        return {name for name in self._zip.NameToInfo if name.endswith(SUFFIX)}

    def has(self, name: str) -> bool:
        return name in self._zip.NameToInfo

    def stamp(self, name: str) -> tuple[int, int]:
        about = self._zip.getinfo(name)
        return about.file_size, about.CRC

    def read(self, name: str) -> bytes:
        return self._zip.read(name)

    def open(self, name: str) -> Any:
        """The entry as a stream."""
        return self._zip.open(name)

    def say(self, name: str) -> str:
        return f"'{self.path}' entry {name.removesuffix(SUFFIX)!r}"


def open_store(path: str | Path, what: str = "maps") -> Folder | Archive:
    """The folder or .npz at `path`; a `UsageError` if it is neither."""
    path = Path(path)
    if path.is_dir():
        return Folder(path)
    if path.is_file() and path.suffix == ".npz":
        return Archive(path)
    state = "is neither a folder nor a .npz file" if path.exists() else "does not exist"
    raise UsageError(f"{what} '{path}' {state}; expected a folder of <id>.npy files, or one .npz with ids as keys")


# --- finding ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MapFiles:
    """The maps of a split's images, in their order; made by `find_maps`."""

    store: Store
    names: list[str]
    stamps: npt.NDArray[np.int64]  # [n, 2], see `Store.stamp`
    extra: tuple[str, ...]  # names of maps that belong to no image

    def read(self, index: int) -> tuple[Array, bytes]:
        """The map of an image and the SHA-256 of its file."""
        name = self.names[index]
        array, content = read_npy(self.store, name)
        return array, hashlib.sha256(content).digest()

    def say(self, index: int) -> str:
        """How messages name the map of an image."""
        return f"map {self.store.say(self.names[index])}"

    def stamp(self) -> str:
        """SHA-256 over names and stamps: equal ones mean that no map was changed, added or removed in between."""
        digest = hashlib.sha256("\n".join(self.names).encode())
        digest.update(np.ascontiguousarray(self.stamps).tobytes())
        return digest.hexdigest()


def find_maps(path: str | Path, ids: Sequence[str], split: str, what: str = "maps") -> MapFiles:
    """Find the map of every image before any is read.

    `<id>.npy` wins over the id without its extension. Maps of no image are counted, not refused.

    Args:
        path: a folder or a .npz.
        ids: of the split's images.
        split: how messages call it, e.g. "cub/test".
        what: how messages call what lies in the files.

    Raises:
        UsageError: there is no such folder or .npz.
        WsolbenchError: it is empty, a map is missing, an id could leave the folder, or one file would serve two images.
    """
    for id in ids:
        if not is_safe(id):
            raise WsolbenchError(f"image id {id!r} of {split} could name a file outside '{path}'; expected {EXPECTED}")
    store = open_store(path, what)
    present = store.names()
    expected = f"expected <id>{SUFFIX}, or the id without its extension and {SUFFIX}"
    if not present and not any(store.has(name) for name in _candidates(ids[0])):
        raise WsolbenchError(f"'{path}' holds no {SUFFIX} map; {expected}, e.g. {_candidates(ids[0])[0]!r}")
    names: list[str] = []
    missing: list[str] = []
    owner: dict[str, str] = {}
    for id in ids:
        name = next((each for each in _candidates(id) if each in present or store.has(each)), None)
        if name is None:
            missing.append(id)
        elif owner.setdefault(name, id) != id:
            raise WsolbenchError(
                f"map {store.say(name)} would serve two images of {split}, {owner[name]!r} and {id!r}; "
                f"name each map <id>{SUFFIX}, with the id's extension"
            )
        else:
            names.append(name)
    if missing:
        raise WsolbenchError(
            f"'{path}' lacks the {what} of {len(missing)} of the {len(ids)} images of {split}, first "
            f"{', '.join(map(repr, missing[:3]))}; {expected}"
        )
    stamps = np.array([store.stamp(name) for name in names], np.int64)
    return MapFiles(store, names, stamps, tuple(sorted(present.difference(owner))))


def _candidates(id: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((f"{id}{SUFFIX}", f"{PurePosixPath(id).with_suffix('')}{SUFFIX}")))


# --- reading ---------------------------------------------------------------------------------------------------------


def read_npy(store: Store, name: str) -> tuple[Array, bytes]:
    """An array and the bytes of its file; whatever is no plain .npy array is refused in one sentence."""
    where = store.say(name)
    try:
        content = store.read(name)
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise WsolbenchError(f"{where} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    file = io.BytesIO(content)
    shape, fortran, dtype = read_header(file, where)
    count, start = math.prod(shape), file.tell()
    if len(content) - start < count * dtype.itemsize:
        raise WsolbenchError(
            f"{where} is damaged: its {len(content) - start} bytes are too few for {dtype} of shape {list(shape)}"
        )
    # a view of the bytes: copying a map takes as long as reading it
    array: Array = np.frombuffer(content, dtype, count, start).reshape(shape, order="F" if fortran else "C")
    return array, content


def read_header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether stored by columns, and type of a .npy; a pickle, or what is no .npy, is refused by its first bytes."""
    magic = file.read(np.lib.format.MAGIC_LEN)
    pickled = "pickled Python objects, which are never loaded since they could run code; expected an array of numbers"
    if magic[:1] == b"\x80":
        raise WsolbenchError(f"{where} holds {pickled}")
    if not magic.startswith(np.lib.format.MAGIC_PREFIX) or len(magic) < np.lib.format.MAGIC_LEN:
        raise WsolbenchError(f"{where} is no .npy file; expected one written by numpy.save")
    read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}.get(magic[-2])
    try:
        if read is None:
            raise ValueError(f"version {magic[-2]} of the .npy format is unknown")
        shape, fortran, dtype = read(file)
    except (ValueError, SyntaxError, EOFError) as error:
        raise WsolbenchError(f"{where} is damaged: {str(error).splitlines()[0]}") from error
    if dtype.hasobject:
        raise WsolbenchError(f"{where} holds {pickled}")
    return shape, fortran, dtype


def check_score_map(map_hw: Array, where: str, resolution_HW: tuple[int, int]) -> npt.NDArray[np.float64]:
    """A score map [H, W] as it is, or the sentence that says why it cannot be compared.

    float32 is refused although it could be converted: a map that was normalised in float32 has other quantised values than
    the same map normalised in float64, so the numbers would not be those of the reference evaluator.
    """
    _check_2d(map_hw, where)
    if map_hw.dtype != np.float64:
        raise WsolbenchError(
            f"{where} is {map_hw.dtype}, expected float64 in [0, 1]: normalise in float64 before saving, or give the maps "
            "as they leave the network with --map-kind raw"
        )
    if map_hw.shape != tuple(resolution_HW):
        raise WsolbenchError(
            f"{where} is {map_hw.shape[0]}x{map_hw.shape[1]} (height x width), expected score maps of "
            f"{resolution_HW[0]}x{resolution_HW[1]}; --map-kind raw resizes"
        )
    low, high = _finite_range(map_hw, where)
    if low < 0 or high > 1:
        raise WsolbenchError(
            f"{where} has values in [{low:g}, {high:g}], expected score maps in [0, 1]; --map-kind raw normalises"
        )
    return map_hw


def check_raw_map(map_hw: Array, where: str) -> Array:
    """A raw map [h, w] of any size and real type as it is, or the sentence that says why it is none."""
    _check_2d(map_hw, where)
    if map_hw.dtype.kind not in "fiub":
        raise WsolbenchError(f"{where} is {map_hw.dtype}, expected real numbers")
    if map_hw.dtype.kind == "f":
        _finite_range(map_hw, where)
    return map_hw


def _check_2d(map_hw: Array, where: str) -> None:
    if map_hw.ndim != 2 or 0 in map_hw.shape:
        raise WsolbenchError(f"{where} has shape {list(map_hw.shape)}, expected [height, width]")


def _finite_range(map_hw: Array, where: str) -> tuple[float, float]:
    low, high = float(map_hw.min()), float(map_hw.max())
    if not np.isfinite(low) or not np.isfinite(high):
        row, column = np.argwhere(~np.isfinite(map_hw))[0].tolist()
        raise WsolbenchError(
            f"{where} holds {map_hw[row, column]} at row {row}, column {column}; expected finite numbers"
        )
    return low, high
