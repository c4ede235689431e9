"""What every registered data set promises. A new one is tested by being registered."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from folder_trees import write_folder
from native_trees import write_aircraft, write_cars, write_cub, write_dogs, write_ilsvrc
from reference_trees import write_tree

from wsolbench import create_dataset, list_datasets
from wsolbench.data.check import check_dataset
from wsolbench.data.dataset import Dataset
from wsolbench.data.loading import eval_batches, train_batches
from wsolbench.registry import DATASETS

SMALL = {"train": 24, "val": 12, "test": 12}  # where images are generated, these many


def from_archive(name: str, root: Path) -> None:
    """The archive made of a tree in the reference layout; CUBV2 comes with metadata only."""
    tree = write_tree(root.parent / "reference", name)
    if name == "ILSVRC":
        write_ilsvrc(tree, root)
        return
    write_cub(tree, root)
    shutil.copytree(tree.metadata / "val", root / "metadata" / name / "val")
    shutil.copytree(tree.images, root / "dataset" / name)


# What is read from disk: how a miniature of each layout is written, and options that fit its size.
LAYOUTS: dict[str, tuple[Callable[[Path], object], dict[str, object]]] = {
    "cub": (lambda root: write_tree(root, "CUB"), {}),
    "cub/archive": (lambda root: from_archive("CUB", root), {}),
    "ilsvrc": (lambda root: write_tree(root, "ILSVRC"), {}),
    "ilsvrc/archive": (lambda root: from_archive("ILSVRC", root), {}),
    "openimages": (lambda root: write_tree(root, "OpenImages"), {}),
    "stanford_dogs": (lambda root: write_dogs(root, 24), {"holdout": 4}),
    "stanford_cars": (lambda root: write_cars(root, True, 24), {"holdout": 4}),
    "stanford_cars/devkit": (lambda root: write_cars(root, False, 24), {"holdout": 4}),
    "fgvc_aircraft": (lambda root: write_aircraft(root, 24), {"holdout": 4}),
}


def build(name: str, folder: Path) -> Dataset:
    """The data set with small splits where it lets one choose their size; what is read from disk lies in `folder`."""
    if name in LAYOUTS:
        write, options = LAYOUTS[name]
        if not (folder / "tree").is_dir():
            write(folder / "tree")
        return create_dataset(name.partition("/")[0], root=folder / "tree", **options)
    dials = {field.name for field in fields(DATASETS.get(name).Config)}
    if name == "folder":
        if not (folder / "tree").is_dir():
            write_folder(folder / "tree").write_csv()
        return create_dataset(name, root=folder / "tree")
    return create_dataset(name, **{key: count for key, count in SMALL.items() if key in dials})


@pytest.fixture(scope="module", params=sorted({*list_datasets(), *LAYOUTS}))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp(name.replace("/", "-"))


@pytest.fixture(scope="module")
def dataset(name: str, folder: Path, tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WSOLBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield build(name, folder)


def some(split, count=6):
    return np.linspace(0, len(split) - 1, count).astype(int).tolist()


def test_ids_are_unique_and_labels_in_range(dataset):
    for name in dataset.splits:
        split = dataset.split(name)
        assert len(split) == len(split.ids) == len(split.labels) == dataset.info.counts[name] > 0
        assert len(set(split.ids)) == len(split)
        assert split.labels.dtype == np.int64
        assert split.labels.min() >= 0
        assert split.labels.max() < dataset.info.num_classes


def test_samples_are_finite_images(dataset):
    for name in dataset.splits:
        split = dataset.split(name)
        for index in some(split):
            for augment in (None, torch.Generator().manual_seed(index)):
                sample = split.sample(index, augment)
                assert sample.id == split.ids[index]
                assert sample.label == split.labels[index]
                assert sample.image_CHW.dtype == torch.float32
                assert sample.image_CHW.shape == (3, *dataset.info.resolution_HW)
                assert torch.isfinite(sample.image_CHW).all()
                assert sample.image_CHW.std() > 0


def test_pictures_are_images_in_the_frame_of_the_annotation(dataset):
    split = dataset.split("val")
    for index in some(split, 3):
        image_HW3 = split.picture(index)
        assert image_HW3.dtype == np.uint8
        assert image_HW3.shape[2] == 3
        assert np.ptp(image_HW3) > 0
        annotation = split.annotation(split.ids[index])
        if annotation.boxes_N4 is not None:
            assert image_HW3.shape[:2] == tuple(annotation.size_HW)


def test_samples_repeat_bit_for_bit(dataset):
    for name in dataset.splits:
        first, second = dataset.split(name), dataset.split(name)
        for index in some(first):
            assert torch.equal(first[index].image_CHW, second[index].image_CHW)


def test_augmentation_depends_on_the_generator_alone(dataset):
    split = dataset.split("train")
    changed = 0
    for index in some(split):
        images = []
        for global_seed in (1, 2):
            torch.manual_seed(global_seed)
            np.random.seed(global_seed)
            images.append(split.sample(index, torch.Generator().manual_seed(5)).image_CHW)
        assert torch.equal(*images)
        changed += not torch.equal(images[0], split.sample(index, torch.Generator().manual_seed(6)).image_CHW)
    assert changed, "augmentation ignores its generator"


def test_augmentation_leaves_the_global_generators_alone(dataset):
    split = dataset.split("train")
    torch.manual_seed(3)
    np.random.seed(3)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(3)
    np.random.seed(3)
    split.sample(0, torch.Generator().manual_seed(5))
    assert (torch.rand(1), np.random.rand()) == expected


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_workers(dataset, workers):
    if multiprocessing.get_start_method() not in ("fork", "forkserver", "spawn"):
        pytest.skip("no worker processes on this platform")
    split = dataset.split("train")
    indices = range(min(len(split), 20))
    for batches in (
        lambda count: train_batches(split, indices, batch_size=8, seed=0, epoch=1, workers=count),
        lambda count: eval_batches(split, batch_size=8, workers=count, skip=max(0, (len(split) - 20) // 8 * 8)),
    ):
        alone, shared = list(batches(0)), list(batches(workers))
        assert len(alone) == len(shared) > 0
        for one, other in zip(alone, shared, strict=True):
            assert one.ids == other.ids
            assert torch.equal(one.images_BCHW, other.images_BCHW)
            assert torch.equal(one.labels_B, other.labels_B)


def test_annotations_lie_inside_the_image_and_agree(dataset):
    for name in dataset.splits:
        split = dataset.split(name)
        for index in some(split, 12):
            annotation = split.annotation(split.ids[index])
            height, width = annotation.size_HW
            assert annotation.id == split.ids[index]
            inside = np.zeros((height, width), dtype=bool)
            if annotation.boxes_N4 is not None:
                boxes = annotation.boxes_N4
                assert boxes.dtype == np.int64
                assert boxes.shape == (len(boxes), 4)
                assert len(boxes) > 0
                assert (boxes >= 0).all()
                assert (boxes[:, 2] <= width - 1).all()
                assert (boxes[:, 3] <= height - 1).all()
                assert (boxes[:, 0] <= boxes[:, 2]).all()
                assert (boxes[:, 1] <= boxes[:, 3]).all()
                for x0, y0, x1, y1 in boxes:
                    inside[y0 : y1 + 1, x0 : x1 + 1] = True
            if annotation.mask_HW is not None:
                assert annotation.mask_HW.dtype == np.uint8
                assert annotation.mask_HW.shape == (height, width)
                assert set(np.unique(annotation.mask_HW)) <= {0, 1, 255}
                if annotation.boxes_N4 is not None:
                    mask = annotation.mask_HW == 1
                    assert (mask & inside).sum() >= 0.9 * mask.sum() > 0
            assert (annotation.boxes_N4 is not None) == dataset.info.has_boxes or name == "train"
            assert (annotation.mask_HW is not None) == dataset.info.has_masks or name == "train"


def test_an_unknown_split_or_image_is_named(dataset):
    from wsolbench.errors import WsolbenchError

    with pytest.raises(WsolbenchError, match="tset"):
        dataset.split("tset")
    with pytest.raises(WsolbenchError, match="no/such"):
        dataset.split("val").annotation("no/such")


def test_splits_share_no_image(dataset):
    ids: set[str] = set()
    images: set[bytes] = set()
    for name in dataset.splits:
        split = dataset.split(name)
        assert ids.isdisjoint(split.ids)
        ids.update(split.ids)
        new = {split[index].image_CHW.numpy().tobytes() for index in range(min(len(split), 24))}
        assert images.isdisjoint(new)
        images |= new


def test_fingerprint_is_stable_and_sees_the_options(dataset, folder, name):
    assert build(name, folder).fingerprint() == dataset.fingerprint()
    dials = {field.name for field in fields(type(dataset).Config)}
    if "train" in dials:
        assert create_dataset(name, **{**SMALL, "train": 25}).fingerprint() != dataset.fingerprint()


def test_info_is_complete(dataset):
    info = dataset.info
    for text in (info.title, info.citation, info.licence, info.revision):
        assert text.strip()
    assert info.num_classes == len(set(info.class_names)) > 1
    assert set(info.counts) == set(dataset.splits)
    assert min(info.resolution_HW) > 0


def test_data_check_finds_nothing_but_the_size_of_the_miniature(name, folder, dataset):
    _, options = LAYOUTS.get(name, (None, {}))
    root = folder / "tree" if (folder / "tree").is_dir() else None
    report = check_dataset(name.partition("/")[0], root=root, options=options)
    assert [each for each in report.findings if each.severity == "problem" and each.kind != "count"] == []
    assert all(split.checked == split.images for split in report.splits.values())
