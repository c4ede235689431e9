"""The contact sheet is a picture with the annotation in it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from wsolbench import create_dataset
from wsolbench.contact_sheet import write_contact_sheet
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
