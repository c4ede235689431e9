"""What can be wrong with data on disk: each is one sentence with the file (and the line), and nothing hangs.

Images can be left out (`data.on_bad_image=skip`); lists and masks cannot: a run on half of a list would be another benchmark.
"""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reference_trees import Tree, write_tree

from wsolbench.cli.main import main
from wsolbench.registry import DATASETS

SPLIT = "test"


@pytest.fixture(autouse=True)
def nothing_hangs():
    def stop(number, frame):
        raise TimeoutError("hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(600)  # generous: the first run compiles, and machines are shared
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@dataclass(frozen=True)
class Damage:
    """How to damage a tree, what a run says of it, and what `data check` calls it. `says` None: it does no harm."""

    name: str
    do: Callable[[Tree], None]
    says: str | None
    kind: str | None
    tree: str = "CUB"


# --- images ----------------------------------------------------------------------------------------------------------


def image(tree: Tree) -> Path:
    """The first test image, a JPEG."""
    return tree.images / tree.ids[SPLIT][0]


def cut(tree: Tree) -> None:
    image(tree).write_bytes(image(tree).read_bytes()[:-200])


def replace_by(content: bytes) -> Callable[[Tree], None]:
    def do(tree: Tree) -> None:
        image(tree).write_bytes(content)

    return do


def as_folder(tree: Tree) -> None:
    image(tree).unlink()
    image(tree).mkdir()


def as_pipe(tree: Tree) -> None:
    image(tree).unlink()
    os.mkfifo(image(tree))  # opening it for reading would wait for a writer, forever


def as_link_to_itself(tree: Tree) -> None:
    image(tree).unlink()
    image(tree).symlink_to(image(tree))


def as_broken_link(tree: Tree) -> None:
    image(tree).unlink()
    image(tree).symlink_to("nowhere.jpg")


def unreadable(tree: Tree) -> None:
    image(tree).chmod(0)


def png(width: int, height: int, data: bytes = b"", broken: bool = False) -> bytes:
    """A PNG of these dimensions with whatever pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        sum = zlib.crc32(name + content) ^ broken
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", sum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def another_size(tree: Tree) -> None:
    Image.new("RGB", (300, 200)).save(image(tree))


def bad_checksum(tree: Tree) -> None:
    width, height = tree.sizes[tree.ids[SPLIT][0]]
    image(tree).write_bytes(png(width, height, bytes((3 * width + 1) * height), broken=True))


def short_png(tree: Tree) -> None:
    width, height = tree.sizes[tree.ids[SPLIT][0]]
    image(tree).write_bytes(png(width, height, bytes(10)))


IMAGES = [
    Damage("truncated JPEG", cut, r"image '.*\.jpg' cannot be decoded: .*truncated", "corrupt"),
    Damage("zero bytes", replace_by(b""), r"image '.*\.jpg' cannot be read: no known image format", "empty"),
    Damage("HTML", replace_by(b"<!DOCTYPE html><title>404</title>"), r"'.*\.jpg' cannot be read: no known", "not-an-image"),
    Damage("binary noise", replace_by(bytes(range(256)) * 9), r"'.*\.jpg' cannot be read: no known", "not-an-image"),
    Damage("missing", lambda tree: image(tree).unlink(), r"image '.*\.jpg' cannot be read: No such file", "missing"),
    Damage("folder", as_folder, r"image '.*\.jpg' cannot be read: .*(director|regular)", "unreadable"),
    Damage("named pipe", as_pipe, r"image '.*\.jpg' cannot be read: .*regular", "unreadable"),
    Damage("link to itself", as_link_to_itself, r"image '.*\.jpg' cannot be read: Too many levels", "unreadable"),
    Damage("link to nothing", as_broken_link, r"image '.*\.jpg' cannot be read: No such file", "missing"),
    Damage("no permission", unreadable, r"image '.*\.jpg' cannot be read: Permission denied", "unreadable"),
    Damage("another size", another_size, r"'.*\.jpg' is 300x200 .*image_sizes\.txt' says", "size"),
    Damage("bomb", replace_by(png(20000, 20000)), r"'.*\.jpg' cannot be read: .*400000000 pixels", "corrupt"),
    Damage("no width", replace_by(png(0, 0)), r"image '.*\.jpg' (cannot be read|is 0x0)", None),
    Damage("bad checksum", bad_checksum, r"image '.*\.jpg' cannot be", None),
    Damage("too few pixels", short_png, r"image '.*\.jpg' cannot be decoded", "corrupt"),
]  # fmt: skip


# --- lists -----------------------------------------------------------------------------------------------------------


def edit(file: str, change: Callable[[list[bytes]], list[bytes]], split: str = SPLIT) -> Callable[[Tree], None]:
    """Change the lines of a list."""

    def do(tree: Tree) -> None:
        path = tree.metadata / split / file
        path.write_bytes(b"\n".join(change(path.read_bytes().split(b"\n"))))

    return do


def second(replace: Callable[[bytes], bytes]) -> Callable[[list[bytes]], list[bytes]]:
    """Change the second line."""
    return lambda lines: [lines[0], replace(lines[1]), *lines[2:]]


def box(text: bytes) -> Callable[[Tree], None]:
    """The second box of the list reads `text`."""
    return edit("localization.txt", second(lambda line: line.split(b",")[0] + b"," + text))


def renamed(id: bytes) -> Callable[[Tree], None]:
    """The second image is called `id`, in all lists."""

    def do(tree: Tree) -> None:
        for file in ("image_ids.txt", "class_labels.txt", "image_sizes.txt", "localization.txt"):
            edit(file, second(lambda line: b",".join([id, *line.split(b",")[1:]])))(tree)

    return do


def label(text: bytes) -> Callable[[Tree], None]:
    return edit("class_labels.txt", second(lambda line: line.split(b",")[0] + b"," + text))


LINE = r"\.txt' line 2: "
LISTS = [
    Damage("label is no number", label(b"bird"), rf"class_labels{LINE}'.*,bird', expected <id>,<class>", "lists"),
    Damage("label below 0", label(b"-1"), rf"class_labels{LINE}.*expected <id>,<class>", "lists"),
    Damage("label of 9 digits", label(b"999999999"), rf"class_labels{LINE}.*999999999.*expected", "lists"),
    Damage("label missing", label(b""), rf"class_labels{LINE}.*expected <id>,<class>", "lists"),
    Damage("box outside", box(b"1,1,500,20"), rf"localization{LINE}.*a box inside its image", "lists"),
    Damage("x1 < x0", box(b"20,5,10,9"), rf"localization{LINE}.*a box with x0 <= x1", "lists"),
    Damage("y1 < y0", box(b"5,20,10,9"), rf"localization{LINE}.*a box with y0 <= y1", "lists"),
    Damage("box with NaN", box(b"nan,5,10,9"), rf"localization{LINE}.*whole numbers of pixels", "lists"),
    Damage("box below 0", box(b"-3,5,10,9"), rf"localization{LINE}.*coordinates are at least 0", "lists"),
    Damage("box of 20 digits", box(b"0,0,99999999999999999999,9"), rf"localization{LINE}.*whole numbers", "lists"),
    Damage("box of fractions", box(b"0.5,0,9,9"), rf"localization{LINE}.*whole numbers of pixels", "lists"),
    Damage("box of three", box(b"0,0,9"), rf"localization{LINE}.*expected <id>,<x0>,<y0>,<x1>,<y1>", "lists"),
    Damage("box without area", box(b"5,5,5,9"), None, "box-degenerate"),
    Damage("size of nothing", edit("image_sizes.txt", second(lambda line: line.split(b",")[0] + b",0,9")),
           rf"image_sizes{LINE}.*whole numbers from 1", "lists"),
    Damage("not UTF-8", edit("image_ids.txt", second(lambda line: b"caf\xe9.jpg")),
           r"image_ids\.txt' is not a text file: byte \d+ is not UTF-8", "lists"),
    Damage("NUL byte", renamed(b"a\0b.jpg"), rf"image_ids{LINE}.*relative path", "lists"),
    Damage("id above the folder", renamed(b"../../x.jpg"), rf"image_ids{LINE}.*relative path .* without '\.\.'", "lists"),
    Damage("absolute id", renamed(b"/etc/passwd"), rf"image_ids{LINE}'/etc/passwd', expected a relative path", "lists"),
    Damage("backslash in an id", renamed(rb"001\a.jpg"), rf"image_ids{LINE}.*forward slashes", "lists"),
    Damage("id twice", edit("image_ids.txt", lambda lines: [lines[0], lines[0], *lines[2:]]),
           rf"image_ids{LINE}.*each id once, but line 1 holds it too", "lists"),
    Damage("image without label", edit("class_labels.txt", lambda lines: lines[1:]),
           r"class_labels\.txt' has no line for 1 of the \d+ images", "lists"),
    Damage("size of an unknown image", edit("image_sizes.txt", lambda lines: [*lines, b"new.jpg,4,4"]),
           r"image_sizes\.txt' line \d+: 'new.jpg,4,4', expected an id of 'image_ids.txt'", "lists"),
    Damage("two labels", edit("class_labels.txt", lambda lines: [lines[0], lines[0], *lines[1:]]),
           rf"class_labels{LINE}.*an earlier line names this one too", "lists"),
    Damage("no images", edit("image_ids.txt", lambda lines: []), r"image_ids\.txt' lists no image", "lists"),
    Damage("no labels", edit("class_labels.txt", lambda lines: []), r"class_labels\.txt' has no line for", "lists"),
    Damage("no list of labels", lambda tree: (tree.metadata / SPLIT / "class_labels.txt").unlink(),
           r"class_labels\.txt' cannot be read \(No such file", "lists"),
    Damage("class of no other split", edit("class_labels.txt", second(lambda line: line.split(b",")[0] + b",9"), "train"),
           r"train/class_labels\.txt' holds class 9, but the other splits have 3 classes", "lists"),
]  # fmt: skip


# --- masks -----------------------------------------------------------------------------------------------------------


def mask(tree: Tree) -> Path:
    return tree.masks[tree.ids[SPLIT][0]][0]


def mask_as_folder(tree: Tree) -> None:
    mask(tree).unlink()
    mask(tree).mkdir()


def text_as_mask(tree: Tree) -> None:
    mask(tree).write_text("1 0 1")


def empty_mask(tree: Tree) -> None:
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(mask(tree))


def larger_mask(tree: Tree) -> None:
    with Image.open(mask(tree)) as file:
        file.resize((333, 222)).save(mask(tree))


def mask_line(text: bytes) -> Callable[[Tree], None]:
    return edit("localization.txt", second(lambda line: line.split(b",")[0] + b"," + text))


MASKS = [
    Damage("no mask", lambda tree: mask(tree).unlink(), r"mask '.*\.png' does not exist; .*names it", "mask", "OpenImages"),
    Damage("mask is text", text_as_mask,
           r"mask '.*\.png' cannot be decoded; '.*localization.txt' names it", "mask", "OpenImages"),
    Damage("mask is a folder", mask_as_folder, r"mask '.*\.png' does not exist", "mask", "OpenImages"),
    Damage("mask above the folder", mask_line(b"../../m.png,"), rf"localization{LINE}.*mask files as", "lists", "OpenImages"),
    Damage("mask without name", mask_line(b","), rf"localization{LINE}.*<mask file>", "lists", "OpenImages"),
    Damage("empty mask", empty_mask, None, "mask-empty", "OpenImages"),
    Damage("larger mask", larger_mask, None, None, "OpenImages"),  # joined in the frame of 224x224, as the reference does
]  # fmt: skip


# --- what does no harm -----------------------------------------------------------------------------------------------


def outside(tree: Tree) -> None:
    moved = tree.root.parent / f"{tree.root.name}-elsewhere.jpg"
    image(tree).rename(moved)
    image(tree).symlink_to(moved)


def one_pixel(tree: Tree) -> None:
    Image.new("RGB", (1, 1)).save(image(tree))
    first = tree.ids[SPLIT][0].encode()
    edit("image_sizes.txt", lambda lines: [first + b",1,1", *lines[1:]])(tree)
    edit("localization.txt", lambda lines: [first + b",0,0,0,0", *lines[1:]])(tree)


def bom(tree: Tree) -> None:
    for path in (tree.metadata / SPLIT).iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))


HARMLESS = [
    Damage("link to another disk", outside, None, "outside"),
    Damage("wrong extension", lambda tree: Image.new("RGB", tree.sizes[tree.ids[SPLIT][0]]).save(image(tree), "BMP"),
           None, "extension"),
    Damage("one pixel", one_pixel, None, "box-degenerate"),
    Damage("byte order mark and CRLF", bom, None, None),
]  # fmt: skip


@pytest.fixture(autouse=True)
def complete(monkeypatch):
    """Let the miniature trees count as complete."""
    for name in ("CUB", "OpenImages"):
        monkeypatch.setattr(DATASETS.get(name.lower()), "complete", {})


ALL = IMAGES + LISTS + MASKS + HARMLESS


def parameters(damages: list[Damage]) -> list[object]:
    return [pytest.param(damage, id=damage.name.replace(" ", "-")) for damage in damages]


def damaged(damage: Damage, folder: Path) -> Tree:
    if damage.name == "no permission" and os.geteuid() == 0:
        pytest.skip("root may read everything")
    tree = write_tree(folder / "data", damage.tree, per_class=2)
    damage.do(tree)
    return tree


def run(tree: Tree, out: Path, *overrides: str) -> int:
    where = ["--dataset", tree.name.lower(), "--root", str(tree.root), "--out", str(out)]
    return main(["run", "--methods", "center-box", *where, *overrides])


@pytest.mark.parametrize("damage", parameters(ALL))
def test_a_run_says_in_one_sentence_what_is_wrong(damage, tmp_path, capsys):
    tree = damaged(damage, tmp_path)
    status = run(tree, tmp_path / "out")
    said = capsys.readouterr().err
    assert "Traceback" not in said
    if damage.says is None:
        assert status == 0, said
        return
    assert status in (1, 2)
    sentences = [line for line in said.splitlines() if line.startswith(("failed: ", "wsolbench: "))]
    assert len(sentences) == 1, said
    assert re.search(damage.says, sentences[0]), sentences[0]


@pytest.mark.parametrize("damage", parameters(ALL))
def test_data_check_finds_it_and_goes_on(damage, tmp_path, capsys):
    tree = damaged(damage, tmp_path)
    report = tmp_path / "report.json"
    where = [tree.name.lower(), "--root", str(tree.root), "--json", str(report), "--workers", "2"]
    status = main(["data", "check", *where])
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    content = json.loads(report.read_text())
    kinds = {each["kind"]: each["severity"] for each in content["findings"]}
    if damage.kind is not None:
        assert damage.kind in kinds, content["findings"]
        assert damage.kind in printed.out
    harmless = damage.says is None and damage.kind not in ("box-degenerate", "mask-empty")
    assert status == (0 if harmless else 1), content["findings"]
    assert (content["problems"] > 0) == (status == 1)
    if damage in IMAGES:
        assert content["splits"][SPLIT]["checked"] == len(tree.ids[SPLIT])
        found = [each for each in content["findings"] if each["severity"] == "problem"]
        assert [each["file"] for each in found] == [tree.ids[SPLIT][0]] * len(found)
    if damage in LISTS and damage.kind == "lists" and "train" not in damage.says:
        (found,) = [each for each in content["findings"] if each["kind"] == "lists"]
        assert re.search(damage.says, found["detail"])
        assert found["split"] == SPLIT


@pytest.mark.parametrize("damage", parameters(IMAGES))
def test_skipping_goes_on_and_the_record_names_the_image(damage, tmp_path, capsys):
    tree = damaged(damage, tmp_path)
    assert run(tree, tmp_path / "out", "data.on_bad_image=skip") == 0, capsys.readouterr().err
    (path,) = (tmp_path / "out").rglob("record.json")
    record = json.loads(path.read_text())
    assert list(record["ledger"]["skipped"]) == [SPLIT]
    ((id, why),) = record["ledger"]["skipped"][SPLIT].items()
    assert id == tree.ids[SPLIT][0]
    assert re.search(damage.says, why)
    assert record["ledger"]["test_images"] == len(tree.ids[SPLIT]) - 1
    assert record["notes"] == ["1 image that cannot be read left out: 1 of test"]


def test_loading_processes_say_it_in_one_sentence_too(tmp_path, capsys):
    tree = damaged(IMAGES[0], tmp_path)
    assert run(tree, tmp_path / "out", "evaluate.workers=2") == 1
    (sentence,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert re.search(rf"center-box[^:]*: {IMAGES[0].says}", sentence)
    assert "worker" not in sentence
