"""The contact sheet is a picture with the annotation in it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image
from reference_trees import write_tree

from wsolbench import create_dataset
from wsolbench.data.contact_sheet import shortened, write_contact_sheet
from wsolbench.errors import UsageError


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("WSOLBENCH_CACHE", str(tmp_path / "cache"))
    return create_dataset("badges", train=10, val=10, test=10)


def test_sheet_shows_boxes_parts_and_outlines(dataset, tmp_path):
    path = write_contact_sheet(dataset, "val", tmp_path / "new" / "sheet.png", count=9)
    sheet = cv2.imread(str(path))
    assert sheet.shape[1] > sheet.shape[0] > 300  # eight columns, two rows
    for colour in ((0, 255, 0), (0, 255, 255), (255, 255, 0)):  # box, badge, outline as blue green red
        near = (np.abs(sheet.astype(int) - colour).max(2) < 70).sum()
        assert near > 150, colour


def test_the_seed_chooses_the_images(dataset, tmp_path):
    sheets = [write_contact_sheet(dataset, "val", tmp_path / f"{n}.png", count=2, seed=n).read_bytes() for n in (0, 1)]
    again = write_contact_sheet(dataset, "val", tmp_path / "again.png", count=2, seed=0).read_bytes()
    assert sheets[0] == again != sheets[1]


def test_count_is_capped_and_checked(dataset, tmp_path):
    assert write_contact_sheet(dataset, "val", tmp_path / "all.png", count=1000).is_file()
    with pytest.raises(UsageError, match="at least one"):
        write_contact_sheet(dataset, "val", tmp_path / "none.png", count=0)
    with pytest.raises(UsageError, match="vall"):
        write_contact_sheet(dataset, "vall", tmp_path / "none.png")


def test_ignored_regions_are_hatched_and_images_that_cannot_be_read_are_said(tmp_path):
    tree = write_tree(tmp_path, "OpenImages", per_class=1)
    for id in tree.ids["val"]:  # plain pictures, so that what is drawn over them can be told
        Image.new("RGB", tree.sizes[id], (200, 0, 0)).save(tree.images / id, "PNG")
    dataset = create_dataset("openimages", root=tmp_path)
    sheet = cv2.imread(str(write_contact_sheet(dataset, "val", tmp_path / "a.png")))
    (tree.images / tree.ids["val"][0]).write_bytes(b"")
    damaged = cv2.imread(str(write_contact_sheet(dataset, "val", tmp_path / "b.png")))

    def pixels_like(picture, colour):
        return int((np.abs(picture.astype(int) - colour).max(2) < 40).sum())

    dark = (0, 0, 110)  # blue green red of a picture under 45 % black
    plain = (0, 0, 200)
    assert pixels_like(sheet, dark) > 500
    assert pixels_like(damaged, plain) < pixels_like(sheet, plain)
    assert damaged.shape == sheet.shape


def test_long_names_stay_over_their_picture():
    assert len(shortened("x" * 100, 28)) <= 29
    assert shortened("short", 28) == "short"
    assert shortened("001.Black_footed_Albatross", 20).startswith("001.Black")


def test_a_centre_crop_is_shown_whole_so_that_boxes_lie_where_they_belong(tmp_path):
    write_tree(tmp_path, "CUB", per_class=1)
    sheets = []
    for geometry in ("resize", "centre-crop"):
        dataset = create_dataset("cub", root=tmp_path, geometry=geometry)
        sheets.append(cv2.imread(str(write_contact_sheet(dataset, "val", tmp_path / f"{geometry}.png"))))
    np.testing.assert_array_equal(*sheets)
