"""cub, ilsvrc and openimages, read from miniature trees in the reference evaluator's layout."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from reference_trees import BIRDS, MACHINES, WNIDS, Tree, write_tree

from wsolbench import create_dataset
from wsolbench.boxes.truth import resize_mask
from wsolbench.errors import UsageError, WsolbenchError

ROOT = Path(__file__).resolve().parents[2]
NAMES = {"cub": "CUB", "ilsvrc": "ILSVRC", "openimages": "OpenImages"}


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def tree(name: str, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return write_tree(tmp_path_factory.mktemp(name), NAMES[name], per_class=6)


def test_splits_are_those_of_the_metadata(name, tree):
    dataset = create_dataset(name, root=tree.root)
    for split_name in ("train", "val", "test"):
        split = dataset.split(split_name)
        assert split.ids == tree.ids[split_name]
        assert split.labels.tolist() == [tree.labels[id] for id in split.ids]
        assert dataset.info.counts[split_name] == len(split)


def test_classes_are_named_after_the_folders(name, tree):
    info = create_dataset(name, root=tree.root).info
    assert info.class_names == {"cub": BIRDS, "ilsvrc": WNIDS, "openimages": MACHINES}[name]
    assert (info.has_boxes, info.has_masks) == (name != "openimages", name == "openimages")
    assert info.resolution_HW == (224, 224)


def test_classes_are_numbers_where_no_id_tells_a_name(tmp_path):
    tree = write_tree(tmp_path, "ILSVRC", images=False)
    shutil.rmtree(tree.metadata / "train")
    dataset = create_dataset("ilsvrc", root=tmp_path)
    assert dataset.info.class_names == ("0", "1", "2")
    assert dataset.info.counts["train"] == 0
    with pytest.raises(WsolbenchError, match=r"file '.*train/image_ids\.txt' cannot be read"):
        dataset.split("train")


def test_boxes_are_those_of_the_file(tree):
    for split_name in ("val", "test"):
        split = create_dataset(tree.name.lower(), root=tree.root).split(split_name)
        for id in split.ids if tree.boxes else ():
            annotation = split.annotation(id)
            assert annotation.boxes_N4.tolist() == tree.boxes[id]
            assert annotation.size_HW == tree.sizes[id][::-1]
            assert annotation.mask_HW is None


def union_at_224(tree: Tree, id: str) -> np.ndarray:
    """The order of the reference: read as grayscale, resize, cut, join."""

    def read(path: Path) -> np.ndarray:
        mask = np.float32(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
        return cv2.resize(mask, (224, 224), interpolation=cv2.INTER_NEAREST) > 0.5

    foreground = np.zeros((224, 224), bool)
    for path in tree.masks[id]:
        foreground |= read(path)
    ignored = read(tree.ignore[id]) & ~foreground
    return np.where(foreground, 1, np.where(ignored, 255, 0))


def test_masks_are_joined_as_the_reference_joins_them(tmp_path):
    tree = write_tree(tmp_path, "OpenImages", per_class=8)
    split = create_dataset("openimages", root=tmp_path).split("test")
    sizes = set()
    for id in split.ids:
        annotation = split.annotation(id)
        assert annotation.boxes_N4 is None
        assert annotation.mask_HW.shape == annotation.size_HW
        np.testing.assert_array_equal(resize_mask(annotation.mask_HW, (224, 224)), union_at_224(tree, id))
        sizes.add(annotation.size_HW == (224, 224))
    assert sizes == {True, False}  # files of one size are joined in it, others in the evaluation frame


def test_images_are_resized_and_normalised_as_by_the_reference(tree):
    """torchvision's transforms, which the reference uses, on Pillow's RGB: any pixel format on disk."""
    from torchvision import transforms

    normalise = [transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    reference = transforms.Compose([transforms.Resize((224, 224)), *normalise])
    larger = transforms.Compose([transforms.Resize((256, 256)), *normalise])
    split = create_dataset(tree.name.lower(), root=tree.root).split("train")
    for index, id in enumerate(split.ids[:6]):
        with Image.open(tree.images / id) as file:
            image = file.convert("RGB")
        np.testing.assert_allclose(split[index].image_CHW, reference(image), rtol=0, atol=1e-6)
    with Image.open(tree.images / split.ids[1]) as file:
        whole = larger(file.convert("RGB"))
    crops = [split.sample(1, torch.Generator().manual_seed(seed)).image_CHW for seed in range(4)]
    found = [
        (flip, x, y)
        for crop in crops
        for flip in (False, True)
        for x, y in places(whole, crop.flip(-1) if flip else crop)
    ]
    assert len(found) == len(set(found)) == 4  # each crop lies at one place, as it is or mirrored
    assert {flip for flip, _, _ in found} == {False, True}


def places(whole: torch.Tensor, crop: torch.Tensor) -> list[tuple[int, int]]:
    """Where a crop of 224 lies in an image of 256."""
    return [
        (x, y)
        for y in range(33)
        for x in range(33)
        if (whole[:, y, x] - crop[:, 0, 0]).abs().max() < 1e-5
        and torch.allclose(whole[:, y : y + 224, x : x + 224], crop, atol=1e-5)
    ]


def test_rotation_tags_are_not_applied(tmp_path):
    tree = write_tree(tmp_path, "CUB")
    id = tree.ids["test"][0]
    with Image.open(tree.images / id) as file:
        image = file.convert("RGB")
    tags = Image.Exif()
    tags[0x0112] = 6  # to be shown turned by 90 degrees
    image.save(tree.images / id, format="PNG", exif=tags)
    sample = create_dataset("cub", root=tmp_path).split("test")[0]
    image.save(tree.images / id, format="PNG")
    assert sample.image_CHW.equal(create_dataset("cub", root=tmp_path).split("test")[0].image_CHW)


def test_the_root_may_be_any_of_the_folders_above_the_splits(tmp_path):
    tree = write_tree(tmp_path / "a", "CUB")
    for root in (tree.root, tree.root / "metadata", tree.metadata):
        dataset = create_dataset("cub", root=root)
        assert dataset.split("test")[0].id == tree.ids["test"][0]
        assert dataset.fingerprint() == create_dataset("cub", root=tree.root).fingerprint()
    shutil.copytree(tree.images, tmp_path / "b" / "CUB")
    shutil.copytree(tree.root / "metadata", tmp_path / "b" / "metadata")
    assert create_dataset("cub", root=tmp_path / "b").split("test")[0].id == tree.ids["test"][0]


def test_without_images_boxes_can_be_read_and_the_sample_says_what_is_missing(tmp_path):
    tree = write_tree(tmp_path, "CUB", images=False)
    split = create_dataset("cub", root=tmp_path).split("test")
    assert split.annotation(tree.ids["test"][0]).boxes_N4.tolist() == tree.boxes[tree.ids["test"][0]]
    with pytest.raises(
        WsolbenchError, match=r"no folder of images below --root; expected dataset/CUB or CUB_200_2011/images"
    ):
        split[0]


def test_the_fingerprint_sees_boxes_and_not_line_ends(tmp_path):
    tree = write_tree(tmp_path, "CUB", images=False)
    before = create_dataset("cub", root=tmp_path).fingerprint()
    path = tree.metadata / "test" / "localization.txt"
    lines = path.read_text().splitlines()
    path.write_bytes("\r\n".join(lines).encode() + b"\r\n")
    assert create_dataset("cub", root=tmp_path).fingerprint() == before
    path.write_text("\n".join([f"{lines[0].rpartition(',')[0]},0", *lines[1:]]))
    assert create_dataset("cub", root=tmp_path).fingerprint() != before
    assert create_dataset("cub", root=tmp_path, proxy=True).fingerprint() != before


def test_the_proxy_list_trains_on_fewer_images(tree, name):
    dataset = create_dataset(name, root=tree.root, proxy=True)
    assert dataset.split("train").ids == tree.ids["train"][:3]
    assert dataset.split("test").ids == tree.ids["test"]
    assert dataset.info.counts["train"] == 3


def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"data set 'cub' needs --root PATH, the folder that holds metadata/CUB/"):
        create_dataset("cub")
    with pytest.raises(UsageError, match=r"no metadata of data set 'cub' below --root '.*'; expected metadata/CUB/"):
        create_dataset("cub", root=tmp_path)
    tree = write_tree(tmp_path, "CUB")
    split = create_dataset("cub", root=tmp_path).split("test")
    first, second, third, *_ = (tree.images / id for id in tree.ids["test"])
    first.unlink()
    with pytest.raises(WsolbenchError, match=r"image '.*jpg' cannot be read: No such file"):
        split[0]
    second.write_bytes(b"not an image")
    with pytest.raises(WsolbenchError, match=r"image '.*jpg' cannot be read: no known image format"):
        split[1]
    Image.new("RGB", (300, 200)).save(third, format="PNG")
    with pytest.raises(WsolbenchError, match=r"is 300x200 \(width x height\), but '.*image_sizes.txt' says"):
        split[2]
    whole = (tree.images / tree.ids["test"][3]).read_bytes()
    (tree.images / tree.ids["test"][3]).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WsolbenchError, match=r"image '.*jpg' cannot be decoded"):
        split[3]


def test_a_missing_or_broken_mask_is_named(tmp_path):
    tree = write_tree(tmp_path, "OpenImages")
    split = create_dataset("openimages", root=tmp_path).split("test")
    first, second, *_ = tree.ids["test"]
    tree.ignore[first].unlink()
    with pytest.raises(WsolbenchError, match=r"mask '.*_ignore\.png' does not exist; '.*localization\.txt' names it"):
        split.annotation(first)
    tree.masks[second][0].write_bytes(b"no picture")
    with pytest.raises(WsolbenchError, match=r"mask '.*\.png' cannot be decoded"):
        split.annotation(second)


def test_a_class_beyond_those_of_the_other_splits_is_named(tmp_path):
    tree = write_tree(tmp_path, "CUB", images=False)
    path = tree.metadata / "train" / "class_labels.txt"
    path.write_text(path.read_text().replace(",2", ",7"))
    with pytest.raises(WsolbenchError, match=r"train/class_labels\.txt' holds class 7, but the other splits have 3"):
        create_dataset("cub", root=tmp_path).split("train")


def test_reading_data_does_not_import_what_takes_seconds(tmp_path):
    write_tree(tmp_path, "CUB")
    code = (
        "import sys; from wsolbench import create_dataset\n"
        f"create_dataset('cub', root={str(tmp_path)!r}).split('test')[0]\n"
        "assert not {'torchmetrics', 'torchvision'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
