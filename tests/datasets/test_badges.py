"""The embedded data set: exact annotations, dials that do what they say, the same bytes everywhere."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch

from wsolbench import create_dataset
from wsolbench.errors import UsageError, WsolbenchError
from wsolbench_datasets.badges import compose as _compose
from wsolbench_datasets.badges import dataset as badges
from wsolbench_datasets.badges.glyphs import digit_pools, draw_letter

LETTERS_DIGEST = "406a44069032394ea531a8f7b2ecbdf9d0e90a5152ffd7bed92dec84cc5f68a6"  # 32 val images of the letters


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WSOLBENCH_CACHE", str(tmp_path))
    return tmp_path


def drawn(count=100, **dials):
    return badges.draw("val", badges.BadgesConfig(val=count, **dials))


def areas(boxes_nN4):
    boxes = boxes_nN4[boxes_nN4[..., 0] >= 0]
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_committed_digest(name):
    assert badges.draw(name, badges.BadgesConfig()).digest() == badges.DIGESTS[name]


def test_letters_repeat():
    assert drawn(32, variant=badges.Variant.letters).digest() == LETTERS_DIGEST


def test_images_do_not_depend_on_the_count():
    assert np.array_equal(drawn(40).images_nHW3[:20], drawn(20).images_nHW3)


def test_boxes_are_those_of_the_mask():
    split = create_dataset("badges", val=60).split("val")
    for id in split.ids:
        annotation = split.annotation(id)
        ys, xs = np.nonzero(annotation.mask_HW)
        expected = [xs.min(), ys.min(), min(xs.max() + 1, 63), min(ys.max() + 1, 63)]
        assert annotation.boxes_N4.tolist() == [expected]
        (part,) = split.part_box(id)
        assert (part[:2] >= expected[:2]).all()
        assert (part[2:] <= expected[2:]).all()


def test_what_changes_with_the_class_lies_on_the_badge():
    """Two glyphs under the same random stream: pixels outside the badge stay, so only the badge tells the class."""
    plan = _compose.Plan(10, 0.31, (34, 54), 4, 0.4, 1)
    blank, full = np.zeros((8, 8), np.int64), np.full((8, 8), 16)
    one, other = (_compose.compose(np.random.RandomState(7), 3, [glyph], plan, "val") for glyph in (blank, full))
    changed = (one.image_HW3 != other.image_HW3).any(2)
    x0, y0, x1, y1 = one.parts_N4[0]
    assert changed[y0:y1, x0:x1].mean() > 0.4
    changed[y0 : y1 + 1, x0 : x1 + 1] = False
    assert not changed.any()


@pytest.mark.parametrize("share", [0.15, 0.31, 0.5])
def test_part_share_is_the_badges_share_of_the_box(share):
    arrays = drawn(part_share=share)
    assert (areas(arrays.parts_nN4) / areas(arrays.boxes_nN4)).mean() == pytest.approx(share, abs=0.025)


def test_size_and_clutter_dials():
    small, large = drawn(min_length=24, max_length=28), drawn(min_length=50, max_length=54)
    assert areas(small.boxes_nN4).mean() * 2 < areas(large.boxes_nN4).mean()
    assert (drawn(clutter=0).textures_nT.sum(1) == 1).all()
    assert drawn(clutter=8).textures_nT.sum(1).mean() > drawn(clutter=2).textures_nT.sum(1).mean() + 0.5


@pytest.mark.parametrize("agreement", [0.0, 0.4, 1.0])
def test_agreement_ties_texture_to_class(agreement):
    arrays = drawn(300, clutter=0, agreement=agreement)
    agrees = arrays.textures_nT[np.arange(300), arrays.labels_n].mean()
    assert agrees == pytest.approx(agreement, abs=0.09 if 0 < agreement < 1 else 0)


def test_several_objects_do_not_overlap():
    split = create_dataset("badges", val=30, objects=3, min_length=18, max_length=24).split("val")
    counts = []
    for id in split.ids:
        annotation = split.annotation(id)
        counts.append(len(annotation.boxes_N4))
        assert len(split.part_box(id)) == counts[-1]
        covered = sum(
            annotation.mask_HW[y0 : y1 + 1, x0 : x1 + 1].any() for x0, y0, x1, y1 in annotation.boxes_N4.tolist()
        )
        assert covered == counts[-1]
    assert np.mean(counts) > 2.5


def test_digit_samples_and_photo_bands_are_in_one_split_only():
    from sklearn.datasets import load_digits

    total = len(load_digits().target)
    sizes = {name: sum(map(len, digit_pools(name))) for name in ("train", "val", "test")}
    assert sum(sizes.values()) == total
    for name, share in (("train", 0.55), ("val", 0.15), ("test", 0.30)):
        assert sizes[name] / total == pytest.approx(share, abs=0.01)
    columns = [set(range(*_compose.BANDS[name])) for name in sizes]
    assert sum(map(len, columns)) == len(set.union(*columns)) == 640


def test_letters_have_the_digits_format():
    for label in range(16):
        ink = draw_letter(label, np.random.RandomState(label))
        assert ink.shape == (8, 8)
        assert 0 <= ink.min() < 4
        assert 12 <= ink.max() <= 16


def test_augmentation_moves_by_at_most_four_pixels():
    split = create_dataset("badges", train=4).split("train")
    plain = split[0].image_CHW[0]
    for seed in range(5):
        moved = split.sample(0, torch.Generator().manual_seed(seed)).image_CHW[0]
        correlation = {
            (dy, dx): torch.corrcoef(
                torch.stack(
                    (plain[8 + dy : 56 + dy, 8 + dx : 56 + dx].flatten(), moved[8:56, 8:56].flatten()),
                )
            )[0, 1]
            for dy in range(-6, 7)
            for dx in range(-6, 7)
        }
        best = max(correlation, key=correlation.__getitem__)
        assert max(map(abs, best)) <= badges.SHIFT
        assert correlation[best] > 0.95


def test_a_damaged_or_wrong_cache_file_is_drawn_again(cache):
    expected = create_dataset("badges", val=10).split("val").arrays.digest()
    (path,) = (cache / "badges").iterdir()
    whole = path.read_bytes()
    middle = len(whole) // 2
    for damage in (b"", b"no archive", whole[:middle], whole[:middle] + b"\xff\x00\xff" + whole[middle + 3 :]):
        path.write_bytes(damage)
        assert create_dataset("badges", val=10).split("val").arrays.digest() == expected
        assert path.read_bytes() == whole
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_the_cache_is_read(cache, monkeypatch):
    expected = create_dataset("badges", val=10).split("val").arrays.digest()
    monkeypatch.setattr(badges, "draw", lambda *_: pytest.fail("drawn although the cache holds it"))
    assert create_dataset("badges", val=10).split("val").arrays.digest() == expected


def test_an_unwritable_cache_costs_time_only(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WSOLBENCH_CACHE", str(tmp_path / "file"))
    assert len(create_dataset("badges", val=3).split("val").arrays.images_nHW3) == 3


def test_the_committed_digest_is_enforced(monkeypatch):
    monkeypatch.setattr(badges, "BadgesConfig", lambda: tiny)
    tiny = create_dataset("badges", val=3).config
    with pytest.raises(WsolbenchError, match="came out differently here: split val"):
        create_dataset("badges", val=3).split("val").arrays  # noqa: B018


def _digest(_):
    return create_dataset("badges", val=10).split("val").arrays.digest()


def test_processes_may_race_for_the_cache(cache):
    with ProcessPoolExecutor(3) as pool:
        assert len(set(pool.map(_digest, range(6)))) == 1
    assert len(list((cache / "badges").iterdir())) == 1


def test_impossible_dials_are_refused():
    for dials in ({"part_share": 1.5}, {"min_length": 55}, {"max_length": 64}, {"objects": 0}, {"val": 0}):
        with pytest.raises(UsageError, match=next(iter(dials))):
            create_dataset("badges", **dials)
