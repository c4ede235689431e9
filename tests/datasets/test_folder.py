"""`folder`: images in class folders, with ground truth in any of the formats that users have."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
from folder_trees import CLASSES, COUNTS, FolderTree, write_folder
from PIL import Image

from wsolbench import create_dataset
from wsolbench.data.contact_sheet import write_contact_sheet
from wsolbench.errors import UsageError, WsolbenchError


@pytest.fixture
def tree(tmp_path: Path) -> FolderTree:
    return write_folder(tmp_path / "my images")


def write(tree: FolderTree, kind: str) -> None:
    {
        "csv": tree.write_csv,
        "coco": tree.write_coco,
        "voc beside": tree.write_voc,
        "voc apart": lambda: tree.write_voc("annotations"),
    }[kind]()


def test_splits_classes_and_ids_are_those_of_the_folders(tree):
    (tree.root / "train" / "cat" / "notes.txt").write_text("no image")
    (tree.root / "train" / "cat" / "._a.jpg").write_bytes(b"what a Mac leaves behind")
    dataset = create_dataset("folder", root=tree.root)
    assert dataset.info.class_names == tuple(sorted(CLASSES))
    for name, count in COUNTS.items():
        split = dataset.split(name)
        assert split.ids == tree.ids[name]
        assert dataset.info.counts[name] == len(split) == count * len(CLASSES)
        assert [dataset.info.class_names[label] for label in split.labels] == [tree.class_of(id) for id in split.ids]
        assert split[3].image_CHW.shape == (3, 224, 224)
    assert {Path(id).suffix for id in tree.ids["train"]} == {".jpg", ".JPG", ".jpeg", ".png", ".webp", ".bmp"}


@pytest.mark.parametrize("kind", ["csv", "coco", "voc beside", "voc apart"])
def test_boxes_are_the_same_whichever_file_tells_them(tree, kind):
    write(tree, kind)
    dataset = create_dataset("folder", root=tree.root)
    assert (dataset.info.has_boxes, dataset.info.has_masks) == (True, False)
    for name in ("val", "test"):
        split = dataset.split(name)
        assert split.annotated
        for id in split.ids:
            annotation = split.annotation(id)
            assert annotation.boxes_N4.tolist() == [tree.boxes[id]]
            assert annotation.size_HW == tree.sizes[id][::-1]
    assert not dataset.split("train").annotated
    shutil.rmtree(tree.root / "annotations", ignore_errors=True)
    tree.write_csv("elsewhere.csv")
    assert dataset.fingerprint() == create_dataset("folder", root=tree.root, boxes="elsewhere.csv").fingerprint()


def test_a_file_per_split_may_leave_out_the_folder_of_the_split(tree):
    for name in ("instances_val", "test2017"):
        split = name.partition("_")[2] or "test"
        content = tree.coco(tree.ids[split])
        for image in content["images"]:
            image["file_name"] = image["file_name"].removeprefix(f"{split}/")  # train/cat/a.jpg ends so too
        (tree.root / "annotations").mkdir(exist_ok=True)
        (tree.root / "annotations" / f"{name}.json").write_text(json.dumps(content))
    dataset = create_dataset("folder", root=tree.root)
    for name in ("val", "test"):
        split = dataset.split(name)
        assert [split.annotation(id).boxes_N4.tolist() for id in split.ids] == [[tree.boxes[id]] for id in split.ids]
    (tree.root / "annotations" / "test2017.json").rename(tree.root / "annotations" / "all.json")
    with pytest.raises(WsolbenchError, match=r"all\.json' images\[0\]\.file_name: .* both end so"):
        create_dataset("folder", root=tree.root).split("val")


def test_lines_in_any_order_with_quotes_comments_and_short_names(tree):
    first, *others = tree.scored
    last = others.pop()
    (tree.root / last).rename(tree.root / Path(last).with_name("unique, one.jpg"))
    boxes = {id: ",".join(map(str, tree.boxes[id])) for id in others}
    lines = ["# a comment", "label,id,x0,y0,x1,y1", f"?,{first},3,3,9.9,9", ""]
    lines += [f'?,"{id}",{box}' for id, box in boxes.items()]
    lines += [f"?,./{first},1,2,10,11", '?,"unique, one.jpg", 0,0,4,5']
    (tree.root / "boxes.csv").write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    dataset = create_dataset("folder", root=tree.root)
    assert dataset.split("val").annotation(first).boxes_N4.tolist() == [[3, 3, 9, 9], [1, 2, 10, 11]]
    renamed = Path(last).with_name("unique, one.jpg").as_posix()
    assert dataset.split("test").annotation(renamed).boxes_N4.tolist() == [[0, 0, 4, 5]]


def test_fractions_are_cut_off_and_the_edge_is_clipped_with_a_count(tree):
    first, second, third, *_ = tree.ids["val"]
    width, height = tree.sizes[first]
    content = tree.coco(tree.scored)
    boxes = {first: [2.9, 0.9, width - 2.5, height - 0.9], second: [-0.5, 3, 7.5, 4]}
    for annotation in content["annotations"]:
        id = content["images"][annotation["id"]]["file_name"]
        annotation["bbox"] = boxes.get(id, annotation["bbox"])
    content["annotations"].append({"image_id": content["images"][0]["id"], "bbox": [0, 0, 9999, 1], "iscrowd": 1})
    (tree.root / "annotations.json").write_text(json.dumps(content))
    with pytest.warns(
        UserWarning, match=r"annotations\.json': 1 boxes of 'val' end at x1 = width or y1 = height; they are"
    ):
        split = create_dataset("folder", root=tree.root).split("val")
    assert split.annotation(first).boxes_N4.tolist() == [[2, 0, width - 1, height - 1]]
    assert split.annotation(second).boxes_N4.tolist() == [[0, 3, 7, 7]]
    assert split.annotation(third).boxes_N4.tolist() == [tree.boxes[third]]


def test_masks_of_any_kind_alone_or_beside_boxes(tree):
    paths = tree.write_masks()
    first, second, third, *_ = tree.ids["val"]
    mask = np.asarray(Image.open(paths[0])).copy()
    x0, y0, x1, y1 = tree.boxes[first]
    mask[y0, x0], mask[y1, x1] = 7, 255
    Image.fromarray(mask).save(paths[0])
    palette = Image.fromarray(np.asarray(Image.open(paths[1])) // 255, mode="P")
    palette.putpalette([200, 200, 200, 0, 0, 0])  # a light background: the index counts, not the colour
    palette.save(paths[1])
    Image.open(paths[2]).convert("1").save(paths[2])
    dataset = create_dataset("folder", root=tree.root)
    assert (dataset.info.has_boxes, dataset.info.has_masks) == (False, True)
    split = dataset.split("val")
    for id in (first, second, third):
        annotation = split.annotation(id)
        x0, y0, x1, y1 = tree.boxes[id]
        expected = np.zeros(annotation.size_HW, np.uint8)
        expected[y0 : y1 + 1, x0 : x1 + 1] = 1
        np.testing.assert_array_equal(annotation.mask_HW, expected)
        assert annotation.boxes_N4 is None
    before = dataset.fingerprint()
    Image.fromarray(mask).save(paths[0], compress_level=0)
    assert create_dataset("folder", root=tree.root).fingerprint() != before
    ignoring = create_dataset("folder", root=tree.root, mask_ignore=7).split("val").annotation(first).mask_HW
    x0, y0, *_ = tree.boxes[first]
    assert ignoring[y0, x0] == 255
    tree.write_csv()
    both = create_dataset("folder", root=tree.root)
    assert (both.info.has_boxes, both.info.has_masks) == (True, True)
    annotation = both.split("test").annotation(tree.ids["test"][0])
    assert annotation.boxes_N4.tolist() == [tree.boxes[annotation.id]]
    assert annotation.mask_HW.shape == annotation.size_HW


def test_masks_may_lie_elsewhere(tree, tmp_path):
    tree.write_masks("../truth")
    dataset = create_dataset("folder", root=tree.root, masks=tmp_path / "truth")
    assert dataset.split("test").annotation(tree.ids["test"][0]).mask_HW.max() == 1


def test_one_tree_is_divided_by_shares_that_do_not_depend_on_the_order_of_files(tmp_path):
    tree = write_folder(tmp_path / "a", splits=False)
    dataset = create_dataset("folder", root=tree.root, val_share=0.2, test_share=0.3)
    assert dataset.info.counts == {"train": 15, "val": 6, "test": 9}
    roles = {id: name for name in dataset.splits for id in dataset.split(name).ids}
    assert sorted(roles) == tree.ids["train"]
    for name, count in (("train", 5), ("val", 2), ("test", 3)):
        assert np.bincount(dataset.split(name).labels).tolist() == [count] * 3
    (tmp_path / "b").mkdir()
    shutil.copytree(tree.root, tmp_path / "b" / "images")  # the same tree below images/, which ids leave out
    again = create_dataset("folder", root=tmp_path / "b", val_share=0.2, test_share=0.3)
    assert {id: name for name in again.splits for id in again.split(name).ids} == roles
    assert again.split("val")[0].image_CHW.equal(dataset.split("val")[0].image_CHW)
    assert again.fingerprint() == dataset.fingerprint()
    assert (
        create_dataset("folder", root=tree.root, val_share=0.1, test_share=0.3).split("test").ids
        == dataset.split("test").ids
    )
    other = create_dataset("folder", root=tree.root, val_share=0.2, test_share=0.3, holdout_seed=1)
    assert other.split("test").ids != dataset.split("test").ids
    shutil.rmtree(tree.root / "dog")  # another class's draw stays what it is
    fewer = create_dataset("folder", root=tree.root, val_share=0.2, test_share=0.3).split("test").ids
    assert fewer == [id for id in dataset.split("test").ids if not id.startswith("dog/")]


def test_the_draw_is_this_one_on_every_machine(tmp_path):
    tree = write_folder(tmp_path, splits=False)
    held = create_dataset("folder", root=tree.root, val_share=0.1, test_share=0.1)
    assert held.split("test").ids == ["Große Vögel/d.png", "cat/more/deep/er/c.jpeg", "dog/deep/er/c.jpeg"]
    assert held.split("val").ids == ["Große Vögel/more/deep/er/c.jpeg", "cat/a.jpg", "dog/a.jpg"]


def test_a_list_divides_one_tree(tmp_path):
    tree = write_folder(tmp_path, splits=False)
    roles = dict(zip(tree.ids["train"], ["train", "val", "test", "train", "none"] * 6, strict=True))
    (tmp_path / "splits.csv").write_text("id,split\n" + "\n".join(f"{id},{role}" for id, role in roles.items()))
    dataset = create_dataset("folder", root=tmp_path)
    for name in dataset.splits:
        assert dataset.split(name).ids == [id for id, role in roles.items() if role == name]
    with pytest.raises(UsageError, match=r"dataset\.val_share=0\.2 would hold out val, but the folder has val images"):
        create_dataset("folder", root=tmp_path, val_share=0.2)


def test_val_may_be_held_out_beside_a_test_folder(tree):
    shutil.rmtree(tree.root / "val")
    with pytest.raises(
        UsageError, match=r"no val images below '.*': put some in val/<class>/, or .*dataset\.val_share=0\.2"
    ):
        create_dataset("folder", root=tree.root).split("val")
    dataset = create_dataset("folder", root=tree.root, val_share=0.34)
    assert dataset.info.counts == {"train": 12, "val": 6, "test": 12}
    tree.write_csv(ids=[*dataset.split("val").ids, *tree.ids["test"]])
    assert create_dataset("folder", root=tree.root, val_share=0.34).split("val").annotated


def test_a_name_is_the_same_however_a_mac_composes_its_letters(tree):
    plain = tree.root / "train" / "cat" / "é.webp"
    plain.rename(plain.with_name(unicodedata.normalize("NFD", plain.name)))
    for split in ("val", "test"):
        folder = tree.root / split / "Große Vögel"
        folder.rename(folder.with_name(unicodedata.normalize("NFD", folder.name)))
    tree.write_csv()
    dataset = create_dataset("folder", root=tree.root)
    assert dataset.split("train").ids == tree.ids["train"]
    assert dataset.split("test").ids == tree.ids["test"]
    assert dataset.info.num_classes == 3
    assert all(dataset.split("test")[index].image_CHW.isfinite().all() for index in range(12))


def test_links_are_the_users_own_and_a_circle_of_them_is_refused(tree, tmp_path):
    outside = tmp_path / "other disk"
    (tree.root / "train" / "cat").rename(outside)
    (tree.root / "train" / "cat").symlink_to(outside)
    dataset = create_dataset("folder", root=tree.root)
    assert dataset.split("train").ids == tree.ids["train"]
    assert dataset.split("train")[0].image_CHW.isfinite().all()
    os.symlink(tree.root / "train" / "dog", outside / "more")
    os.symlink(outside, tree.root / "train" / "dog" / "back")
    with pytest.raises(WsolbenchError, match=r"'.*' links back to a folder it lies in: remove that link"):
        create_dataset("folder", root=tree.root)


def test_opening_reads_no_pixel_and_no_header_of_training_images(tree):
    tree.write_csv()
    for id in tree.ids["train"]:
        (tree.root / id).write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = create_dataset("folder", root=tree.root)
        assert dataset.info.counts["train"] == 18
        assert len(dataset.fingerprint()) == 64
        assert len(dataset.split("train")) == 18


def test_the_contact_sheet_shows_boxes_and_outlines(tree, tmp_path):
    tree.write_csv()
    tree.write_masks()
    path = write_contact_sheet(create_dataset("folder", root=tree.root), "test", tmp_path / "sheet.png", count=12)
    sheet = np.asarray(Image.open(path).convert("RGB")).astype(int)
    for colour in ((0, 255, 0), (0, 255, 255)):
        assert (np.abs(sheet - colour).max(2) < 70).sum() > 150
