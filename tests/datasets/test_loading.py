"""Batches of listed images: the same numbers with any workers, from memory, disk or cache, in either geometry."""

from __future__ import annotations

import csv
import gzip
import multiprocessing
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from reference_trees import Tree, write_tree

from wsolbench import create_dataset
from wsolbench.boxes.truth import iou_matrix
from wsolbench.config.schema import EvaluateConfig, RunConfig
from wsolbench.data.loading import eval_batches, train_batches
from wsolbench.data.packed import PackedStrings
from wsolbench.data.split import Subset
from wsolbench.errors import BadImage, UsageError
from wsolbench.evaluation.frame import Frame
from wsolbench.options import deciding_text
from wsolbench.runs.engine import run
from wsolbench.runs.opening import Session, open_job
from wsolbench.system.hashing import stable_seed
from wsolbench.types import Annotation
from wsolbench_datasets.listed import cache as _cache
from wsolbench_datasets.listed.pixels import MEAN, STD


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return write_tree(tmp_path / "tree", "CUB", per_class=3)


def opened(tree: Tree, id: str, side: int) -> np.ndarray:
    with Image.open(tree.images / id) as file:
        return np.asarray(file.convert("RGB").resize((side, side), Image.Resampling.BILINEAR))


def usual(pixels_HW3: np.ndarray) -> torch.Tensor:
    return (torch.from_numpy(pixels_HW3.copy()).permute(2, 0, 1).float() / 255 - MEAN) / STD


def pixel_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.pixels"))


# --- geometry --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("geometry", "side", "margin"), [("resize", 224, 0), ("centre-crop", 256, 16)])
def test_evaluation_images_are_pils_in_either_geometry(tree, geometry, side, margin):
    dataset = create_dataset("cub", root=tree.root, geometry=geometry)
    assert dataset.info.geometry == geometry
    (batch,) = eval_batches(dataset.split("test"), batch_size=99)
    assert batch.ids == tree.ids["test"]
    assert batch.labels_B.tolist() == [tree.labels[id] for id in batch.ids]
    for id, image_CHW in zip(batch.ids, batch.images_BCHW, strict=True):
        assert image_CHW.equal(usual(opened(tree, id, side)[margin : margin + 224, margin : margin + 224]))


@pytest.mark.parametrize("geometry", ["resize", "centre-crop"])
def test_training_images_are_pils_crops_drawn_from_seed_epoch_and_id(tree, geometry):
    split = create_dataset("cub", root=tree.root, geometry=geometry).split("train")
    for batch in train_batches(split, range(9), batch_size=4, seed=3, epoch=2):
        for id, image_CHW in zip(batch.ids, batch.images_BCHW, strict=True):
            draw = torch.Generator().manual_seed(stable_seed("augment", 3, 2, id))
            y, x = torch.randint(0, 33, (2,), generator=draw).tolist()
            wanted = usual(opened(tree, id, 256)[y : y + 224, x : x + 224])
            assert image_CHW.equal(wanted.flip(-1) if torch.rand((), generator=draw) < 0.5 else wanted)


def test_another_geometry_is_refused(tree):
    with pytest.raises(
        UsageError, match=r"unknown geometry 'center-crop' of data set 'cub', did you mean 'centre-crop'"
    ):
        create_dataset("cub", root=tree.root, geometry="center-crop")


def test_boxes_are_cropped_as_sat_crops_them():
    """The formula as the reference describes it, by hand: v / size * 256 - 16, clipped to the crop, truncated."""
    frame = Frame((224, 224), False, content="centre-crop")
    boxes = np.array([[60, 27, 385, 331], [0, 0, 499, 334], [100, 100, 101, 101]])
    found = frame.boxes(Annotation("a", (335, 500), boxes))
    for box, (x0, y0, x1, y1) in zip(found.tolist(), boxes.tolist(), strict=True):
        assert box == [
            int(max(x0 / 500 * 256 - 16, 0)),
            int(max(y0 / 335 * 256 - 16, 0)),
            int(min(x1 / 500 * 256 - 16, 223)),
            int(min(y1 / 335 * 256 - 16, 223)),
        ]
    outside = frame.boxes(Annotation("a", (100, 100), np.array([[0, 20, 4, 30], [96, 97, 99, 99]])))
    assert outside.tolist() == [[0, 35, 0, 60], [223, 223, 223, 223]]
    small = replace(frame, resolution_HW=(56, 56))  # margins of 4
    assert small.boxes(Annotation("a", (64, 64), np.array([[4, 10, 59, 63]]))).tolist() == [[0, 6, 55, 55]]


def test_boxes_and_masks_of_the_whole_image_are_as_before():
    annotation = Annotation("a", (112, 100), np.array([[61, 61, 99, 111]]), np.eye(112, 100, dtype=np.uint8))
    frame = Frame((224, 224), True)
    assert frame.boxes(annotation).tolist() == [[136, 122, 221, 222]]
    assert frame.mask(annotation).shape == (224, 224)


def test_masks_are_cropped_with_the_image():
    mask = np.random.default_rng(0).integers(0, 2, (256, 256), dtype=np.uint8)
    frame = Frame((224, 224), True, content="centre-crop")
    assert np.array_equal(frame.mask(Annotation("a", (256, 256), mask_HW=mask)), mask[16:240, 16:240])


# --- workers, memory -------------------------------------------------------------------------------------------------


def all_batches(split, *, workers: int) -> list[torch.Tensor]:
    plain = eval_batches(split, batch_size=4, workers=workers)
    augmented = train_batches(split, range(len(split)), batch_size=4, seed=1, epoch=1, workers=workers)
    return [batch.images_BCHW.clone() for batches in (plain, augmented) for batch in batches]


@pytest.mark.parametrize("geometry", ["resize", "centre-crop"])
def test_workers_and_cache_change_nothing(tree, tmp_path, geometry):
    def batches(workers: int, cache: Path | None) -> list[torch.Tensor]:
        options = {"geometry": geometry} | ({} if cache is None else {"cache": str(cache)})
        split = create_dataset("cub", root=tree.root, **options).split("train")
        return all_batches(Subset(split, range(1, 9)), workers=workers)

    wanted = batches(0, None)
    assert len(wanted) == 4
    for workers, cache in (
        (2, None),
        (2, tmp_path / "a"),
        (0, tmp_path / "a"),
        (0, tmp_path / "b"),
        (2, tmp_path / "b"),
    ):
        assert all(map(torch.equal, batches(workers, cache), wanted))


def test_a_workers_complaint_is_the_sentence_it_was(tree):
    (tree.images / tree.ids["test"][2]).unlink()
    split = create_dataset("cub", root=tree.root).split("test")
    for workers in (0, 1):
        with pytest.raises(BadImage, match=r"^image '.*jpg' cannot be read: No such file or directory$"):
            list(eval_batches(split, batch_size=4, workers=workers))


def test_what_workers_hold_does_not_grow_with_boxes_and_can_be_sent(tree):
    split = create_dataset("cub", root=tree.root).split("test")
    sent = pickle.dumps(split.for_loading())
    assert b"boxes" not in sent
    wanted = split.for_loading().batch([3, 1])
    found = pickle.loads(sent).batch([3, 1])
    assert found.ids == wanted.ids == [split.ids[3], split.ids[1]]
    assert found.images_BCHW.equal(wanted.images_BCHW)


def test_packed_strings_hold_any_string():
    strings = ["a/b c.jpg", "", "Vögel/鳥.jpg", "\udcff odd"]
    packed = PackedStrings(strings)
    assert [packed[index] for index in range(len(packed))] == strings
    assert len(PackedStrings([])) == 0


# --- cache -----------------------------------------------------------------------------------------------------------


def cached(tree: Tree, folder: Path, split: str = "test"):
    return create_dataset("cub", root=tree.root, cache=str(folder)).split(split)


def test_a_cached_image_is_not_decoded_again(tree, tmp_path, monkeypatch):
    wanted = [cached(tree, tmp_path / "c")[index].image_CHW for index in range(9)]
    (path,) = pixel_files(tmp_path / "c")
    assert path.name.startswith("cub-test-224-")
    monkeypatch.setattr("wsolbench_datasets.listed.images.decode", None)
    split = cached(tree, tmp_path / "c")
    assert all(split[index].image_CHW.equal(wanted[index]) for index in range(9))


@pytest.mark.parametrize("damage", ["flip", "cut", "zeros", "empty"])
def test_a_damaged_cache_is_made_anew(tree, tmp_path, damage):
    wanted = [cached(tree, tmp_path / "c")[index].image_CHW for index in range(9)]
    (path,) = pixel_files(tmp_path / "c")
    whole = path.read_bytes()
    broken = bytearray(whole)
    for at in range(5000, len(broken), 40_000):
        broken[at] ^= 1
    if damage == "zeros":
        broken = bytearray(len(whole))
    path.write_bytes({"cut": whole[: len(whole) // 2 + 77], "empty": b""}.get(damage, bytes(broken)))
    split = cached(tree, tmp_path / "c")
    assert all(split[index].image_CHW.equal(wanted[index]) for index in range(9))
    assert path.read_bytes() == whole


def test_another_pillow_has_a_cache_of_its_own(tree, tmp_path, monkeypatch):
    cached(tree, tmp_path / "c")[0]
    monkeypatch.setattr(_cache.PIL, "__version__", "12.9")
    cached(tree, tmp_path / "c")[0]
    assert len(pixel_files(tmp_path / "c")) == 2


def test_a_replaced_image_is_read_anew(tree, tmp_path):
    before = cached(tree, tmp_path / "c")[0].image_CHW
    path = tree.images / tree.ids["test"][0]
    Image.new("RGB", tree.sizes[tree.ids["test"][0]], (200, 10, 10)).save(path, "PNG")
    after = cached(tree, tmp_path / "c")[0].image_CHW
    assert not after.equal(before)
    assert after.equal(create_dataset("cub", root=tree.root).split("test")[0].image_CHW)


def test_a_bad_image_is_never_kept(tree, tmp_path):
    path = tree.images / tree.ids["test"][0]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    for _ in range(2):
        with pytest.raises(BadImage, match="cannot be decoded"):
            cached(tree, tmp_path / "c")[0]
    assert all(not file.read_bytes() for file in pixel_files(tmp_path / "c"))
    path.write_bytes(whole)
    assert cached(tree, tmp_path / "c")[0].image_CHW.equal(
        create_dataset("cub", root=tree.root).split("test")[0].image_CHW
    )
    path.unlink()  # what was kept is not shown for a file that is gone
    with pytest.raises(BadImage, match="cannot be read: No such file"):
        cached(tree, tmp_path / "c")[0]


def test_a_full_disk_costs_time_and_not_the_run(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(_cache, "LEAST_FREE", 1.1)
    split = cached(tree, tmp_path / "c")
    with pytest.warns(UserWarning, match=r"no more pixels are kept in '.*': less than 110% of the disk is free"):
        images = [split[index].image_CHW for index in range(3)]
    plain = create_dataset("cub", root=tree.root).split("test")
    assert all(image.equal(plain[index].image_CHW) for index, image in enumerate(images))
    assert not pixel_files(tmp_path / "c")[0].read_bytes()


def test_processes_may_fill_one_cache_at_the_same_time(tree, tmp_path):
    def read_all() -> None:
        split = cached(tree, tmp_path / "c")
        for index in [*range(9)] * 3:
            split[index]

    read_all()
    pixel_files(tmp_path / "c")[0].unlink()
    running = [multiprocessing.get_context("fork").Process(target=read_all) for _ in range(3)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0, 0, 0]
    plain = create_dataset("cub", root=tree.root).split("test")
    split = cached(tree, tmp_path / "c")
    assert all(split[index].image_CHW.equal(plain[index].image_CHW) for index in range(9))
    assert len(pixel_files(tmp_path / "c")) == 1


def test_a_cache_that_cannot_be_made_is_said_in_one_sentence(tree, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"dataset\.cache='.*file/c' cannot be made: Not a directory"):
        cached(tree, tmp_path / "file" / "c")[0]


# --- identity --------------------------------------------------------------------------------------------------------


def test_the_fingerprint_knows_geometry_and_not_the_cache(tree, tmp_path):
    plain = create_dataset("cub", root=tree.root)
    told = deciding_text(plain.config)
    assert "geometry" not in told  # as before there was the option: fingerprints stay
    assert "cache" not in told
    assert create_dataset("cub", root=tree.root, cache=str(tmp_path / "c")).fingerprint() == plain.fingerprint()
    assert create_dataset("cub", root=tree.root, geometry="centre-crop").fingerprint() != plain.fingerprint()


def test_a_run_is_the_same_with_a_cache_and_another_in_another_geometry(tree, tmp_path):
    """Scored end to end: every cell of a centre crop is that of images cut beforehand."""

    def config(**options: object) -> RunConfig:
        return RunConfig(
            method={"name": "center-box"},
            dataset={"name": "cub", **options},
            evaluate=EvaluateConfig(batch_size=4),
            device="cpu",
            root=str(tree.root),
            out=str(tmp_path / "out"),
        )

    plain, kept, cropped = (
        open_job(config(**options), Session())
        for options in ({}, {"cache": str(tmp_path / "c"), "geometry": "resize"}, {"geometry": "centre-crop"})
    )
    assert "geometry" not in plain.identity["config"]["dataset"]
    assert kept.directory.path == plain.directory.path != cropped.directory.path
    outcome = run(config(geometry="centre-crop"))
    assert outcome.status == "done"
    with gzip.open(outcome.directory / "images.csv.gz", "rt") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    for row in rows:
        width, height = tree.sizes[row["id"]]
        (x0, y0, x1, y1) = tree.boxes[row["id"]][0]
        truth = [
            int(min(max(value / size * 256 - 16, 0), 223))
            for value, size in ((x0, width), (y0, height), (x1, width), (y1, height))
        ]
        box = [int(row[name]) for name in ("x0", "y0", "x1", "y1")]
        assert float(row["iou"]) == pytest.approx(iou_matrix(np.array([box]), np.array([truth]))[0, 0], abs=1e-6)
    assert len(rows) == len(tree.ids["test"])
