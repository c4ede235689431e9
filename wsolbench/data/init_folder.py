"""`wsolbench data init DIR`: a folder for one's own images, with its layout explained inside."""

from __future__ import annotations

import shlex
from pathlib import Path

from wsolbench.errors import UsageError

README = """\
Your own images for wsolbench. Written by `wsolbench data init`; change or remove what you like.

1. Images: one folder per class, in each of train, val and test. Folders inside a class folder are fine.

       train/cat/anything.jpg      trained on, with the name of its folder as the only label
       val/cat/anything.jpg        chooses the threshold
       test/cat/anything.jpg       is reported

   .jpg .jpeg .png .webp .bmp, in any case. Every class needs images in train.
   No split yet? Put everything in images/<class>/, leave train, val and test empty, and add to show and run
   dataset.val_share=0.1 dataset.test_share=0.2, or write a list splits.csv with the header id,split.

2. Where the objects are, for val and test only. One of these, found by its name:

       boxes.csv                   one line per box: id,x0,y0,x1,y1 (see the file)
       annotations.json            COCO; or annotations/val.json and annotations/test.json
       annotations/val/cat/a.xml   VOC, one file per image; or beside the image
       masks/val/cat/a.png         0 background, any other value object; may be there beside boxes

   Corners are pixels of the image as it is stored (EXIF rotation is not applied), x1 = x0 + width.
   Files elsewhere: dataset.boxes=PATH, dataset.masks=PATH.
   Boxes for test but none for val: --protocol reference remains, which chooses its threshold on test.

3. Check, look, run:

{commands}
"""

BOXES = """\
# One line per box of an image of val or test; several lines may be about one image. Lines that begin with # are left out.
# id: the path below this folder, with forward slashes; quote it if it holds a comma.
# x0,y0,x1,y1: corners in pixels of the image as it is stored, x1 = x0 + width; fractions are cut off.
id,x0,y0,x1,y1
# val/cat/anything.jpg,12,30,208,190
# test/cat/anything.jpg,0,5,99,120
"""


def init_folder(folder: Path) -> list[str]:
    """Make train/, val/, test/, README.txt and boxes.csv in `folder`; what exists already stays as it is.

    Returns:
        sentences to print: what was made, what was kept, and the next commands.

    Raises:
        UsageError: the folder cannot be made or written.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp(), "mine")
    >>> init_folder(folder)[0].endswith("made train/, val/, test/, README.txt, boxes.csv")
    True
    >>> init_folder(folder)[0].endswith("kept train/, val/, test/, README.txt, boxes.csv as they were")
    True
    """
    commands = next_commands(folder)
    indented = "\n".join(f"       {command}" for command in commands)
    files = {"README.txt": README.format(commands=indented), "boxes.csv": BOXES}
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"'{folder}' is a file; 'wsolbench data init DIR' makes a folder")
    made: list[str] = []
    kept: list[str] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("train", "val", "test"):
            (kept if (folder / name).is_dir() else made).append(f"{name}/")
            (folder / name).mkdir(exist_ok=True)
        for name, text in files.items():
            try:
                with (folder / name).open("x", encoding="utf-8") as file:
                    file.write(text)
                made.append(name)
            except FileExistsError:
                kept.append(name)
    except OSError as error:
        raise UsageError(f"'{error.filename or folder}' cannot be written: {error.strerror}") from error
    did = [f"made {', '.join(made)}"] if made else []
    did += [f"kept {', '.join(kept)} as they were"] if kept else []
    return [
        f"{folder}: {'; '.join(did)}",
        f"Put images in {folder / 'train'}/<class>/ and so on, boxes in {folder / 'boxes.csv'} (README.txt there says how), then:",
        *(f"  {command}" for command in commands),
    ]


def next_commands(folder: Path) -> list[str]:
    """The commands that follow: check the files, look at them, run on them. They work offline."""
    root = f"folder --root {shlex.quote(str(folder))}"
    return [
        f"wsolbench data check {root}",
        f"wsolbench data show {root} --split test -o sheet.png",
        f"wsolbench run --methods cam,center-box --dataset {root} --backbone badges_cnn train.epochs=5",
    ]
