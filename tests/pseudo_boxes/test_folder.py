"""The reader of pseudo-boxes: what it gives, the sentence for what is wrong, and the report of their quality."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from reference_trees import write_tree

from wsolbench import create_dataset
from wsolbench.data.split import Subset
from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.pseudo_boxes.folder import read_pseudo_boxes, write_pseudo_boxes
from wsolbench.pseudo_boxes.quality import measure_quality, write_quality


@pytest.fixture
def split(tmp_path):
    """Six images of a miniature CUB; its lists lie in the folder that the fixture's files are made from."""
    write_tree(tmp_path / "root", "CUB", per_class=2, images=False)
    return create_dataset("cub", root=tmp_path / "root").split("val")


def released(tmp_path: Path, split, *, generator: str = "clip_maps", boxes: list[str] | None = None) -> Path:
    """A folder as the paper released it: the split's own lists, one box a line, no line end at the end."""
    folder = tmp_path / f"metadata_generated_by_{generator}" / "CUB" / "val"
    folder.mkdir(parents=True)
    sizes = [split.annotation(id).size_HW for id in split.ids]
    files = {
        "image_ids.txt": split.ids,
        "class_labels.txt": [f"{id},{label}" for id, label in zip(split.ids, split.labels, strict=True)],
        "image_sizes.txt": [f"{id},{width},{height}" for id, (height, width) in zip(split.ids, sizes, strict=True)],
        "localization.txt": boxes or [f"{id},1,2,{20 + n},{30 + n}" for n, id in enumerate(split.ids)],
        "localization_iou.txt": ["IoU Performance: 68.8"],
    }
    for name, lines in files.items():
        (folder / name).write_text("\n".join(lines))
    return folder


def refused(folder: Path, split) -> str:
    with pytest.raises(WsolbenchError) as caught:
        read_pseudo_boxes(folder, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Sealed:
    """A split whose ground truth must not be asked for."""

    def __init__(self, split) -> None:
        self.ids, self.labels = split.ids, split.labels

    def annotation(self, id: str):
        raise AssertionError(f"the ground truth of {id} was read")


@pytest.mark.parametrize(
    ("generator", "source", "external"),
    [
        ("selective_search_bboxs", "selective-search", None),
        ("clip_maps", "clip", "CLIP, pretrained with images and captions"),
        ("rpn_bboxs", "rpn", "a pretrained region proposal network"),
    ],
)
def test_released_files_are_read_and_ground_truth_is_not(tmp_path, split, generator, source, external):
    pseudo = read_pseudo_boxes(released(tmp_path, split, generator=generator), Sealed(split))
    assert (pseudo.source, pseudo.external) == (source, external)
    assert (len(pseudo), list(pseudo.boxes)) == (6, split.ids)
    assert pseudo.boxes[split.ids[3]].tolist() == [1, 2, 23, 33]
    assert pseudo.boxes[split.ids[3]].dtype == np.int64
    annotation = pseudo.annotation(split.ids[5])
    assert annotation.boxes_N4.tolist() == [[1, 2, 25, 35]]
    assert annotation.size_HW == split.annotation(split.ids[5]).size_HW
    assert annotation.mask_HW is None


def test_what_identifies_the_files(tmp_path, split):
    folder = released(tmp_path, split)
    sha256 = read_pseudo_boxes(folder, split).sha256
    path = folder / "localization.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert read_pseudo_boxes(folder, split).sha256 == sha256
    path.write_bytes(path.read_bytes().replace(b",1,2,", b",1,3,", 1))
    assert read_pseudo_boxes(folder, split).sha256 != sha256


def test_a_subset_finds_its_images_among_more(tmp_path, split):
    folder = released(tmp_path, split)
    pseudo = read_pseudo_boxes(folder, Subset(split, [4, 1]))
    assert {id: box.tolist() for id, box in pseudo.boxes.items()} == {
        split.ids[4]: [1, 2, 24, 34],
        split.ids[1]: [1, 2, 21, 31],
    }
    with pytest.raises(UsageError, match=split.ids[0]):
        pseudo.annotation(split.ids[0])
    fewer = Sealed(Subset(split, [0, 1]))  # not a subset but another split: the files belong to something else
    assert f"images which the split does not have, first {split.ids[2]!r}" in refused(folder, fewer)


def test_boxes_that_touch_the_edge_are_clipped_and_counted(tmp_path, split):
    boxes = [f"{id},0,0,9,9" for id in split.ids]
    height, width = split.annotation(split.ids[0]).size_HW
    boxes[0] = f"{split.ids[0]},3,4,{width},{height}"
    folder = released(tmp_path, split, boxes=boxes)
    with pytest.warns(UserWarning, match=r"localization.txt': 1 boxes end at x1 = width or y1 = height"):
        pseudo = read_pseudo_boxes(folder, split)
    assert pseudo.clipped == 1
    assert pseudo.boxes[split.ids[0]].tolist() == [3, 4, width - 1, height - 1]


def test_what_is_refused(tmp_path, split):
    first, last = split.ids[0], split.ids[-1]
    good = [f"{id},0,0,9,9" for id in split.ids]

    def with_boxes(name: str, lines: list[str]) -> str:
        return refused(released(tmp_path / name, split, boxes=lines), split)

    assert f"no line for 1 of the 6 images of 'image_ids.txt', first '{last}'" in with_boxes("missing", good[:-1])
    assert f"holds 2 boxes of '{first}', expected exactly one" in with_boxes("two", [*good, good[0]])
    assert "expected a box inside its image" in with_boxes("outside", [*good[:-1], f"{last},0,0,200,9"])
    assert "x0 <= x1" in with_boxes("reversed", [*good[:-1], f"{last},5,0,4,9"])
    assert "holds no boxes" in with_boxes("masks", [f"{id},mask.png," for id in split.ids])

    folder = released(tmp_path / "unsized", split)
    (folder / "image_sizes.txt").unlink()
    assert "holds no sizes" in refused(folder, split)

    folder = released(tmp_path / "labels", split)
    lines = (folder / "class_labels.txt").read_text().split("\n")
    (folder / "class_labels.txt").write_text("\n".join([*lines[:-1], f"{last},0"]))
    assert f"says class 0 of '{last}', but the data set says {split.labels[-1]}" in refused(folder, split)

    other = create_dataset("cub", root=tmp_path / "root").split("test")
    assert f"no pseudo-box for 6 of the 6 images of the split, first '{other.ids[0]}'" in refused(folder, other)
    assert "nowhere" in refused(tmp_path / "nowhere", split)


def test_the_source_is_what_the_files_say(tmp_path, split):
    folder = released(tmp_path, split)
    mine = folder.rename(tmp_path / "my boxes")
    assert read_pseudo_boxes(mine, split).source == "my-boxes"
    assert read_pseudo_boxes(mine, split).external == "unknown"
    (mine / "source.json").write_text(json.dumps({"source": "a:b"}))
    assert read_pseudo_boxes(mine, split).source == "a-b"
    for external, told in ((None, None), ("a detector", "a detector"), (["x"], "['x']")):
        (mine / "source.json").write_text(json.dumps({"source": "mine", "external": external}))
        assert read_pseudo_boxes(mine, split).external == told
    for wrong in ("{", "[]", "{}", '{"source": 3}', '{"source": ""}'):
        (mine / "source.json").write_text(wrong)
        assert "source.json" in refused(mine, split)


def test_written_files_are_read_back_and_end_without_a_line_end(tmp_path, split):
    sizes = [split.annotation(id).size_HW for id in split.ids]
    boxes = [(0, 1, 10 + n, 12) for n in range(6)]
    write_pseudo_boxes(tmp_path / "out", split, sizes, boxes, {"source": "segments"})
    pseudo = read_pseudo_boxes(tmp_path / "out", split)
    assert pseudo.source == "segments"
    assert [tuple(pseudo.boxes[id].tolist()) for id in split.ids] == boxes
    for path in (tmp_path / "out").glob("*.txt"):
        assert path.read_text().count("\n") == 5


def test_quality_is_that_of_the_best_true_box(tmp_path):
    write_tree(tmp_path, "ILSVRC", per_class=3, images=False)
    split = create_dataset("ilsvrc", root=tmp_path).split("val")
    assert max(len(split.annotation(id).boxes_N4) for id in split.ids) == 3
    sizes = [split.annotation(id).size_HW for id in split.ids]
    last = [tuple(split.annotation(id).boxes_N4[-1].tolist()) for id in split.ids]
    write_pseudo_boxes(tmp_path / "exact", split, sizes, last, {"source": "x"})
    quality = measure_quality(read_pseudo_boxes(tmp_path / "exact", split), split)
    assert (quality.images, quality.mean_iou, quality.share_iou_50) == (9, 1.0, 1.0)
    x0, y0, x1, y1 = last[0]
    one = Subset(split, [0])
    quality = measure_quality(read_pseudo_boxes(tmp_path / "exact", one), one)
    assert quality.mean_area == (x1 - x0) * (y1 - y0) / (sizes[0][0] * sizes[0][1])


def test_quality_by_hand_and_its_files(tmp_path):
    split = create_dataset("badges", val=2).split("val")
    truth = [split.annotation(id).boxes_N4[0].tolist() for id in split.ids]
    x0, y0, x1, y1 = truth[0]
    half = (x0, y0, x0 + (x1 - x0 + 1) // 2 - 1, y1)  # half the columns of the first, nothing of the second
    beside = (0, 0, 0, 0)
    write_pseudo_boxes(tmp_path, split, [(64, 64)] * 2, [half, beside], {"source": "x"})
    quality = measure_quality(read_pseudo_boxes(tmp_path, split), split)
    columns = x1 - x0 + 1
    assert quality.mean_iou == pytest.approx((columns // 2) / columns / 2)
    assert quality.share_iou_50 == (0.5 if columns % 2 == 0 else 0.0)
    write_quality(tmp_path, quality)
    assert float((tmp_path / "localization_iou.txt").read_text()) == pytest.approx(quality.mean_iou, abs=1e-6)
    kept = json.loads((tmp_path / "quality.json").read_text())
    assert kept["mean_iou"] == quality.mean_iou
    assert "for this report only" in kept["note"]
