"""Where the boxes of a folder stand: in one CSV file, in COCO files or in VOC files, found or given."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from wsolbench.errors import UsageError
from wsolbench_datasets.folder.box_records import BoxFile, Place
from wsolbench_datasets.folder.boxes_coco import read_boxes_coco
from wsolbench_datasets.folder.boxes_csv import read_boxes_csv
from wsolbench_datasets.folder.boxes_voc import read_boxes_voc
from wsolbench_datasets.folder.names import ImageNames, without_suffix
from wsolbench_datasets.folder.tree import TreeImage, walk

FILES = ("boxes.csv", "boxes.json", "annotations.json")
FOLDERS = ("annotations", "Annotations")


def find_box_file(root: Path, given: Path | None, images: Sequence[TreeImage], scored: Collection[int]) -> BoxFile:
    """The boxes of a data set, of the one kind of file that tells them; none at all where there is no such file.

    Args:
        root: of the data set.
        given: the file or folder that the user named; None: what is found below the root.
        images: of the data set.
        scored: the indices of images whose boxes count; VOC files of others are not read.

    Raises:
        UsageError: several kinds of files tell boxes, or the given one is of no known kind.
        WsolbenchError: a file cannot be read as what it should be.
    """
    found = _given(given) if given is not None else _below(root)
    of_kind = {kind: [path for path in found if path.suffix.lower() == kind] for kind in (".csv", ".json", ".xml")}
    ids = [image.id for image in images]
    voc = list(_named(of_kind[".xml"], root, given, ids)) if of_kind[".xml"] else []
    voc += list(_beside(root, images)) if given is None else []
    read: list[BoxFile] = [read_boxes_csv(path, ImageNames(ids)) for path in of_kind[".csv"]]
    if coco := of_kind[".json"]:
        read.append(read_boxes_coco(coco, ImageNames(ids), _common(coco)))
    if voc:
        read.append(read_boxes_voc([each for each in voc if each[0] in scored], _common([path for _, path in voc])))
    read = [file for file in read if file.boxes]  # a template without lines tells nothing
    if len(read) > 1:
        sources = " and ".join(f"'{file.source}'" for file in read)
        raise UsageError(f"{sources} both tell boxes: say which with dataset.boxes=PATH, or remove the others")
    return read[0] if read else BoxFile(root, [], {})


def _given(path: Path) -> list[Path]:
    files = _in_folder(path) if path.is_dir() else [path]
    if not files or any(file.suffix.lower() not in (".csv", ".json", ".xml") for file in files):
        raise UsageError(f"dataset.boxes={path}: expected a .csv or .json file, or a folder with .json or .xml files")
    return files


def _below(root: Path) -> list[Path]:
    files = [path for path in (root / name for name in FILES) if path.is_file()]
    folders = [path for path in (root / name for name in FOLDERS) if path.is_dir()]
    if len(folders) > 1 and folders[0].samefile(folders[1]):  # where names know no case
        folders.pop()
    return files + [file for folder in folders for file in _in_folder(folder)]


def _in_folder(folder: Path) -> list[Path]:
    """The COCO and VOC files below a folder of annotations, in order."""
    files = sorted(walk(folder), key=lambda found: found.id)
    return [folder / found.file for found in files if found.file.lower().endswith((".json", ".xml"))]


def _named(paths: Sequence[Path], root: Path, given: Path | None, ids: Sequence[str]) -> Iterator[tuple[int, Path]]:
    """XML files of a folder of annotations, each with the image that it is named after."""
    stems = ImageNames.without_suffix(ids)
    for path in paths:
        folder = given or next(root / name for name in FOLDERS if path.is_relative_to(root / name))
        stem = path.stem if path == folder else without_suffix(path.relative_to(folder).as_posix())
        yield stems.find(stem, Place(path, "(its name)", stem).refuse), path


def _beside(root: Path, images: Sequence[TreeImage]) -> Iterator[tuple[int, Path]]:
    """VOC files in the folders of the images, which name the image by standing beside it."""
    folders = sorted({image.file.rpartition("/")[0] for image in images})
    found = [(folder, path) for folder in folders for path in sorted((root / folder).glob("[!.]*.xml"))]
    stems = ImageNames.without_suffix([image.file for image in images] if found else [])  # as they are on disk
    for folder, path in found:
        stem = f"{folder}/{path.stem}"
        yield stems.find(stem, Place(path, "(its name)", stem).refuse), path


def _common(paths: Sequence[Path]) -> Path:
    """What a complaint about all of the files calls them."""
    return paths[0] if len(paths) == 1 else paths[0].parent
