"""What can be wrong with a user's own folder: each is one sentence that names the file, the place in it and the value."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folder_trees import FolderTree, write_folder
from PIL import Image

from wsolbench import create_dataset
from wsolbench.errors import UsageError, WsolbenchError
from wsolbench_datasets.folder.boxes_coco import read_boxes_coco
from wsolbench_datasets.folder.boxes_csv import read_boxes_csv
from wsolbench_datasets.folder.boxes_voc import read_boxes_voc
from wsolbench_datasets.folder.masks import read_mask
from wsolbench_datasets.folder.names import ImageNames

Damage = Callable[[FolderTree], Any]


@pytest.fixture
def tree(tmp_path: Path) -> FolderTree:
    return write_folder(tmp_path / "root", counts={"train": 1, "val": 4, "test": 1})


def read_val(tree: FolderTree, options: dict[str, Any]) -> None:
    split = create_dataset("folder", root=tree.root, **options).split("val")
    for index, id in enumerate(split.ids):
        split.annotation(id)
        split[index]


def sentence(tree: FolderTree, **options: Any) -> str:
    """What opening the data set and reading everything of val says."""
    with pytest.raises(WsolbenchError) as caught:
        read_val(tree, options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def says(tree: FolderTree, pattern: str, **options: Any) -> None:
    text = sentence(tree, **options)
    assert re.search(pattern, text), text


# --- CSV -------------------------------------------------------------------------------------------------------------

LINES = [
    ("val/cat/z.jpg,0,0,5,5", r"boxes\.csv' line 2: 'val/cat/z\.jpg,0,0,5,5', expected an image of this data set, e\.g\. 'val/"),
    ("../../x.jpg,0,0,5,5", r"line 2: .*, expected an image as a relative path"),
    ("/etc/passwd,0,0,5,5", r"line 2: .*, expected an image as a relative path"),
    ("C:/me/a.jpg,0,0,5,5", r"line 2: .*, expected an image as a relative path"),
    ("val\\cat\\a.jpg,0,0,5,5", r"line 2: .*, expected an image as a relative path"),
    (",0,0,5,5", r"line 2: .*, expected an image as a relative path"),
    ("val/cat/a.jpg,0,0,5", r"line 2: .*, expected 5 fields, id,x0,y0,x1,y1"),
    ("val/cat/a.jpg,0,0,5,5,6", r"line 2: .*, expected 5 fields"),
    ("val/cat/a.jpg,0,0,five,5", r"line 2: .*, expected four numbers of pixels"),
    ("val/cat/a.jpg,nan,0,5,5", r"line 2: .*, expected four numbers of pixels"),
    ("val/cat/a.jpg,0,0,inf,5", r"line 2: .*, expected four numbers of pixels"),
    ("val/cat/a.jpg,0,0,1e300,5", r"line 2: .*, expected four numbers of pixels"),
    ("val/cat/a.jpg,-1,0,5,5", r"line 2: .*, expected a box whose coordinates are at least 0"),
    ("val/cat/a.jpg,5,0,4,5", r"line 2: .*, expected a box with x0 <= x1"),
    ("val/cat/a.jpg,0,5,5,4", r"line 2: .*, expected a box with y0 <= y1"),
    ("val/cat/a.jpg,0,0,900,5", r"line 2: .*, expected a box inside its image, which is \d+ wide and \d+ high"),
    ('val/cat/"a.jpg,0,0,5,5', r"line 2: .*, expected (an image|comma-separated|5 fields)"),
    ('"val/cat/a.jpg,0,0,5,5', r"line 2: .*, expected comma-separated fields"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "pattern"), LINES, ids=[line for line, _ in LINES])
def test_a_wrong_line_of_boxes_is_named(tree, line, pattern):
    path = tree.write_csv()
    header, *rest = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([header, line, *rest]), encoding="utf-8")
    says(tree, pattern)


def test_a_line_that_stands_twice_is_named(tree):
    path = tree.write_csv()
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines, lines[3]]), encoding="utf-8")
    says(tree, rf"boxes\.csv' line {len(lines) + 1}: '.*', expected each box once, but line 4 holds it too")


def test_a_file_of_boxes_that_is_none_is_named(tree):
    path = tree.write_csv()
    text = path.read_text(encoding="utf-8")
    path.write_bytes(text.encode("utf-16"))
    says(tree, r"boxes\.csv' is not a text file: byte 0 is not UTF-8")
    path.write_bytes(text.replace("é", "e").encode("latin-1"))
    says(tree, r"boxes\.csv' is not a text file: byte \d+ is not UTF-8")
    path.write_text(text.replace(",", ";"), encoding="utf-8")
    says(tree, r"line 1: 'id;x0;y0;x1;y1', expected a header with the columns id,x0,y0,x1,y1")
    path.write_text(text.partition("\n")[2], encoding="utf-8")
    says(tree, r"line 1: 'val/.*', expected a header")


def test_images_without_a_box_are_counted(tree):
    tree.write_csv(ids=tree.scored[2:])
    says(
        tree,
        rf"boxes\.csv' has no box for 2 of the 12 images of 'val', first '{tree.scored[0]}'; expected at least one",
    )


# --- COCO ------------------------------------------------------------------------------------------------------------


def edit(tree: FolderTree, change: Callable[[dict[str, Any]], Any]) -> Path:
    path = tree.write_coco()
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def put(*keys: Any) -> Callable[[dict[str, Any]], None]:
    *way, last, value = keys

    def change(content: Any) -> None:
        for key in way:
            content = content[key]
        content[last] = value

    return change


COCO: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (put("images", 1, "file_name", "../../x.jpg"), r"json' images\[1\]\.file_name: '\.\./\.\./x\.jpg', expected an image as"),
    (put("images", 1, "file_name", "/etc/passwd"), r"images\[1\]\.file_name: .*, expected an image as a relative path"),
    (put("images", 1, "file_name", "gone.jpg"), r"images\[1\]\.file_name: 'gone\.jpg', expected an image of this data set"),
    (put("images", 1, "file_name", None), r"images\[1\]: .*, expected an object with 'id' and 'file_name'"),
    (put("images", 1, "id", 7), r"images\[1\]: .*, expected each id once, but 7 was used before"),
    (put("images", 1, "id", []), r"images\[1\]: .*, expected an object with 'id'"),
    (put("images", 1, "width", 5), r"images\[1\]: .*, expected the size of 'val/.*' as it is stored, \d+ wide"),
    (put("images", 1, "width", "wide"), r"images\[1\]: .*, expected whole 'width' and 'height'"),
    (put("images", 3, "not an object"), r"images\[3\]: 'not an object', expected an object"),
    (put("annotations", 2, "bbox", [1, 2, 3]), r"annotations\[2\]\.bbox: '\[1, 2, 3\]', expected four numbers"),
    (put("annotations", 2, "bbox", [1, 2, "x", 3]), r"annotations\[2\]\.bbox: .*, expected four numbers"),
    (put("annotations", 2, "bbox", [1, 2, float("nan"), 3]), r"annotations\[2\]\.bbox: '\[1, 2, NaN, 3\]', expected four"),
    (put("annotations", 2, "bbox", [1, 2, float("inf"), 3]), r"annotations\[2\]\.bbox: .*, expected four numbers"),
    (put("annotations", 2, "bbox", [1, 2, True, 3]), r"annotations\[2\]\.bbox: .*, expected four numbers"),
    (put("annotations", 2, "bbox", [1, 2, 10**400, 3]), r"annotations\[2\]\.bbox: .*, expected four numbers"),
    (put("annotations", 2, "bbox", [1, 2, -3, 3]), r"annotations\[2\]\.bbox: .*, expected four .*at least 0"),
    (put("annotations", 2, "bbox", [-9, 2, 3, 3]), r"annotations\[2\]\.bbox: .*, expected a box whose coordinates are at"),
    (put("annotations", 2, "bbox", [1, 2, 3, 300]), r"annotations\[2\]\.bbox: .*, expected a box inside its image"),
    (put("annotations", 2, "bbox", None), r"annotations\[2\]\.bbox: 'null', expected four numbers"),
    (put("annotations", 2, {"image_id": 7}), r"annotations\[2\]: .*, expected an object with 'image_id' and 'bbox'"),
    (put("annotations", 2, "image_id", 999), r"annotations\[2\]\.image_id: '999', expected the id of an image of this file"),
    (put("annotations", 2, "category_id", 999), r"annotations\[2\]\.category_id: '999', expected the id of a category"),
    (put("annotations", 2, "category_id", {}), r"annotations\[2\]\.category_id: '\{\}', expected the id of a category"),
    (put("annotations", 2, "category_id", 1), r"annotations\[2\]\.bbox: .*, expected category 'Große .*, not 'cat'"),
    (put("categories", 0, "name", "person"), r"annotations\[\d+\]\.bbox: .*, expected category 'cat', .*not 'person'"),
    (put("categories", 1, "id", 1), r"categories\[1\]: .*, expected each id once, but 1 was used before"),
    (put("categories", 1, None), r"categories\[1\]: 'null', expected an object with 'id' and 'name'"),
    (put("images", {}), r"is no COCO file: expected an object with the lists 'images' and 'annotations'"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "pattern"), COCO, ids=[pattern for _, pattern in COCO])
def test_a_wrong_entry_of_a_coco_file_is_named(tree, change, pattern):
    edit(tree, change)
    says(tree, pattern)


def test_json_that_is_not_coco_is_named(tree):
    path = tree.root / "annotations.json"
    for text, pattern in (
        ("", r"annotations\.json' line 1: Expecting value, expected JSON"),
        ('{"images": [],\n "annotations": [,]}', r"annotations\.json' line 2: Expecting value, expected JSON"),
        ("[1, 2]", r"is no COCO file: expected an object with the lists"),
        ("[" * 200_000, r"annotations\.json' cannot be read as JSON: "),
        (f'{{"images": [{"9" * 5000}]}}', r"annotations\.json' cannot be read as JSON: "),
    ):
        path.write_text(text)
        says(tree, pattern)


def test_an_image_in_two_coco_files_is_named(tree):
    tree.write_coco("annotations/a.json")
    tree.write_coco("annotations/b.json")
    says(
        tree,
        r"b\.json' images\[0\]\.file_name: '.*', expected each image once, but '.*a\.json' images\[0\].* names it too",
    )


def test_one_category_that_is_no_class_says_nothing_of_classes(tree):
    edit(tree, lambda content: [entry.pop("category_id") for entry in content["annotations"]])
    assert create_dataset("folder", root=tree.root).split("val").annotated
    content = tree.coco(tree.scored)
    content["categories"] = [{"id": 4, "name": "object"}]
    for entry in content["annotations"]:
        entry["category_id"] = 4
    (tree.root / "annotations.json").write_text(json.dumps(content))
    assert create_dataset("folder", root=tree.root).split("val").annotated


# --- VOC -------------------------------------------------------------------------------------------------------------

BOMB = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;&b;">]><annotation><folder>&c;</folder></annotation>'
STOLEN = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>'
VOC = [
    ("<xmin>", "<xmin>x", r"xml' object 1, bndbox: '<bndbox>.*', expected four numbers of pixels, xmin, ymin, xmax, ymax"),
    ("<xmin>", "<xmin>9999", r"xml' object 1, bndbox: .*, expected a box with x0 <= x1"),
    ("<ymax>", "<ymax>9999", r"object 1, bndbox: .*, expected a box inside its image"),
    ("<xmin>", "<xmin>-", r"object 1, bndbox: .*, expected a box whose coordinates|expected a box with"),
    ("<xmin>", "<left>", r"xml' is not XML: mismatched tag"),
    ("<bndbox>", "<bndbox/><polygon>", r"xml' is not XML: mismatched tag"),
    ("<width>", "<width>9", r"xml' size: '<size>.*', expected the size of 'val/.*' as it is stored, \d+ wide and \d+ high"),
    ("<width>", "<width>?", r"xml' size: .*, expected width and height"),
    ("<name>", "<name>un", r"object 1, bndbox: .*, expected category '.*', the class folder of its image, not 'un"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "pattern"), VOC, ids=[f"{old} {new}" for old, new, _ in VOC])
def test_a_wrong_element_of_a_voc_file_is_named(tree, old, new, pattern):
    path = tree.write_voc()[2]
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    says(tree, pattern)


def test_xml_that_is_not_voc_is_named(tree):
    path = tree.write_voc("annotations")[1]
    good = path.read_text(encoding="utf-8")
    for text, pattern in (
        ("", r"xml' is not XML: no element found"),
        ("<html><body>404</body></html>", r"xml' is of another kind: its root is <html>, expected <annotation>"),
        (BOMB, r"xml' declares a document type or entities; expected plain annotation XML"),
        (STOLEN, r"xml' declares a document type or entities"),
        (
            good.replace("<bndbox>", "<rectangle>").replace("</bndbox>", "</rectangle>"),
            r"object 1: .*, expected a 'bndbox'",
        ),
    ):
        path.write_text(text, encoding="utf-8")
        says(tree, pattern)
    path.write_bytes(BOMB.encode("utf-16"))
    says(tree, r"xml' is not a text file: byte 0 is not UTF-8")
    path.write_text(good, encoding="utf-8")
    (tree.root / "annotations" / "stray.xml").write_text(good, encoding="utf-8")
    says(tree, r"stray\.xml' \(its name\): 'stray', expected an image of this data set")


def test_two_voc_files_of_one_image_are_named(tree):
    tree.write_voc()
    tree.write_voc("annotations")
    says(tree, r"'.*xml' and '.*xml' are about the same image: keep one of them")


def test_two_kinds_of_boxes_are_named(tree):
    tree.write_csv()
    tree.write_coco()
    says(tree, r"boxes\.csv' and '.*annotations\.json' both tell boxes: say which with dataset\.boxes=PATH")
    assert create_dataset("folder", root=tree.root, boxes="boxes.csv").split("val").annotated
    says(tree, r"dataset\.boxes=no\.csv: '.*no\.csv' does not exist; relative paths are below --root", boxes="no.csv")
    says(tree, r"dataset\.boxes=.*train: expected a \.csv or \.json file, or a folder", boxes="train")


# --- images and masks ------------------------------------------------------------------------------------------------


def halve(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


IMAGES: list[tuple[Callable[[Path], Any], str]] = [
    (halve, r"image '.*a\.jpg' cannot be decoded"),
    (lambda path: path.write_bytes(b""), r"image '.*a\.jpg' cannot be read: no known image format"),
    (lambda path: path.write_text("<html>404</html>"), r"image '.*a\.jpg' cannot be read: no known image format"),
    (lambda path: (path.unlink(), path.symlink_to("gone")), r"image '.*a\.jpg' cannot be read: No such file"),
]


@pytest.mark.parametrize("boxes", [True, False])
@pytest.mark.parametrize(("damage", "pattern"), IMAGES, ids=["truncated", "empty", "HTML", "link to nothing"])
def test_a_damaged_image_is_named_when_it_is_read_and_not_before(tree, damage, pattern, boxes):
    if boxes:
        tree.write_csv()
    damage(tree.root / "val" / "cat" / "a.jpg")
    dataset = create_dataset("folder", root=tree.root)
    assert dataset.info.counts["val"] == len(dataset.split("val")) == 12  # so that the others may go on
    assert dataset.split("val")[0].image_CHW.isfinite().all()
    says(tree, pattern)


def test_a_wrong_mask_is_named(tree):
    first, second, *_ = tree.write_masks()
    Image.new("L", (5, 6)).save(second)
    says(tree, r"mask '.*png' is 5x6 \(width x height\), but its image is \d+x\d+")
    first.write_text("<html>")
    says(tree, r"mask '.*png' cannot be read: no known image format")
    size = tree.sizes[tree.scored[0]]
    Image.new("L", size).save(first)
    says(tree, r"mask '.*png' shows no object: it holds nothing but 0$")
    Image.new("L", size, 255).save(first)
    says(tree, r"shows no object: it holds nothing but 0 besides the ignored value 255", mask_ignore=255)
    first.unlink()
    says(tree, rf"masks' has no mask for 1 of the 12 images of 'val', first '{tree.scored[0]}'; expected one for each")
    stray = tree.root / "masks" / "val" / "cat" / "a_mask.png"
    Image.new("L", size).save(stray)
    says(tree, r"a_mask\.png' \(its name\): 'val/cat/a_mask', expected an image of this data set, e\.g\. 'val/cat/")
    says(tree, r"dataset\.masks=truth: '.*truth' does not exist", masks="truth")


def test_a_mask_that_two_images_could_mean_is_named(tree):
    (tree.root / "val" / "cat" / "a.png").write_bytes((tree.root / "val" / "cat" / "d.png").read_bytes())
    tree.write_masks()
    says(tree, r"a\.png' \(its name\): 'val/cat/a', expected the whole id of one image, but two images are called")


def test_splits_that_are_annotated_in_different_ways_are_named(tree):
    tree.write_csv(ids=tree.ids["val"])
    tree.write_masks()
    for id in tree.ids["val"]:
        (tree.root / "masks" / id).with_suffix(".png").unlink()
    dataset = create_dataset("folder", root=tree.root)
    with pytest.raises(WsolbenchError, match=r"test has masks, but val has boxes: annotate both in the same way"):
        dataset.info  # noqa: B018


# --- folders ---------------------------------------------------------------------------------------------------------


def move(old: str, new: str) -> Damage:
    return lambda tree: (tree.root / old).rename(tree.root / new)


def loop(tree: FolderTree) -> None:
    (tree.root / "val" / "dog" / "round.jpg").symlink_to("round.jpg")
    (tree.root / "val" / "round").symlink_to("round")


FOLDERS: list[tuple[Damage, str]] = [
    (move("train/dog", "train/d\\og"), r"file 'd\\\\og' in '.*train' has a backslash or a control character"),
    (lambda tree: os.mkdir(os.fsencode(tree.root / "train") + b"/\xff"), r"the name b'\\xff' of a file in '.*train' is not UTF"),
    (loop, r"image '.*round\.jpg' cannot be read: (Too many levels of symbolic links|Symlink loop)"),
    (lambda tree: os.mkfifo(tree.root / "val" / "dog" / "pipe.jpg"), r"'.*pipe\.jpg' is no regular file: remove it"),
    (lambda tree: [(tree.root / "train" / name).mkdir(mode=0o777) for name in (" ",)], r"class folder '.*/ ' holds no image"),
    (move("val/dog", "val/dgo"), r"class folder 'dgo' of val has no image in train, did you mean 'dog'\?"),
    (lambda tree: (tree.root / "train" / "bird").mkdir(), r"class folder '.*train/bird' holds no image \(\.jpg, .*: fill or"),
    (lambda tree: [path.rename(path.with_suffix(".tif")) for path in (tree.root / "val/dog").rglob("*.*")],
     r"class folder '.*val/dog' holds no image \(.*\), only \.tif: fill or remove it"),
    (move("val/dog/a.jpg", "val/a.jpg"), r"image '.*val/a\.jpg' lies in no class folder; expected '.*val/<class>/a\.jpg'"),
    (move("val/dog/a.jpg", "val/dog/a\\b.jpg"), r"file 'a\\\\b\.jpg' in '.*' has a backslash or a control character"),
    (move("val/dog/a.jpg", "val/dog/a\nb.jpg"), r"file 'a\\nb\.jpg' in '.*' has a backslash or a control character"),
    (lambda tree: os.rename(tree.root / "val/dog/a.jpg", os.fsencode(tree.root / "val/dog") + b"/\xff.jpg"),
     r"the name b'\\xff\.jpg' of a file in '.*' is not UTF-8: rename it"),
    (lambda tree: (tree.root / "val/dog/é.jpg").write_bytes(b"") + (tree.root / "val/dog/e\u0301.jpg").write_bytes(b""),
     r"'.*' and '.*' have one name in Unicode: 'val/dog/é\.jpg'"),
    (lambda tree: (tree.root / "splits.csv").write_text("id,split\n"),
     r"splits\.csv' and the folders test, train, val both tell splits: keep one of them"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "pattern"), FOLDERS, ids=[pattern for _, pattern in FOLDERS])
def test_a_wrong_folder_is_named(tree, damage, pattern):
    damage(tree)
    says(tree, pattern)


def test_a_root_without_images_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"data set 'folder' needs --root PATH"):
        create_dataset("folder")
    with pytest.raises(UsageError, match=r"--root '.*none' is no folder; 'wsolbench data init"):
        create_dataset("folder", root=tmp_path / "none")
    for name in ("train", "val", "test"):
        (tmp_path / name).mkdir()
        with pytest.raises(UsageError, match=r"no image below --root '.*': expected train/<class>/"):
            create_dataset("folder", root=tmp_path)


@pytest.mark.parametrize(
    ("lines", "pattern"),
    [
        (["{},tset"], r"splits\.csv' line 2: '.*,tset', expected a split, one of train, val, test, none"),
        (
            ["{},train", "{},val"],
            r"splits\.csv' line 3: .*, expected one line per image, but an earlier line names this",
        ),
        (["../x.jpg,val"], r"splits\.csv' line 2: .*, expected an image as a relative path"),
        (
            ["{},val"],
            r"splits\.csv' has no line for 29 of the 30 images, first '.*'; expected <id>,<train\|val\|test\|none>",
        ),
    ],
)
def test_a_wrong_list_of_splits_is_named(tmp_path, lines, pattern):
    tree = write_folder(tmp_path, splits=False)
    text = "\n".join(["id,split", *lines]).replace("{}", tree.ids["train"][0])
    (tmp_path / "splits.csv").write_text(text, encoding="utf-8")
    says(tree, pattern)


@pytest.mark.parametrize(
    ("shares", "pattern"),
    [
        ({"val_share": 1.0}, r"dataset\.val_share=1\.0: expected shares from 0, together less than 1"),
        ({"val_share": -0.1}, r"dataset\.val_share=-0\.1: expected shares"),
        ({"val_share": float("nan")}, r"dataset\.val_share=nan: expected shares"),
        ({"val_share": 0.5, "test_share": 0.5}, r"share=0\.5: expected shares from 0, together less than 1"),
        ({"val_share": 0.97}, r"class '.*' has 10 images, too few to hold out val from them"),
    ],
)
def test_impossible_shares_are_named(tmp_path, shares, pattern):
    says(write_folder(tmp_path, splits=False), pattern, **shares)


def test_a_split_folder_of_another_name_is_pointed_at(tree):
    (tree.root / "val").rename(tree.root / "valid")
    says(tree, r"has no val images below '.*root': put some in val/<class>/, .*; not read there: valid$")


def test_splits_of_other_names_are_not_taken_for_classes(tree):
    for name in ("train", "val", "test"):
        (tree.root / name).rename(tree.root / name.capitalize())
    says(tree, r"'.*root/Test' is read as a class, but looks like a split: rename it to 'test'")


def test_no_byte_of_an_annotation_file_can_do_more_than_be_refused(tree):
    """Flipped, cut and doubled bytes: the sentence of a `WsolbenchError`, or boxes; never another error."""
    random = np.random.RandomState(0)
    voc, mask = tree.write_voc("annotations")[0], tree.write_masks()[0]
    names = ImageNames(sorted(tree.sizes))
    size_HW = tree.sizes[tree.scored[0]][::-1]
    readers: dict[Path, Callable[[Path], Any]] = {
        tree.write_csv(): lambda path: read_boxes_csv(path, names),
        tree.write_coco(): lambda path: read_boxes_coco([path], names, path),
        voc: lambda path: read_boxes_voc([(0, path)], path),
        mask: lambda path: read_mask(path, size_HW, 255),
    }
    sentences: list[str] = []
    for path, read in readers.items():
        whole = path.read_bytes()
        for _ in range(100):
            damaged = bytearray(whole)
            for at in random.randint(0, len(whole), random.randint(1, 4)):
                damaged[at] = random.randint(0, 256)
            first, second = sorted(random.randint(0, len(whole), 2))
            path.write_bytes([damaged, damaged[:first], damaged + damaged[first:second]][random.randint(3)])
            try:
                read(path)
            except WsolbenchError as error:
                sentences.append(str(error))
    assert 200 < len(sentences) < 400
    assert not any("\n" in sentence for sentence in sentences)
