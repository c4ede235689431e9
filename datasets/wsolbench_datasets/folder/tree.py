"""Which images a user's own folder holds: class folders below train/, val/ and test/, or one tree of class folders.

An id is the path below the root, `val/cat/a.jpg`, in composed Unicode (NFC), so that a file whose name a Mac wrote has the
same id everywhere. Links are the user's own and are followed; a folder that links back to its own parents is refused.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wsolbench.data.ids import is_safe
from wsolbench.errors import UsageError, WsolbenchError

SPLITS = ("train", "val", "test")
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")  # in any case
MEANT = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
RESERVED = ("annotations", "Annotations", "masks", *SPLITS)  # folders below the root that are no classes


@dataclass(frozen=True, slots=True)
class Found:
    """A file: its path below where the walk began, as an id and as it is on disk; -1 bytes for a link to nothing."""

    id: str
    file: str
    bytes: int


@dataclass(frozen=True, slots=True)
class TreeImage:
    """An image, by folder: `split` is "" where the tree has no split folders; `file` lies below the root."""

    id: str
    file: str
    bytes: int
    class_name: str
    split: str


def walk(folder: Path) -> Iterator[Found]:
    """The files below a folder, unordered; hidden ones (.DS_Store, ._a.jpg) are left out."""
    pending = [(folder, "", frozenset([_identity(folder)]))]
    while pending:
        path, below, parents = pending.pop()
        try:
            entries = list(os.scandir(path))
        except OSError as error:
            raise WsolbenchError(f"folder '{path}' cannot be read: {error.strerror}") from error
        for entry in entries:
            if entry.name.startswith("."):
                continue
            file = f"{below}{entry.name}"
            if _is_folder(entry):
                identity = _identity(Path(entry.path))
                if identity in parents:
                    raise WsolbenchError(f"folder '{entry.path}' links back to a folder it lies in: remove that link")
                pending.append((Path(entry.path), f"{file}/", parents | {identity}))
            else:
                yield Found(_as_id(path, file), file, _size(entry))


def read_tree(root: Path, also_reserved: Collection[Path] = ()) -> list[TreeImage]:
    """The images below `root`, in order of id.

    Args:
        root: holds train/, val/, test/ (any of them) with class folders; or, where these are empty or absent, images/
            with class folders, or class folders.
        also_reserved: folders that hold no class although they may lie among the classes.

    Raises:
        UsageError: there is no image.
        WsolbenchError: an image lies in no class folder, a class folder is empty, a name cannot be an id.
    """
    if not root.is_dir():
        raise UsageError(
            f"--root '{root}' is no folder; 'wsolbench data init {root}' makes one with the layout explained"
        )
    reserved = {os.path.realpath(folder) for folder in (*also_reserved, *(root / name for name in RESERVED))}
    splits = [split for split in SPLITS if _holds_something(root / split)]
    if splits:
        trees = [(split, f"{split}/", f"{split}/") for split in splits]
    else:
        trees = [("", "", "images/" if (root / "images").is_dir() else "")]
    images: dict[str, TreeImage] = {}
    for split, id_prefix, file_prefix in trees:
        for folder in _class_folders(root / file_prefix, reserved):
            if not split and (meant := MEANT.get(folder.name.lower())):
                raise UsageError(f"'{folder}' is read as a class, but looks like a split: rename it to '{meant}'")
            class_name, others = _as_id(folder.parent, folder.name), set()
            count = len(images)
            for found in walk(folder):
                suffix = os.path.splitext(found.file)[1].lower()
                if suffix not in IMAGES:
                    others.add(suffix or "files without a suffix")
                    continue
                id, file = f"{id_prefix}{class_name}/{found.id}", f"{file_prefix}{folder.name}/{found.file}"
                image = TreeImage(id, file, found.bytes, class_name, split)
                other = images.setdefault(id, image)
                if other is not image:
                    raise WsolbenchError(f"'{root / file}' and '{root / other.file}' have one name in Unicode: {id!r}")
            if len(images) == count:
                only = f", only {', '.join(sorted(others))}" if others else ""
                raise WsolbenchError(
                    f"class folder '{folder}' holds no image ({', '.join(IMAGES)}){only}: fill or remove it"
                )
    if not images:
        raise UsageError(
            f"no image below --root '{root}': expected train/<class>/, val/<class>/ and test/<class>/ there, or "
            "images/<class>/; 'wsolbench data init DIR' makes a folder with the layout explained"
        )
    return [images[id] for id in sorted(images)]


def _class_folders(folder: Path, reserved: Collection[str]) -> list[Path]:
    """The folders in `folder`, in order; an image beside them has no class."""
    classes = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or os.path.realpath(path) in reserved:
            continue
        if path.is_dir():
            classes.append(path)
        elif path.suffix.lower() in IMAGES:
            raise WsolbenchError(f"image '{path}' lies in no class folder; expected '{folder}/<class>/{path.name}'")
    return classes


def _holds_something(folder: Path) -> bool:
    return folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())


def _as_id(folder: Path, file: str) -> str:
    try:
        id = file if file.isascii() else unicodedata.normalize("NFC", file.encode("utf-8").decode("utf-8"))
    except UnicodeEncodeError as error:
        name = os.fsencode(PurePosixPath(file).name)
        raise WsolbenchError(f"the name {name!r} of a file in {str(folder)!r} is not UTF-8: rename it") from error
    if not is_safe(f"x/{id}"):
        raise WsolbenchError(
            f"the file {file!r} in '{folder}' has a backslash or a control character in its name: rename it"
        )
    return id


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError as error:
        raise WsolbenchError(f"folder '{folder}' cannot be read: {error.strerror}") from error
    return status.st_dev, status.st_ino


def _size(entry: os.DirEntry[str]) -> int:
    try:
        status = entry.stat()
    except OSError:
        return -1
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for someone to write to it
        raise WsolbenchError(f"'{entry.path}' is no regular file: remove it")
    return status.st_size
