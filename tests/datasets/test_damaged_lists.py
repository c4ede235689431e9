"""Lists and annotation files of archives with one thing wrong: one sentence that names file and line or record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from native_trees import (
    write_aircraft,
    write_cars,
    write_cub,
    write_dogs,
    write_ilsvrc,
    write_records,
)
from reference_trees import Tree, write_tree
from scipy.io import savemat

from wsolbench import create_dataset
from wsolbench.errors import WsolbenchError


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tree]:
    """One tree in the reference layout each, of which archives are made."""
    return {name: write_tree(tmp_path_factory.mktemp(name), name, per_class=3) for name in ("CUB", "ILSVRC")}


def read_all(name: str, root: Path, **options: object) -> None:
    """All that a run reads: classes, splits, every annotation of test."""
    dataset = create_dataset(name, root=root, **options)
    for split in ("train", "test"):
        dataset.split(split)
    dataset.fingerprint()
    split = dataset.split("test")
    for id in split.ids:
        split.annotation(id)


def line(file: str, number: int, text: str) -> Callable[[Path], None]:
    """Replace a line of a file, counted from 1; add it at the end with number 0."""

    def damage(root: Path) -> None:
        path = root / file
        lines = path.read_text(encoding="utf-8").split("\n")
        lines[number - 1 : number] = [text] if number else []
        path.write_text("\n".join(lines if number else [*lines, text]), encoding="utf-8")

    return damage


def content(file: str, data: bytes) -> Callable[[Path], None]:
    return lambda root: (root / file).write_bytes(data) and None


def gone(file: str) -> Callable[[Path], None]:
    return lambda root: (root / file).unlink()


CUB = "CUB_200_2011"
BIRD = "001.Black_footed_Albatross"
CUB_DAMAGE = {
    "label beyond the classes": (
        line(f"{CUB}/image_class_labels.txt", 3, "3 9"),
        r"labels\.txt' line 3: '3 9', expected",
    ),
    "label 0": (line(f"{CUB}/image_class_labels.txt", 3, "3 0"), r"labels\.txt' line 3: '3 0', expected .*1 \.\. 3"),
    "another class than the folder's": (
        line(f"{CUB}/image_class_labels.txt", 1, "1 2"),
        rf"labels\.txt' line 1: '1 2', expected the class of '{BIRD}/.*classes\.txt has '002\.Laysan",
    ),
    "an image twice": (
        line(f"{CUB}/images.txt", 0, f"19 {BIRD}/Bird000000.jpg"),
        r"images\.txt' line 19: .*line 1 holds it",
    ),
    "a number twice": (
        line(f"{CUB}/images.txt", 2, "1 a/b.jpg"),
        r"images\.txt' line 2: '1 a/b\.jpg', expected .*here 2",
    ),
    "an image outside": (line(f"{CUB}/images.txt", 2, "2 ../../x"), r"images\.txt' line 2: '2 \.\./\.\./x', expected"),
    "a backslash": (
        line(f"{CUB}/images.txt", 2, r"2 a\\b.jpg"),
        r"images\.txt' line 2: .*expected a number and a relative",
    ),
    "no UTF-8": (
        content(f"{CUB}/classes.txt", b"1 001.\xff"),
        r"classes\.txt' is not a text file: byte 6 is not UTF-8",
    ),
    "a class twice": (line(f"{CUB}/classes.txt", 2, f"2 {BIRD}"), r"classes\.txt' names a class twice"),
    "no such file": (gone(f"{CUB}/train_test_split.txt"), r"file '.*split\.txt' cannot be read \(No such file"),
    "another role": (
        line(f"{CUB}/train_test_split.txt", 4, "4 2"),
        r"split\.txt' line 4: '4 2', expected <number> <1 train",
    ),
    "fewer lines": (
        line(f"{CUB}/train_test_split.txt", 4, ""),
        r"split\.txt' has no line for 1 of the 18 images.*first '4'",
    ),
    "a box that is no number": (
        line(f"{CUB}/bounding_boxes.txt", 2, "2 nan 1.0 5.0 5.0"),
        r"boxes\.txt' line 2: '2 nan 1\.0 5\.0 5\.0', expected <number> <x>",
    ),
    "a negative box": (
        line(f"{CUB}/bounding_boxes.txt", 2, "2 -1.0 1.0 5.0 5.0"),
        r"line 2: .*coordinates are at least 0",
    ),
    "a box of negative width": (line(f"{CUB}/bounding_boxes.txt", 2, "2 9.0 1.0 -5.0 5.0"), r"line 2: .*x0 <= x1"),
    "a box outside": (
        line(f"{CUB}/bounding_boxes.txt", 2, "2 900.0 1.0 5.0 5.0"),
        r"boxes\.txt': image '.*jpg' has the box 900,1,905,6 \(x0,y0,x1,y1\), which lies outside of the image",
    ),
    "a box too many": (line(f"{CUB}/bounding_boxes.txt", 0, "1 1.0 1.0 5.0 5.0"), r"line 19: .*one line per image"),
    "a box of no image": (
        line(f"{CUB}/bounding_boxes.txt", 0, "99 1.0 1.0 5.0 5.0"),
        r"line 19: .*an id of 'images\.txt'",
    ),
    "an empty list": (content(f"{CUB}/images.txt", b""), r"images\.txt' is empty; expected <number> <image file>"),
}

XML = "ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000002.xml"
BOX = "<bndbox><xmin>{}</xmin><ymin>1</ymin><xmax>{}</xmax><ymax>9</ymax></bndbox>"
BOMB = '<!DOCTYPE b [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>'


def xml(body: str, *, head: str = "", image: str = "ILSVRC2012_val_00000002") -> Callable[[Path], None]:
    text = f"{head}<annotation><filename>{image}</filename>{body}</annotation>"
    return lambda root: (root / XML).write_text(text) and None


def thing(box: str, name: str = "n01443537") -> str:
    return f"<object><name>{name}</name>{box}</object>"


ILSVRC_DAMAGE = {
    "no XML file": (gone(XML), r"annotation '.*00000002\.xml' cannot be read: No such file"),
    "no XML": (content(XML, b"<annotation>"), r"00000002\.xml' is not XML: no element found: line 1"),
    "HTML": (content(XML, b"<html></html>"), r"00000002\.xml' is of another kind: its root is <html>"),
    "no UTF-8": (content(XML, b"<annotation>\xff"), r"00000002\.xml' is not a text file: byte 12 is not UTF-8"),
    "a NUL": (content(XML, b"<annotation>\0</annotation>"), r"00000002\.xml' is not XML"),
    "entities": (xml("<object>&b;</object>", head=BOMB), r"00000002\.xml' declares a document type or entities"),
    "a large file": (content(XML, b" " * (5 << 20)), r"00000002\.xml' has more than 4194304 bytes"),
    "another image's": (
        xml(thing(BOX.format(1, 9)), image="x"),
        r"00000002\.xml' is of image 'x', expected 'ILSVRC2012_val",
    ),
    "another class's": (
        xml(thing(BOX.format(1, 9), "n01440764")),
        r"00000002\.xml' holds objects of 'n01440764' only, but image 'val/.*00000002\.JPEG' is labelled 1, 'n01443537'",
    ),
    "no object": (xml(""), r"00000002\.xml' has no object"),
    "an object without a box": (xml(thing("")), r"00000002\.xml' object 1: box ,,,, expected the numbers xmin"),
    "a box upside down": (xml(thing(BOX.format(9, 1))), r"object 1: box 9,1,1,9, expected xmin <= xmax"),
    "a negative box": (xml(thing(BOX.format(-9, 1))), r"object 1: box -9,1,1,9, expected coordinates of at least 0"),
    "a box that is no number": (xml(thing(BOX.format("nan", 1))), r"object 1: box nan,1,1,9, expected the numbers"),
    "a box outside": (
        xml(thing(BOX.format(800, 900))),
        r"00000002\.xml': image '.*' has the box 800,1,900,9 .* outside",
    ),
    "no CSV line": (
        line("LOC_val_solution.csv", 2, "ILSVRC2012_val_00000009,n01484850 1 2 3"),
        r"solution\.csv' line 2: .*expected ILSVRC2012_val_<8 digits>,<wnid>",
    ),
    "a class of no list": (
        line("LOC_val_solution.csv", 2, "ILSVRC2012_val_00000009,n99999999 1 2 3 4 "),
        r"solution\.csv': image 'ILSVRC2012_val_00000009' has class 'n99999999', which is none of the 3 known",
    ),
    "an image twice": (
        line("LOC_val_solution.csv", 0, "ILSVRC2012_val_00000009,n01484850 1 2 3 4"),
        r"solution\.csv' line 11: .*expected one line per image",
    ),
    "a mapping without wnids": (
        line("LOC_synset_mapping.txt", 2, "tench"),
        r"mapping\.txt' line 2: 'tench', expected <wnid>",
    ),
    "a class twice": (line("LOC_synset_mapping.txt", 2, "n01440764 x"), r"mapping\.txt' line 2: .*each once"),
    "a folder of no class": (
        lambda root: (root / "ILSVRC/Data/CLS-LOC/train/n99999999").mkdir(),
        r"folder '.*train' has class 'n99999999', which is none of the 3 known WordNet ids",
    ),
}


def assert_refused(name: str, root: Path, sentence: str, **options: object) -> None:
    with pytest.raises(WsolbenchError, match=sentence) as caught:
        read_all(name, root, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("what", CUB_DAMAGE)
def test_damage_to_the_lists_of_cub_is_named(trees, tmp_path, what):
    damage, sentence = CUB_DAMAGE[what]
    write_cub(trees["CUB"], tmp_path)
    read_all("cub", tmp_path, val="holdout", holdout=1)
    damage(tmp_path)
    assert_refused("cub", tmp_path, sentence, val="holdout", holdout=1)


@pytest.mark.parametrize("what", ILSVRC_DAMAGE)
def test_damage_to_the_lists_of_ilsvrc_is_named(trees, tmp_path, what):
    damage, sentence = ILSVRC_DAMAGE[what]
    write_ilsvrc(trees["ILSVRC"], tmp_path)
    damage(tmp_path)
    assert_refused("ilsvrc", tmp_path, sentence)


def test_the_archives_of_ilsvrc_are_read_without_damage(trees, tmp_path):
    write_ilsvrc(trees["ILSVRC"], tmp_path)
    read_all("ilsvrc", tmp_path)


DEVKIT = "ILSVRC2012_devkit_t12/data"


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (gone(f"{DEVKIT}/meta.mat"), r"ground_truth\.txt' holds the devkit's numbers of classes.*expected meta\.mat"),
        (content(f"{DEVKIT}/meta.mat", b"MATLAB" * 40), r"file '.*meta\.mat' is not a readable \.mat file: "),
        (content(f"{DEVKIT}/meta.mat", b""), r"file '.*meta\.mat' is not a readable \.mat file: "),
        (
            line(f"{DEVKIT}/ILSVRC2012_validation_ground_truth.txt", 2, "4"),
            r"truth\.txt' line 2: '4', expected .*from 1 to 3",
        ),
        (
            line(f"{DEVKIT}/ILSVRC2012_validation_ground_truth.txt", 2, "x"),
            r"truth\.txt' line 2: 'x', expected a class",
        ),
        (
            lambda root: write_records(root / DEVKIT / "meta.mat", "synsets", [{"WNID": "n01440764"}] * 2),
            r"meta\.mat' record 1 of 'synsets' has no field 'ILSVRC2012_ID'",
        ),
        (
            lambda root: write_records(
                root / DEVKIT / "meta.mat",
                "synsets",
                [{"WNID": "n01440764", "ILSVRC2012_ID": at, "num_children": 0} for at in (1, 2)],
            ),
            r"meta\.mat' record 2 of 'synsets': class 2 is 'n01440764', expected one WordNet id per number",
        ),
        (lambda root: savemat(root / DEVKIT / "meta.mat", {"x": 1}), r"meta\.mat' has no 'synsets'; it holds x"),
    ],
)
def test_damage_to_the_devkit_is_named(trees, tmp_path, damage, sentence):
    """XML gives the boxes only while a list of labels is there."""
    write_ilsvrc(trees["ILSVRC"], tmp_path, labels="devkit", boxes="xml")
    (tmp_path / "ILSVRC/Annotations").rename(tmp_path / "aside")
    damage(tmp_path)
    assert_refused("ilsvrc", tmp_path, sentence)


def test_a_label_that_disagrees_with_the_folder_of_the_image_is_named(trees, tmp_path):
    write_ilsvrc(trees["ILSVRC"], tmp_path, sorted_val=True)
    line("LOC_val_solution.csv", 2, "ILSVRC2012_val_00000009,n01440764 1 2 3 4")(tmp_path)
    assert_refused(
        "ilsvrc", tmp_path, r"image 'ILSVRC2012_val_00000009' is 'n01440764' in '.*csv', but lies in '.*n01484850'"
    )


def dogs_list(labels: list[int], files: list[str]) -> Callable[[Path], None]:
    cells = np.empty((len(files), 1), object)
    cells[:, 0] = files
    return lambda root: savemat(root / "test_list.mat", {"file_list": cells, "labels": np.array(labels)[:, None]})


DOG = "n02085620-Chihuahua"


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            dogs_list([1], [f"{DOG}/../x.jpg"]),
            r"test_list\.mat' record 1 of 'file_list': '.*x\.jpg', expected <class>/<file>",
        ),
        (dogs_list([4], [f"{DOG}/x.jpg"]), r"test_list\.mat' record 1 of 'labels': 4, expected 1 \.\. 3"),
        (dogs_list([0], [f"{DOG}/x.jpg"]), r"test_list\.mat' record 1 of 'labels': 0, expected 1 \.\. 3"),
        (
            dogs_list([2], [f"{DOG}/x.jpg"]),
            r"record 1 of 'labels': 2 for '.*x\.jpg', expected the place of 'n02085620-Chi",
        ),
        (dogs_list([1, 1], [f"{DOG}/x.jpg"] * 2), r"record 2 of 'file_list': .*record 1 holds it too"),
        (dogs_list([1], [f"{DOG}/x.jpg"] * 2), r"test_list\.mat' has 2 entries of 'file_list', but 1 of 'labels'"),
        (gone("test_list.mat"), r"file '.*test_list\.mat' cannot be read"),
        (
            lambda root: (root / "test_list.mat").write_bytes((root / "train_list.mat").read_bytes()[:200]),
            r"test_list\.mat' cannot be read: could not read",
        ),
        (
            lambda root: next((root / "Annotation" / DOG).iterdir()).write_text("x") and None,
            r"'.*n02085620_\d+' is not XML",
        ),
    ],
)
def test_damage_to_dogs_is_named(tmp_path, damage, sentence):
    write_dogs(tmp_path, per_class=3)
    read_all("stanford_dogs", tmp_path, holdout=1)
    damage(tmp_path)
    for path in (tmp_path / "Annotation" / DOG).iterdir():  # whichever of the class's files the split needs
        if path.read_text() == "x":
            for other in path.parent.iterdir():
                other.write_text("x")
            break
    assert_refused("stanford_dogs", tmp_path, sentence, holdout=1)


def car(**changes: object) -> list[dict[str, object]]:
    row = {"relative_im_path": "car_ims/000001.jpg", "bbox_x1": 1, "bbox_y1": 1, "bbox_x2": 9, "bbox_y2": 9, "class": 1}
    return [row | {"test": 0} | changes, row | {"relative_im_path": "car_ims/000004.jpg", "test": 1}]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (car(bbox_x1=0), r"cars_annos\.mat' record 1 of 'annotations': box 0,1,9,9, expected x1,y1,x2,y2 from 1"),
        (car(bbox_x1=20), r"record 1 of 'annotations': box 20,1,9,9, expected"),
        (
            car(bbox_x1=float("nan")),
            r"cars_annos\.mat' record 1 of 'annotations', bbox_x1: nan, expected a whole number",
        ),
        (car(bbox_x1="x"), r"record 1 of 'annotations', bbox_x1: x, expected a whole number"),
        (car(**{"class": 4}), r"record 1 of 'annotations': class 4 of 'car_ims/000001\.jpg', expected 1 \.\. 3"),
        (car(test=2), r"record 1 of 'annotations': test is 2, expected 0"),
        (car(relative_im_path="/etc/passwd"), r"record 1 of 'annotations': '/etc/passwd', expected a relative path"),
        (car() + car()[:1], r"record 3 of 'annotations': 'car_ims/000001\.jpg', expected each image once"),
        (car()[:1] + car(relative_im_path="b.jpg")[:1], r"cars_annos\.mat' has no image of test"),
    ],
)
def test_damage_to_cars_is_named(tmp_path, rows, sentence):
    write_cars(tmp_path, merged=True)
    names = np.empty((1, 3), object)
    names[0] = ["a", "b", "c/d"]
    write_records(tmp_path / "cars_annos.mat", "annotations", rows, class_names=names)
    assert_refused("stanford_cars", tmp_path, sentence, holdout=0.5)


def test_the_test_annotations_of_cars_without_labels_are_not_enough(tmp_path):
    write_cars(tmp_path, merged=False)
    gone("devkit/cars_test_annos_withlabels.mat")(tmp_path)
    assert_refused("stanford_cars", tmp_path, r"cars_test_annos_withlabels\.mat' .*expected .*with labels", holdout=1)


DATA = "fgvc-aircraft-2013b/data"


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            line(f"{DATA}/images_variant_test.txt", 1, "1234567 F-16"),
            r"variant_test\.txt' line 1: .*the variant one of",
        ),
        (
            line(f"{DATA}/images_variant_test.txt", 1, "../1 F-16A/B"),
            r"variant_test\.txt' line 1: .*the image a relative",
        ),
        (
            line(f"{DATA}/images_variant_test.txt", 1, "0034309 F-16A/B"),
            r"variant_test\.txt' line 1: .*each image once in all",
        ),
        (line(f"{DATA}/images_box.txt", 1, "0034309 1 2 3"), r"images_box\.txt' line 1: .*expected <image> <xmin>"),
        (line(f"{DATA}/images_box.txt", 1, "0034309 9 9 3 20"), r"images_box\.txt' line 1: .*x0 <= x1"),
        (line(f"{DATA}/images_box.txt", 1, ""), r"images_box\.txt' has no line for 1 of the 18 images"),
        (line(f"{DATA}/variants.txt", 2, "707-320"), r"variants\.txt' line 2: '707-320', expected each variant once"),
        (content(f"{DATA}/variants.txt", b"\xff"), r"variants\.txt' is not a text file"),
        (gone(f"{DATA}/images_variant_val.txt"), r"file '.*images_variant_val\.txt' cannot be read"),
    ],
)
def test_damage_to_aircraft_is_named(tmp_path, damage, sentence):
    write_aircraft(tmp_path)
    read_all("fgvc_aircraft", tmp_path, holdout=1)
    damage(tmp_path)
    assert_refused("fgvc_aircraft", tmp_path, sentence, holdout=1)


@pytest.mark.parametrize("name", ["stanford_dogs", "stanford_cars", "fgvc_aircraft"])
def test_a_root_without_the_archive_is_named(tmp_path, name):
    for root, sentence in ((None, "needs --root PATH, the folder that holds"), (tmp_path, "no archive of data set")):
        with pytest.raises(WsolbenchError, match=sentence):
            create_dataset(name, root=root)
