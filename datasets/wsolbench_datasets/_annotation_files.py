"""Where the boxes of a folder stand: in one CSV file, in COCO files or in VOC files, found or given."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from wsolbench.errors import UsageError
from wsolbench_datasets._box_records import BoxFile, Place
from wsolbench_datasets._boxes_coco import read_boxes_coco
from wsolbench_datasets._boxes_csv import read_boxes_csv
from wsolbench_datasets._boxes_voc import read_boxes_voc
from wsolbench_datasets._image_names import ImageNames, without_suffix
from wsolbench_datasets._image_tree import TreeImage, walk

FOLDERS = ("annotations", "Annotations")
KINDS = {".csv": "CSV", ".json": "COCO", ".xml": "VOC"}


def find_box_file(
    root: Path, given: Path | None, images: Sequence[TreeImage], names: ImageNames, scored: Collection[int]
) -> BoxFile:
    """The boxes of a data set, of the one kind of file that tells them; none at all where there is no such file.

    Args:
        root: of the data set.
        given: the file or folder that the user named; None: what is found below the root.
        images: of the data set, in the order of `names`.
        scored: the indices of images whose boxes count; VOC files of others are not read.

    Raises:
        UsageError: several kinds of files tell boxes, or the given one is of no known kind.
        WsolbenchError: a file cannot be read as what it should be.
    """
    if given is not None:
        files = _in_folder(given) if given.is_dir() else [given]
        if not files or not {path.suffix.lower() for path in files} <= KINDS.keys():
            raise UsageError(
                f"dataset.boxes={given}: expected a .csv or .json file, or a folder with .json or .xml files"
            )
    else:
        files = [
            path for path in (root / "boxes.csv", root / "boxes.json", root / "annotations.json") if path.is_file()
        ]
        files += [file for name in FOLDERS if (root / name).is_dir() for file in _in_folder(root / name)]
        files = list({path.resolve(): path for path in files}.values())  # one folder where names know no case
    found: dict[str, list[Path]] = {}
    for path in files:
        found.setdefault(path.suffix.lower(), []).append(path)
    beside = [] if given is not None else list(_beside(root, images))
    read: list[BoxFile] = []
    for path in found.get(".csv", []):
        read.append(read_boxes_csv(path, names))
    if paths := found.get(".json"):
        read.append(read_boxes_coco(paths, names, paths[0] if len(paths) == 1 else paths[0].parent))
    if beside or ".xml" in found:
        stems = ImageNames.without_suffix(names.ids)
        placed = [(_named(path, root, given, stems), path) for path in found.get(".xml", [])] + beside
        read.append(
            read_boxes_voc(
                [each for each in placed if each[0] in scored], placed[0][1].parent if len(placed) > 1 else placed[0][1]
            )
        )
    read = [file for file in read if file.boxes]  # a template without lines tells nothing
    if len(read) > 1:
        sources = " and ".join(f"'{file.source}'" for file in read)
        raise UsageError(f"{sources} both tell boxes: say which with dataset.boxes=PATH, or remove the others")
    return read[0] if read else BoxFile(root, [], {})


def _in_folder(folder: Path) -> list[Path]:
    """The COCO and VOC files below a folder of annotations, in order."""
    return [folder / found.file for found in sorted(walk(folder), key=lambda found: found.id) if _kind(found.file)]


def _kind(file: str) -> str | None:
    suffix = Path(file).suffix.lower()
    return suffix if suffix in (".json", ".xml") else None


def _named(path: Path, root: Path, given: Path | None, stems: ImageNames) -> int:
    """The image that an XML file in a folder of annotations is named after."""
    folder = given if given is not None else next(root / name for name in FOLDERS if path.is_relative_to(root / name))
    stem = path.stem if path == folder else without_suffix(path.relative_to(folder).as_posix())
    return stems.find(stem, Place(path, "(its name)", stem).refuse)


def _beside(root: Path, images: Sequence[TreeImage]) -> Iterator[tuple[int, Path]]:
    """VOC files in the folders of the images, which name the image by standing beside it."""
    stems = ImageNames.without_suffix([image.file for image in images])
    for folder in sorted({image.file.rpartition("/")[0] for image in images}):
        for path in sorted((root / folder).glob("[!.]*.xml")):
            stem = f"{folder}/{path.stem}"
            yield stems.find(stem, Place(path, "(its name)", stem).refuse), path
