"""The real data sets read from their archives' own layouts, in miniature: the same samples as from the reference metadata."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from native_trees import (
    BREEDS,
    CARS,
    VARIANTS,
    Archive,
    write_aircraft,
    write_cars,
    write_cub,
    write_dogs,
    write_ilsvrc,
    write_lines,
    write_segmentations,
)
from PIL import Image
from reference_trees import BIRDS, WNIDS, Tree, write_tree

from wsolbench import create_dataset
from wsolbench.data.dataset import Dataset
from wsolbench.data.split import Split
from wsolbench.errors import UsageError, WsolbenchError


def assert_same(native: Split, metadata: Split) -> None:
    """The same ids, labels, pixels and annotations, whatever the order."""
    assert sorted(native.ids) == sorted(metadata.ids)
    places = {id: index for index, id in enumerate(metadata.ids)}
    for index, id in enumerate(native.ids):
        other = places[id]
        assert native.labels[index] == metadata.labels[other]
        assert torch.equal(native[index].image_CHW, metadata[other].image_CHW)
        first, second = native.annotation(id), metadata.annotation(id)
        assert first.size_HW == second.size_HW
        if second.boxes_N4 is not None:
            np.testing.assert_array_equal(first.boxes_N4, second.boxes_N4)


def cut(boxes: list[list[int]], size: tuple[int, int]) -> list[list[int]]:
    return np.minimum(boxes, [size[0], size[1], size[0] - 1, size[1] - 1]).tolist()


# --- CUB -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return write_tree(tmp_path_factory.mktemp("birds"), "CUB", per_class=8)


def test_cub_is_the_same_from_its_archive_and_from_metadata(birds, tmp_path):
    write_cub(birds, tmp_path)
    native, metadata = create_dataset("cub", root=tmp_path), create_dataset("cub", root=birds.root)
    for split in ("train", "test"):
        assert native.split(split).ids == metadata.split(split).ids  # the order, too
        assert_same(native.split(split), metadata.split(split))
    assert native.info.class_names == metadata.info.class_names == BIRDS
    ends = [native.split("test").annotation(id).boxes_N4[0, 2] - birds.sizes[id][0] for id in birds.ids["test"]]
    assert -1 in ends  # some boxes do reach, or exceed, the edge


def test_cub_without_cubv2_says_what_is_missing_or_holds_images_out(birds, tmp_path):
    write_cub(birds, tmp_path)
    dataset = create_dataset("cub", root=tmp_path)
    assert dataset.info.counts == {"train": 24, "val": 0, "test": 24}
    with pytest.raises(WsolbenchError, match=r"val of cub is CUBV2, .*put .*metadata/CUB/val .*dataset\.val=holdout"):
        dataset.split("val")
    dataset = create_dataset("cub", root=tmp_path, val="holdout", holdout=2)
    assert dataset.info.counts == {"train": 18, "val": 6, "test": 24}
    assert "hold-out of 2 images per class" in dataset.info.val_source
    assert sorted(dataset.split("train").ids + dataset.split("val").ids) == sorted(birds.ids["train"])


@pytest.mark.parametrize("images", ["beside", "separate", "reference"])
def test_cubv2_may_lie_beside_the_archive(birds, tmp_path, images):
    folder = write_cub(birds, tmp_path)
    shutil.copytree(birds.metadata / "val", tmp_path / "metadata" / "CUB" / "val")
    into = {"beside": folder / "images", "separate": tmp_path / "CUBV2", "reference": tmp_path / "dataset" / "CUB"}[
        images
    ]
    for id in birds.ids["val"]:
        (into / id).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(birds.images / id, into / id)
    mixed, metadata = create_dataset("cub", root=tmp_path), create_dataset("cub", root=birds.root)
    for split in ("train", "val", "test"):
        assert mixed.split(split).ids == metadata.split(split).ids
        assert_same(mixed.split(split), metadata.split(split))
    assert mixed.info.counts == metadata.info.counts


def test_the_option_layout_says_whose_lists_are_read(birds, tmp_path):
    write_cub(birds, tmp_path)
    shutil.copytree(birds.root / "metadata", tmp_path / "metadata")
    (tmp_path / "metadata" / "CUB" / "test" / "localization.txt").write_text("x")
    with pytest.raises(WsolbenchError, match=r"metadata/CUB/test/localization\.txt' line 1"):
        create_dataset("cub", root=tmp_path).split("test")  # metadata wins
    native = create_dataset("cub", root=tmp_path, layout="native")
    assert native.split("test").ids == birds.ids["test"]
    assert native.info.counts["val"] == 0
    with pytest.raises(UsageError, match=r"no archive of data set 'cub' below --root .*CUB_200_2011/images\.txt"):
        create_dataset("cub", root=birds.root, layout="native")
    with pytest.raises(UsageError, match=r"no metadata of data set 'cub' below --root"):
        create_dataset("cub", root=tmp_path / "CUB_200_2011", layout="metadata")
    with pytest.raises(UsageError, match=r"dataset\.proxy=true: image_ids_proxy\.txt comes with metadata/CUB only"):
        create_dataset("cub", root=tmp_path, layout="native", proxy=True).split("train")


def test_classes_of_metadata_and_archive_must_be_the_same(birds, tmp_path):
    folder = write_cub(birds, tmp_path)
    shutil.copytree(birds.metadata / "val", tmp_path / "metadata" / "CUB" / "val")
    labels = tmp_path / "metadata" / "CUB" / "val" / "class_labels.txt"
    labels.write_text(labels.read_text().replace(",1", ",9").replace(",2", ",1").replace(",9", ",2"))
    with pytest.raises(
        WsolbenchError, match=r"gives class 1 to images of '003\.Sooty_Albatross', but in the lists of CUB_200"
    ):
        _ = create_dataset("cub", root=tmp_path).info
    assert folder.is_dir()


def test_segmentations_become_masks_of_what_most_annotators_marked(birds, tmp_path):
    write_segmentations(birds, write_cub(birds, tmp_path).parent)
    dataset = create_dataset("cub", root=tmp_path, masks=True, val="holdout", holdout=1)
    assert (dataset.info.has_boxes, dataset.info.has_masks) == (True, True)
    annotation = dataset.split("test").annotation(birds.ids["test"][0])
    width, height = birds.sizes[annotation.id]
    assert annotation.mask_HW.shape == (height, width)
    assert annotation.mask_HW[0, 0] == 0
    assert annotation.mask_HW[0, width // 2] == annotation.mask_HW[0, -1] == 1
    assert annotation.boxes_N4.tolist() == birds.boxes[annotation.id]
    with pytest.raises(UsageError, match="CUBV2 has no segmentations"):
        create_dataset("cub", root=birds.root, masks=True).split("test")
    with pytest.raises(UsageError, match="no folder segmentations/"):
        create_dataset("cub", root=birds.root, masks=True, val="holdout", holdout=1).split("test")


# --- ILSVRC ----------------------------------------------------------------------------------------------------------

FORMS: dict[str, dict[str, Any]] = {
    "kaggle": {},
    "kaggle without xml": {"boxes": "solution"},
    "sorted": {"labels": "folders", "sorted_val": True, "base": "", "v2": "val2", "mapping": False},
    "sorted kaggle": {"sorted_val": True, "boxes": "solution", "base": "ILSVRC"},
    "devkit": {"labels": "devkit", "base": "dataset/ILSVRC", "mapping": False},
    "xml alone": {"labels": "xml", "base": "ILSVRC"},
}


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return write_tree(tmp_path_factory.mktemp("imagenet"), "ILSVRC", per_class=5)


@pytest.mark.parametrize("form", FORMS)
def test_ilsvrc_is_the_same_from_its_archives_and_from_metadata(imagenet, tmp_path, form):
    write_ilsvrc(imagenet, tmp_path, **FORMS[form])
    native, metadata = create_dataset("ilsvrc", root=tmp_path), create_dataset("ilsvrc", root=imagenet.root)
    for split in ("train", "val", "test"):
        assert_same(native.split(split), metadata.split(split))
    assert native.split("test").ids == metadata.split("test").ids
    assert native.info.class_names == metadata.info.class_names == WNIDS
    assert native.info.counts == metadata.info.counts
    assert native.info.has_boxes
    assert native.split("train").annotation(native.split("train").ids[0]).boxes_N4 is None


@pytest.mark.parametrize("sorted_val", [False, True])
def test_metadata_finds_images_where_the_archives_put_them(imagenet, tmp_path, sorted_val):
    write_ilsvrc(imagenet, tmp_path, sorted_val=sorted_val)
    shutil.copytree(imagenet.root / "metadata", tmp_path / "metadata")
    mixed, metadata = create_dataset("ilsvrc", root=tmp_path), create_dataset("ilsvrc", root=imagenet.root)
    for split in ("train", "val", "test"):
        assert mixed.split(split).ids == metadata.split(split).ids
        assert_same(mixed.split(split), metadata.split(split))
    assert mixed.fingerprint() == metadata.fingerprint()


def test_imagenetv2_is_labelled_by_the_name_of_its_folders(tmp_path):
    """Twelve classes: as text, "10" stands before "2", which is the reference's order and no label."""
    wnids = [f"n{number:08d}" for number in range(1, 13)]
    for label, wnid in enumerate(wnids):
        for path in (tmp_path / "train" / wnid / f"{wnid}_1.JPEG", tmp_path / "val2" / str(label) / "0.jpeg"):
            path.parent.mkdir(parents=True)
            Image.new("RGB", (20, 10)).save(path)
    write_lines(tmp_path / "ImageNetV2_boxes.txt", [f"{label}/0.jpeg,1,2,20,10" for label in range(12)])
    split = create_dataset("ilsvrc", root=tmp_path, layout="native").read_split("val")
    assert split.labels.tolist() == [0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9]
    assert split.ids[2] == "val2/10/0.jpeg"


def test_what_is_no_image_or_class_beside_imagenets_is_left_alone(imagenet, tmp_path):
    root = write_ilsvrc(imagenet, tmp_path)
    train = root / "ILSVRC" / "Data" / "CLS-LOC" / "train"
    for stray in (
        train / "n99999999",
        train / "n01440764.tar",
        train / WNIDS[0] / "Thumbs.db",
        train.parent / "val" / "x.JPEG",
    ):
        stray.write_bytes(b"")
    dataset = create_dataset("ilsvrc", root=tmp_path)
    for split in ("train", "test"):
        assert sorted(dataset.split(split).ids) == sorted(imagenet.ids[split])


def test_a_resized_copy_of_imagenet_is_not_taken_for_what_was_annotated(imagenet, tmp_path):
    write_ilsvrc(imagenet, tmp_path)
    id = imagenet.ids["test"][0]
    Image.new("RGB", (256, 256)).save(tmp_path / "ILSVRC" / "Data" / "CLS-LOC" / id)
    with pytest.raises(WsolbenchError, match=r"is 256x256 \(width x height\), but '.*00000001\.xml' says"):
        create_dataset("ilsvrc", root=tmp_path).split("test").annotation(id)


def test_boxes_of_ilsvrc_can_be_read_from_xml_without_the_image(imagenet, tmp_path):
    write_ilsvrc(imagenet, tmp_path)
    id = imagenet.ids["test"][1]
    (tmp_path / "ILSVRC" / "Data" / "CLS-LOC" / id).unlink()
    annotation = create_dataset("ilsvrc", root=tmp_path).split("test").annotation(id)
    assert annotation.boxes_N4.tolist() == imagenet.boxes[id]
    assert annotation.size_HW == imagenet.sizes[id][::-1]


def test_what_is_missing_of_ilsvrc_is_named(imagenet, tmp_path):
    write_ilsvrc(imagenet, tmp_path)
    (tmp_path / "release" / "ImageNetV2_boxes.txt").unlink()
    dataset = create_dataset("ilsvrc", root=tmp_path)
    with pytest.raises(
        WsolbenchError, match=r"val of ilsvrc is ImageNetV2 .*its boxes are missing .*metadata/ILSVRC/val"
    ):
        dataset.split("val")
    shutil.rmtree(tmp_path / "ILSVRC" / "Annotations")
    (tmp_path / "LOC_val_solution.csv").unlink()
    with pytest.raises(WsolbenchError, match=r"no labels of ILSVRC2012 val below .*LOC_val_solution\.csv"):
        create_dataset("ilsvrc", root=tmp_path).split("test")


# --- Dogs, Cars, Aircraft --------------------------------------------------------------------------------------------


def write(name: str, root: Path, form: str) -> Archive:
    if name == "stanford_dogs":
        return write_dogs(root)
    return write_aircraft(root) if name == "fgvc_aircraft" else write_cars(root, form == "merged")


@pytest.fixture(
    scope="module", params=["stanford_dogs", "stanford_cars/merged", "stanford_cars/devkit", "fgvc_aircraft"]
)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Archive]:
    name, _, form = request.param.partition("/")
    root = tmp_path_factory.mktemp(name)
    archive = write(name, root, form)
    return create_dataset(name, root=root, holdout=1), archive


def test_archives_are_read_as_they_were_written(opened):
    dataset, archive = opened
    names = {"stanford_dogs": BREEDS, "stanford_cars": CARS, "fgvc_aircraft": VARIANTS}[dataset.registered_name]
    assert dataset.info.class_names == names
    assert dataset.split("test").ids == archive.ids["test"]
    train, val = dataset.split("train").ids, dataset.split("val").ids
    assert train == [id for id in archive.ids["train"] if id not in val]  # the archive's order
    assert len(val) == 3
    assert set(val) < set(archive.ids["train"])
    for name in ("train", "val", "test"):
        split = dataset.split(name)
        for index, id in enumerate(split.ids):
            assert split.labels[index] == archive.labels[id]
            annotation = split.annotation(id)
            assert annotation.size_HW == archive.sizes[id][::-1]
            assert annotation.boxes_N4.tolist() == cut(archive.boxes[id], archive.sizes[id])
        assert split[0].image_CHW.shape == (3, 224, 224)


def test_the_hold_out_is_a_matter_of_ids_and_seed_alone(tmp_path):
    write_dogs(tmp_path)
    drawn = {seed: create_dataset("stanford_dogs", root=tmp_path, holdout=2, holdout_seed=seed) for seed in range(4)}
    first = drawn[0].split("val").ids
    assert first == sorted(first)
    assert np.bincount(drawn[0].split("val").labels).tolist() == [2, 2, 2]
    assert len({tuple(each.split("val").ids) for each in drawn.values()}) > 1
    assert len({each.fingerprint() for each in drawn.values()}) == 4
    one = create_dataset("stanford_dogs", root=tmp_path, holdout=1).split("val").ids
    assert set(one) < set(first)  # draws are nested
    assert create_dataset("stanford_dogs", root=tmp_path, holdout=0.25).split("val").ids == one


def test_the_hold_out_does_not_depend_on_the_order_of_lines(tmp_path):
    write_aircraft(tmp_path)
    before = create_dataset("fgvc_aircraft", root=tmp_path, holdout=1).split("val").ids
    for part in ("train", "val"):
        path = tmp_path / "fgvc-aircraft-2013b" / "data" / f"images_variant_{part}.txt"
        path.write_text("\n".join(reversed(path.read_text().splitlines())))
    assert create_dataset("fgvc_aircraft", root=tmp_path, holdout=1).split("val").ids == before


@pytest.mark.parametrize("amount", [0, -1, 1.5, float("nan")])
def test_an_amount_that_makes_no_sense_is_refused(tmp_path, amount):
    write_dogs(tmp_path)
    with pytest.raises(UsageError, match=r"dataset\.holdout=.*expected a whole number of images per class, or a share"):
        create_dataset("stanford_dogs", root=tmp_path, holdout=amount)


def test_a_class_keeps_images_to_train_on(tmp_path):
    write_dogs(tmp_path)
    with pytest.raises(
        UsageError, match=r"dataset\.holdout=4 takes 4 images of every class out of train, but class 0 has only 4"
    ):
        create_dataset("stanford_dogs", root=tmp_path, holdout=4).split("train")


def test_aircraft_boxes_may_count_from_zero(tmp_path):
    archive = write_aircraft(tmp_path, first=0)
    split = create_dataset("fgvc_aircraft", root=tmp_path, holdout=1).split("test")
    for id in split.ids:
        assert split.annotation(id).boxes_N4.tolist() == cut(archive.boxes[id], archive.sizes[id])


def test_raw_open_images_is_told_apart(tmp_path):
    (tmp_path / "class-descriptions-boxable.csv").write_text("/m/011k07,Tortoise")
    with pytest.raises(
        UsageError, match=r"expected metadata/OpenImages/.*'class-descriptions-boxable\.csv' is of Open Images"
    ):
        create_dataset("openimages", root=tmp_path)


@pytest.mark.parametrize("name", ["cub", "ilsvrc", "openimages", "stanford_dogs", "stanford_cars", "fgvc_aircraft"])
def test_what_a_complete_copy_holds_is_known(name, tmp_path):
    """Against the counts of shared facts: the splits of the papers, before and after the hold-out of five per class."""
    tree_of = {"cub": "CUB", "ilsvrc": "ILSVRC", "openimages": "OpenImages"}
    if name in tree_of:
        write_tree(tmp_path, tree_of[name], images=False)
        dataset = create_dataset(name, root=tmp_path)
    else:
        write(name, tmp_path, "merged")
        dataset = create_dataset(name, root=tmp_path, holdout=1)
    info = dataset.info
    assert (
        sum(info.expected_counts.values())
        == {
            "cub": 12_788,
            "ilsvrc": 1_341_167,
            "openimages": 37_319,
            "stanford_dogs": 20_580,
            "stanford_cars": 16_185,
            "fgvc_aircraft": 10_000,
        }[name]
    )
    assert set(info.expected_counts) == {"train", "val", "test"}
    assert info.url.startswith("http")
    assert info.val_source
    assert "224" in info.preprocessing
