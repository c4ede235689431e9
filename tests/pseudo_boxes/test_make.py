"""Making pseudo-boxes: ground truth is not read, work is taken up where it stopped, and the command tells what it did."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_fakes import CLASSES, SIDE, FakeSplit, fake_config
from reference_trees import write_tree

import wsolbench.cli.pseudo_boxes as verb
from wsolbench import create_dataset, load_run
from wsolbench.cli.main import main
from wsolbench.data.split import Subset
from wsolbench.errors import UsageError
from wsolbench.method.base import create_method
from wsolbench.pseudo_boxes.folder import read_pseudo_boxes
from wsolbench.pseudo_boxes.make import PARTIAL, make_pseudo_boxes
from wsolbench.pseudo_boxes.pointing import Pointing
from wsolbench.pseudo_boxes.proposals import SegmentProposals, tidy
from wsolbench.pseudo_boxes.quality import measure_quality
from wsolbench.record import read_record, to_json
from wsolbench.runs.engine import run
from wsolbench.types import Prediction

CPU = torch.device("cpu")


class Grid:
    """Proposals without pixels: every box of a grid, for images whose content does not matter."""

    name, external = "grid", None

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, image_HW3, label):
        self.calls += 1
        height, width = image_HW3.shape[:2]
        corners = [0, 0.25, 0.5, 0.75, 1]
        boxes = [
            [a * width, b * height, c * width, d * height]
            for a in corners for b in corners for c in corners for d in corners if a < c and b < d
        ]  # fmt: skip
        return tidy(boxes, (height, width))


@pytest.fixture
def method():
    torch.manual_seed(0)
    return create_method("shared-a", num_classes=CLASSES).eval()


@pytest.fixture
def sealed(monkeypatch):
    """From here on, a look at ground truth fails."""

    def look(self, id):
        raise AssertionError(f"the ground truth of {id} was read")

    monkeypatch.setattr(FakeSplit, "annotation", look)
    return FakeSplit("val", 2)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# --- proposals -------------------------------------------------------------------------------------------------------


def test_segments_find_objects_of_badges():
    """Recall of the proposals, which bounds what any filter can choose from."""
    split = create_dataset("badges", val=5).split("val")
    source = SegmentProposals()
    best = []
    for index, id in enumerate(split.ids):
        boxes = source(split.picture(index), 0)
        (truth,) = split.annotation(id).boxes_N4
        low, high = np.maximum(boxes[:, :2], truth[:2]), np.minimum(boxes[:, 2:], truth[2:])
        joint = np.clip(high - low, 0, None).prod(1)
        best.append((joint / ((boxes[:, 2:] - boxes[:, :2]).prod(1) + (truth[2:] - truth[:2]).prod() - joint)).max())
    assert np.mean(best) > 0.75
    assert min(best) > 0.5


@pytest.mark.parametrize("size_HW", [(300, 40), (7, 500), (1, 1), (64, 64)])
def test_segments_of_odd_images_lie_inside(size_HW):
    image = np.random.default_rng(0).integers(0, 256, (*size_HW, 3), dtype=np.uint8)
    for content in (image, np.full_like(image, 77)):
        boxes = SegmentProposals()(content, 0)
        assert boxes.dtype == np.int64
        assert len(boxes) == len(np.unique(boxes, axis=0)) >= 1
        assert (boxes >= 0).all()
        assert (boxes[:, :2] <= boxes[:, 2:]).all()
        assert (boxes[:, 2:] < size_HW[::-1]).all()
        assert boxes.tolist() == SegmentProposals()(content, 0).tolist()
        assert [0, 0, size_HW[1] - 1, size_HW[0] - 1] in boxes.tolist()


# --- the filter ------------------------------------------------------------------------------------------------------


class Stub(torch.nn.Module):
    """Answers a map with one bright pixel, and gives class 1 the brightness of what it sees."""

    needs = frozenset()

    def __init__(self, peak, value=1.0):
        super().__init__()
        self.peak, self.value = peak, value

    def localize(self, images_BCHW, labels_B):
        maps_Bhw = torch.zeros(len(images_BCHW), *images_BCHW.shape[2:])
        maps_Bhw[:, self.peak[0], self.peak[1]] = self.value
        bright = images_BCHW.mean((1, 2, 3))
        return Prediction(torch.stack([torch.zeros_like(bright), bright], 1), maps_Bhw)


@pytest.fixture
def sample():
    """16 x 16, the right half bright; as if it were an image of 32 x 64 (height x width)."""
    split = FakeSplit("val", 1)
    image_CHW = torch.zeros(3, 16, 16)
    image_CHW[:, :, 8:] = 4
    return replace(split[1], image_CHW=image_CHW, label=1)


def choose(stub, sample, boxes, limit=100):
    random = np.random.RandomState(0)
    return Pointing(stub, CPU, limit).choose(sample, np.array(boxes, np.int64), (32, 64), random)


def test_only_boxes_with_the_peak_are_rated(sample):
    dark, both, bright = [0, 0, 20, 31], [0, 0, 63, 31], [40, 0, 60, 31]
    assert choose(Stub((4, 2)), sample, [dark, both, bright]).box == tuple(both)  # (9, 10) in the image's own pixels
    assert choose(Stub((4, 12)), sample, [dark, both, bright]).box == tuple(bright)
    chosen = choose(Stub((4, 2)), sample, [dark, both, bright])
    assert (chosen.rated, chosen.pointed) == (2, True)
    assert 0.5 < chosen.score < 1


def test_of_equal_scores_the_smaller_box_wins(sample):
    boxes = [[40, 2, 62, 30], [44, 4, 60, 20], [46, 4, 62, 20], [34, 0, 63, 31]]
    assert choose(Stub((4, 12)), sample, boxes).box == (44, 4, 60, 20)


@pytest.mark.parametrize("stub", [Stub((4, 2), value=0.0), Stub((15, 8))])
def test_a_map_that_points_at_nothing_drops_nothing(sample, stub):
    chosen = choose(stub, sample, [[0, 0, 20, 25], [40, 0, 60, 25]])
    assert (chosen.box, chosen.rated, chosen.pointed) == ((40, 0, 60, 25), 2, False)


def test_a_limit_draws_what_is_rated(sample):
    boxes = [[0, 0, 40 + n, 31] for n in range(20)]
    drawn = {
        Pointing(Stub((4, 2)), CPU, 3).choose(sample, np.array(boxes), (32, 64), np.random.RandomState(seed)).box
        for seed in range(6)
    }
    assert len(drawn) > 1
    assert choose(Stub((4, 2)), sample, boxes, limit=3).rated == 3


def test_a_method_without_classifier_cannot_point():
    method = create_method("center-box", num_classes=3)
    split = FakeSplit("val", 1)
    with pytest.raises(UsageError, match="CenterBox has no classifier"):
        Pointing(method, CPU, 5).choose(split[0], np.array([[0, 0, 9, 9]]), (SIDE, SIDE), np.random.RandomState(0))


def test_methods_with_gradients_point_too(sealed):
    torch.manual_seed(0)
    method = create_method("shared-b", num_classes=CLASSES).eval()
    chosen = Pointing(method, CPU, 50).choose(
        sealed[0], Grid()(sealed.picture(0), 0), (SIDE, SIDE), np.random.RandomState(0)
    )
    assert chosen.rated <= 50
    assert all(parameter.grad is None for parameter in method.parameters())


# --- the work --------------------------------------------------------------------------------------------------------


def test_ground_truth_is_not_read_and_repeats_agree(sealed, method, tmp_path):
    sealed = Subset(sealed, [5, 0])
    for name in ("a", "b"):
        made = make_pseudo_boxes(sealed, SegmentProposals(), Pointing(method, CPU, 20), tmp_path / name, about={"x": 1})
        assert made
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert not (tmp_path / "a" / PARTIAL).exists()
    pseudo = read_pseudo_boxes(tmp_path / "a", sealed)
    assert pseudo.source == "segments"
    assert set(pseudo.sizes_HW.values()) == {(SIDE, SIDE)}
    told = json.loads((tmp_path / "a" / "source.json").read_text())
    assert "wsolbench's own choice" in told["filter"]
    assert (told["seed"], told["rated_at_most"], told["x"], told["external"]) == (0, 20, 1, None)


def test_workers_change_nothing(sealed, method, tmp_path):
    for workers in (0, 1):
        folder = tmp_path / str(workers)
        make_pseudo_boxes(sealed, Grid(), Pointing(method, CPU, 9), folder, about={}, workers=workers)
    assert contents(tmp_path / "0") == contents(tmp_path / "1")


def test_the_seed_draws_and_is_part_of_the_request(sealed, method, tmp_path):
    def make(folder, seed):
        return make_pseudo_boxes(sealed, Grid(), Pointing(method, CPU, 2), tmp_path / folder, about={}, seed=seed)

    assert make("0", 0)
    assert make("1", 1)
    assert (tmp_path / "0" / "localization.txt").read_text() != (tmp_path / "1" / "localization.txt").read_text()
    assert not make("0", 0)  # done before
    with pytest.raises(UsageError, match=r"holds other pseudo-boxes .* another folder with -o"):
        make("0", 1)


def test_work_goes_on_where_it_stopped(sealed, method, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    make_pseudo_boxes(sealed, Grid(), Pointing(method, CPU, 9), whole, about={})

    class Interrupted(Grid):
        def __call__(self, image_HW3, label):
            boxes = super().__call__(image_HW3, label)
            if self.calls == 3:
                os.kill(os.getpid(), signal.SIGINT)
            return boxes

    with pytest.raises(KeyboardInterrupt):
        make_pseudo_boxes(sealed, Interrupted(), Pointing(method, CPU, 9), cut, about={})
    assert [path.name for path in cut.iterdir()] == [PARTIAL]
    lines = (cut / PARTIAL).read_text().splitlines()
    assert len(lines) == 1 + 3
    (cut / PARTIAL).write_text("\n".join([*lines[:3], lines[3][:20]]))  # as after a kill in the middle of a line
    rest = Grid()
    make_pseudo_boxes(sealed, rest, Pointing(method, CPU, 9), cut, about={})
    assert rest.calls == len(sealed) - 2
    assert contents(cut) == contents(whole)


def test_foreign_files_are_left_alone(sealed, method, tmp_path):
    (tmp_path / "image_ids.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other pseudo-boxes"):
        make_pseudo_boxes(sealed, Grid(), Pointing(method, CPU, 9), tmp_path, about={})
    assert (tmp_path / "image_ids.txt").read_text() == "mine"
    (tmp_path / "image_ids.txt").rename(tmp_path / PARTIAL)
    with pytest.raises(UsageError, match="unfinished work of another request"):
        make_pseudo_boxes(sealed, Grid(), Pointing(method, CPU, 9), tmp_path, about={})


def test_images_of_files_keep_their_own_pixels(tmp_path):
    tree = write_tree(tmp_path / "root", "CUB", per_class=1)
    split = create_dataset("cub", root=tmp_path / "root").split("val")
    assert [split.picture(index).shape[1::-1] for index in range(3)] == [tree.sizes[id] for id in split.ids]
    some = Subset(split, [2, 0])
    assert np.array_equal(some.picture(0), split.picture(2))
    torch.manual_seed(0)
    method = create_method("cam", num_classes=3, backbone="resnet10t").eval()
    make_pseudo_boxes(some, SegmentProposals(), Pointing(method, CPU, 4), tmp_path / "out", about={})
    pseudo = read_pseudo_boxes(tmp_path / "out", some)
    assert [pseudo.sizes_HW[id] for id in some.ids] == [tree.sizes[id][::-1] for id in some.ids]


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A finished run on the fake data."""
    return run(fake_config(tmp_path_factory.mktemp("runs"), method="shared-a")).directory


def command(classifier, out, *more):
    return main(["data", "pseudo-boxes", "fake-data", "--classifier", str(classifier), "-o", str(out), *more])


def test_the_command_makes_then_reports(classifier, tmp_path, capsys, monkeypatch):
    order = []
    for module, name in (
        ("wsolbench.pseudo_boxes.make", "make_pseudo_boxes"),
        ("wsolbench.pseudo_boxes.quality", "measure_quality"),
    ):
        monkeypatch.setattr(f"{module}.{name}", _noting(order, name, module))
    monkeypatch.setattr("wsolbench.pseudo_boxes.proposals.SegmentProposals", Grid)
    annotation = FakeSplit.annotation
    monkeypatch.setattr(FakeSplit, "annotation", lambda self, id: order.append("look") or annotation(self, id))
    assert command(classifier, tmp_path / "out", "--rated", "10") == 0
    assert order == ["make_pseudo_boxes", "measure_quality", *["look"] * 4 * CLASSES]
    printed = capsys.readouterr()
    assert "wsolbench's own choice (the paper's filter is not public)" in printed.err
    assert "12 pseudo-boxes" in printed.out
    assert "were read for this report only" in printed.out
    split = create_dataset("fake-data").split("val")
    quality = measure_quality(read_pseudo_boxes(tmp_path / "out", split), split)
    assert f"quality: {quality}" in printed.out
    assert json.loads((tmp_path / "out" / "quality.json").read_text())["mean_iou"] == quality.mean_iou
    told = json.loads((tmp_path / "out" / "source.json").read_text())
    assert told["classifier"]["method"] == "shared-a"
    assert told["classifier"]["hash"] == read_record(classifier / "record.json").hash
    assert str(tmp_path) not in (tmp_path / "out" / "source.json").read_text()

    assert command(classifier, tmp_path / "out", "--rated", "10") == 0
    assert "12 pseudo-boxes, done before" in capsys.readouterr().out


def _noting(order, name, module):
    function = getattr(__import__(module, fromlist=[name]), name)

    def noted(*arguments, **options):
        order.append(name)
        return function(*arguments, **options)

    return noted


def test_data_without_boxes_gets_no_report(classifier, tmp_path, capsys, monkeypatch):
    verb._report(tmp_path, None, False, "val")
    assert "no ground truth boxes" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--source", "segment"], "unknown source 'segment', did you mean 'segments'?"),
        (["--split", "vall"], "unknown split 'vall', did you mean 'val'?"),
        (["--weights", "x"], "--weights belongs to the sources rpn and clip"),
        (["--rated", "0"], "--rated 0: expected a whole number from 1"),
        (["--source", "clip"], "source 'clip' needs the package open_clip"),
        (["--source", "rpn", "--weights", "nowhere.pt"], "checkpoint 'nowhere.pt' does not exist"),
    ],
)
def test_what_the_command_refuses(classifier, tmp_path, capsys, more, sentence, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "open_clip", None)  # as if it were not installed
    assert command(classifier, tmp_path / "out", *more) in (1, 2)
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out" / "localization.txt").exists()


def test_the_classifier_must_fit_and_know_labels_only(classifier, tmp_path, capsys):
    words = ["data", "pseudo-boxes", "badges", "--classifier", str(classifier), "-o", str(tmp_path / "out")]
    assert main(words) == 2
    assert "knows the 3 classes of 'fake-data', which are not those of 'badges'" in capsys.readouterr().err
    assert command(tmp_path, tmp_path / "out") == 2
    assert "is no finished run" in capsys.readouterr().err
    record = read_record(classifier / "record.json")
    text = (classifier / "record.json").read_text()
    try:
        chosen = replace(record, ledger=replace(record.ledger, checkpoint="val-boxes"))
        (classifier / "record.json").write_text(to_json(chosen))
        assert command(classifier, tmp_path / "out") == 2
    finally:
        (classifier / "record.json").write_text(text)
    assert "has a checkpoint chosen by 'val-boxes'" in capsys.readouterr().err
    assert load_run(classifier).num_classes == CLASSES


def test_class_names_come_from_a_file(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("a cat\r\na dog\r\n")
    assert verb._names(path, 2) == ("a cat", "a dog")
    with pytest.raises(UsageError, match="holds 2 names, but the data set has 3 classes"):
        verb._names(path, 3)
