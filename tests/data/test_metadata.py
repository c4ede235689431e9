"""The reader of reference metadata folders: what is accepted, and the sentence for what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsolbench.data.ids import is_safe, safe_path
from wsolbench.data.metadata import MaskFiles, count_ids, read_metadata
from wsolbench.errors import WsolbenchError

IDS = "b/1.jpg\na/2.jpg\n"
GOOD = {
    "image_ids.txt": IDS,
    "class_labels.txt": "b/1.jpg,1\na/2.jpg,0\n",
    "image_sizes.txt": "b/1.jpg,50,40\na/2.jpg,60,30\n",
    "localization.txt": "b/1.jpg,0,1,49,39\nb/1.jpg,5,6,5,7\na/2.jpg,3,4,20,29\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "CUB" / "test"


def write(folder: Path, **changed: str | bytes | None) -> Path:
    """A sound folder but for the files named, e.g. `sizes=...`; None removes one."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in GOOD.items():
        key = name.partition(".")[0].rpartition("_")[2]
        content = changed.get(key, content)
        if content is not None:
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def refused(folder: Path) -> str:
    with pytest.raises(WsolbenchError) as caught:
        read_metadata(folder)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_a_split_in_evaluation_order(folder):
    metadata = read_metadata(write(folder))
    assert metadata.ids == ["b/1.jpg", "a/2.jpg"]
    assert metadata.labels.tolist() == [1, 0]
    assert metadata.sizes_HW.tolist() == [[40, 50], [30, 60]]
    assert metadata.boxes(0).tolist() == [[0, 1, 49, 39], [5, 6, 5, 7]]
    assert metadata.boxes(1).tolist() == [[3, 4, 20, 29]]
    assert (len(metadata), metadata.masks, metadata.clipped) == (2, None, 0)
    assert count_ids(folder) == 2


@pytest.mark.parametrize(
    "changed",
    [
        {name.partition(".")[0].rpartition("_")[2]: text.replace("\n", "\r\n") for name, text in GOOD.items()},
        {name.partition(".")[0].rpartition("_")[2]: text.rstrip("\n") for name, text in GOOD.items()},
        {
            name.partition(".")[0].rpartition("_")[2]: f"\n{text.replace(chr(10), chr(10) * 2)}"
            for name, text in GOOD.items()
        },
        {"ids": b"\xef\xbb\xbf" + IDS.encode()},
        {"labels": "a/2.jpg,0\nb/1.jpg,1\n", "sizes": "a/2.jpg,60,30\nb/1.jpg,50,40\n"},
        {"localization": "b/1.jpg,0,1,49,39\na/2.jpg,3,4,20,29\nb/1.jpg,5,6,5,7\n"},
    ],
    ids=["CRLF", "no last line end", "blank lines", "byte order mark", "another order", "boxes not contiguous"],
)
def test_harmless_differences_change_nothing(folder, tmp_path, changed):
    plain, other = read_metadata(write(folder)), read_metadata(write(tmp_path / "other", **changed))
    assert other.ids == plain.ids
    for column in ("labels", "sizes_HW", "boxes_M4", "first_box"):
        assert getattr(other, column).tolist() == getattr(plain, column).tolist()


@pytest.mark.parametrize("nothing", [None, "", "\n"])
def test_sizes_and_localization_may_be_absent_or_empty(folder, nothing):
    metadata = read_metadata(write(folder, sizes=nothing, localization=nothing))
    assert (metadata.sizes_HW, metadata.boxes_M4, metadata.boxes(0), metadata.masks) == (None, None, None, None)


def test_boxes_that_reach_the_edge_are_clipped_and_counted(folder):
    write(folder, localization="b/1.jpg,0,1,50,40\nb/1.jpg,0,1,49,40\na/2.jpg,3,4,20,29\n")
    with pytest.warns(UserWarning, match=r"localization\.txt': 2 boxes end at x1 = width"):
        metadata = read_metadata(folder)
    assert metadata.boxes(0).tolist() == [[0, 1, 49, 39], [0, 1, 49, 39]]
    assert metadata.clipped == 2


def test_without_sizes_boxes_are_taken_as_they_are(folder):
    assert read_metadata(write(folder, sizes="")).boxes(0).tolist() == [[0, 1, 49, 39], [5, 6, 5, 7]]


def test_masks_of_an_image_with_the_ignore_file_on_any_line(folder):
    lines = [
        "b/1.jpg,b/1_m1.png,b/1_ignore.png",
        "a/2.jpg,a/2_m1.png,",
        "b/1.jpg,b/1_m2.png,",
        "a/2.jpg,a/2_m2.png,a/2_i.png",
    ]
    metadata = read_metadata(write(folder, sizes="", localization="\n".join(lines)))
    assert metadata.boxes_M4 is None
    assert metadata.masks == [
        MaskFiles(("b/1_m1.png", "b/1_m2.png"), "b/1_ignore.png"),
        MaskFiles(("a/2_m1.png", "a/2_m2.png"), "a/2_i.png"),
    ]


def test_the_proxy_list_is_a_part_of_the_ids(folder):
    write(folder)
    (folder / "image_ids_proxy.txt").write_text("a/2.jpg\n")
    metadata = read_metadata(folder, proxy=True)
    assert (metadata.ids, metadata.labels.tolist(), metadata.sizes_HW.tolist()) == (["a/2.jpg"], [0], [[30, 60]])
    assert metadata.boxes(0).tolist() == [[3, 4, 20, 29]]
    (folder / "image_ids_proxy.txt").write_text("c/3.jpg\n")
    with pytest.raises(WsolbenchError, match=r"image_ids_proxy\.txt' lists 'c/3\.jpg', expected ids of"):
        read_metadata(folder, proxy=True)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ids": ""}, "image_ids.txt' lists no image"),
        ({"ids": None}, "image_ids.txt' cannot be read (No such file or directory)"),
        ({"labels": None}, "class_labels.txt' cannot be read (No such file or directory)"),
        ({"ids": b"\xff\xfe"}, "image_ids.txt' is not a text file: byte 0 is not UTF-8"),
        ({"ids": IDS + "b/1.jpg"}, "image_ids.txt' line 3: 'b/1.jpg', expected each id once, but line 1"),
        ({"ids": "b/1.jpg\n../2.jpg"}, "image_ids.txt' line 2: '../2.jpg', expected a relative path"),
        ({"ids": "b/1.jpg\n/a/2.jpg"}, "line 2: '/a/2.jpg', expected a relative path"),
        ({"ids": "b/1.jpg\na\\\\2.jpg"}, r"line 2: 'a\\\\2.jpg', expected a relative path with forward slashes"),
        ({"ids": "b/1.jpg\na\0.jpg"}, r"line 2: 'a\x00.jpg', expected a relative path"),
        ({"labels": "b/1.jpg,1\na/2.jpg,x"}, "class_labels.txt' line 2: 'a/2.jpg,x', expected <id>,<class>"),
        ({"labels": "b/1.jpg,1\na/2.jpg,-1"}, "line 2: 'a/2.jpg,-1', expected <id>,<class>, a whole number from 0"),
        ({"labels": "b/1.jpg,1\na/2.jpg,1.0"}, "line 2: 'a/2.jpg,1.0', expected <id>,<class>"),
        ({"labels": f"b/1.jpg,1\na/2.jpg,{'9' * 30}"}, "line 2: 'a/2.jpg,999"),
        ({"labels": "b/1.jpg,1\nc/3.jpg,0"}, "line 2: 'c/3.jpg,0', expected an id of 'image_ids.txt', which has none"),
        ({"labels": "b/1.jpg,1"}, "class_labels.txt' has no line for 1 of the 2 images of 'image_ids.txt', first 'a/2.jpg'"),
        ({"labels": "b/1.jpg,1\n\na/2.jpg,0\nb/1.jpg,1"}, "class_labels.txt' line 4: 'b/1.jpg,1', expected one line per image"),
        ({"sizes": "b/1.jpg,50,40\na/2.jpg,60"}, "image_sizes.txt' line 2: 'a/2.jpg,60', expected <id>,<width>,<height>"),
        ({"sizes": "b/1.jpg,0,40\na/2.jpg,60,30"}, "image_sizes.txt' line 1: 'b/1.jpg,0,40', expected <id>,<width>,<height>"),
        ({"sizes": "b/1.jpg,50,40"}, "image_sizes.txt' has no line for 1 of the 2 images"),
        ({"localization": "b/1.jpg,1,2,3,4"}, "localization.txt' has no line for 1 of the 2 images of 'image_ids.txt', first 'a/2.jpg'"),
        ({"localization": "b/1.jpg,1"}, "line 1: 'b/1.jpg,1', expected <id>,<x0>,<y0>,<x1>,<y1> or <id>,<mask file>,<ignore file>"),
        ({"localization": "b/1.jpg,1,2,3,4\na/2.jpg,1,2,3.0,4"}, "line 2: 'a/2.jpg,1,2,3.0,4', expected <id>,<x0>"),
        ({"localization": "b/1.jpg,1,2,3,4\na/2.jpg,a_m.png,"}, "line 2: 'a/2.jpg,a_m.png,', expected <id>,<x0>"),
        ({"localization": "a/2.jpg,1,2,3,4\nb/1.jpg,30,2,20,4"}, "line 2: 'b/1.jpg,30,2,20,4', expected a box with x0 <= x1"),
        ({"localization": "a/2.jpg,1,2,3,4\nb/1.jpg,3,9,20,4"}, "line 2: 'b/1.jpg,3,9,20,4', expected a box with y0 <= y1"),
        ({"localization": "a/2.jpg,-1,2,3,4\nb/1.jpg,3,9,20,9"}, "line 1: 'a/2.jpg,-1,2,3,4', expected a box whose coordinates"),
        ({"localization": "a/2.jpg,1,2,3,4\nb/1.jpg,3,9,51,9"}, "line 2: 'b/1.jpg,3,9,51,9', expected a box inside its image, which is 50 wide and 40 high"),
        ({"localization": "a/2.jpg,1,2,3,4\nb/1.jpg,50,9,50,9"}, "line 2: 'b/1.jpg,50,9,50,9', expected a box inside"),
        ({"localization": "a/2.jpg,m.png,i.png\nb/1.jpg,../m.png,"}, "line 2: 'b/1.jpg,../m.png,', expected mask files as"),
        ({"localization": "a/2.jpg,m.png,i.png\na/2.jpg,n.png,j.png\nb/1.jpg,m.png,"}, "line 2: 'a/2.jpg,n.png,j.png', expected one ignore file per image, but an earlier line names 'i.png'"),
    ],
)  # fmt: skip
def test_what_cannot_be_right_is_named(folder, changed, said):
    sentence = refused(write(folder, **changed))
    assert said in sentence
    assert str(folder) in sentence


@pytest.mark.parametrize(
    "id", ["", "..", "../a", "a/..", "a/../b", "/a", "C:a", "c:\\a", "a\\b", "a\0b", "a\nb", "\x7f"]
)
def test_ids_that_could_leave_a_folder(id):
    assert not is_safe(id)
    with pytest.raises(WsolbenchError, match="could name a file outside 'maps'; expected a relative path"):
        safe_path("maps", id)


@pytest.mark.parametrize("id", ["a", "a/b..jpg", "..a/b", "ab:c/d", "é/ü.jpg", "n 1,2/(3).JPEG", "a/./b", "~/a"])
def test_ids_that_stay_in_their_folder(id, tmp_path):
    assert safe_path(tmp_path, id).resolve().is_relative_to(tmp_path.resolve())


def test_links_of_the_user_are_followed(tmp_path):
    (tmp_path / "disk" / "a").mkdir(parents=True)
    (tmp_path / "disk" / "a" / "1.npy").touch()
    (tmp_path / "maps").symlink_to(tmp_path / "disk")
    assert safe_path(tmp_path / "maps", "a/1.npy").is_file()


def test_records_in_another_order_mean_the_same(tmp_path):
    """Lists in the order of the ids are read at one look, others line by line."""
    ids = [f"a/{number}.jpg" for number in range(40)]
    files = {
        "image_ids.txt": ids,
        "class_labels.txt": [f"{id},{number % 7}" for number, id in enumerate(ids)],
        "image_sizes.txt": [f"{id},{number + 5},{number + 9}" for number, id in enumerate(ids)],
    }
    read = []
    for order in (1, -1):
        for name, lines in files.items():
            (tmp_path / name).write_text("\n".join(lines if name == "image_ids.txt" else lines[::order]) + "\n")
        read.append(read_metadata(tmp_path))
    assert read[0].labels.tolist() == read[1].labels.tolist() == [number % 7 for number in range(40)]
    assert read[0].sizes_HW.tolist() == read[1].sizes_HW.tolist() == [[n + 9, n + 5] for n in range(40)]


@pytest.mark.parametrize(
    "line", ["a/1.jpg,1,2", "a/1.jpg,x", "a/1.jpg,", "a/1.jpg1", "a/1.jpg,1\x0b", "a/1.jpg,-1", "a/1.jpg,١"]
)
def test_one_wrong_line_among_records_in_order_is_named(tmp_path, line):
    ids = [f"a/{number}.jpg" for number in range(3)]
    (tmp_path / "image_ids.txt").write_text("\n".join(ids))
    (tmp_path / "class_labels.txt").write_text(f"{ids[0]},0\n{line}\n{ids[2]},2", encoding="utf-8")
    with pytest.raises(WsolbenchError, match=r"class_labels\.txt' line 2: "):
        read_metadata(tmp_path)
