"""Maps and class scores from files: what is found, what is read, and the sentence for what is refused."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.external.logit_files import ROWS, read_logits
from wsolbench.external.map_files import check_raw_map, check_score_map, find_maps
from wsolbench.metrics import label_rank

IDS = ["val/n01/a.jpeg", "val/n01/b.JPEG", "c"]
FRAME = (8, 8)


class Bomb:
    """What would happen if anything were unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


def maps(count=3, seed=0):
    return list(np.random.default_rng(seed).random((count, *FRAME)))


def write(folder: Path, names, arrays=None) -> Path:
    for name, array in zip(names, arrays or maps(len(names)), strict=True):
        path = folder / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array)
    return folder


def write_npz(path: Path, names, arrays=None, save=np.savez) -> Path:
    save(path, **dict(zip(names, arrays or maps(len(names)), strict=True)))
    return path


# --- finding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [IDS, ["val/n01/a", "val/n01/b", "c"], ["val/n01/a.jpeg", "val/n01/b", "c"]])
@pytest.mark.parametrize("kind", ["folder", "npz", "compressed npz"])
def test_maps_are_found_by_id_with_and_without_its_extension(tmp_path, names, kind):
    if kind == "folder":
        path = write(tmp_path / "maps", names)
    else:
        path = write_npz(tmp_path / "maps.npz", names, save=np.savez if kind == "npz" else np.savez_compressed)
    found = find_maps(path, IDS, "x/test")
    assert found.extra == ()
    for index, want in enumerate(maps()):
        array, sha256 = found.read(index)
        np.testing.assert_array_equal(array, want)
        assert len(sha256) == 32
    assert found.read(0)[1] != found.read(1)[1]


def test_the_whole_id_wins_and_what_is_left_is_extra(tmp_path):
    write(tmp_path, ["val/n01/a.jpeg", "val/n01/a", "val/n01/b", "c", "old/x"], maps(5))
    (tmp_path / "val" / "notes.txt").touch()
    found = find_maps(tmp_path, IDS, "x/test")
    np.testing.assert_array_equal(found.read(0)[0], maps(5)[0])
    assert found.extra == ("old/x.npy", "val/n01/a.npy")


def test_folders_and_files_may_be_links(tmp_path):
    write(tmp_path / "disk", IDS)
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "val").symlink_to(tmp_path / "disk" / "val")
    (tmp_path / "maps" / "c.npy").symlink_to(tmp_path / "disk" / "c.npy")
    found = find_maps(tmp_path / "maps", IDS, "x/test")
    np.testing.assert_array_equal(found.read(0)[0], maps()[0])
    only = write(tmp_path / "other" / "disk", ["val/a"]).parent
    (only / "maps").mkdir()
    (only / "maps" / "val").symlink_to(only / "disk" / "val")
    assert find_maps(only / "maps", ["val/a.jpg"], "x/test").names == ["val/a.npy"]


def test_the_stamp_moves_when_a_file_does(tmp_path):
    write(tmp_path / "maps", IDS)
    before = find_maps(tmp_path / "maps", IDS, "x/test").stamp()
    assert find_maps(tmp_path / "maps", IDS, "x/test").stamp() == before
    write(tmp_path / "maps", ["c"], maps(1, seed=5))
    assert find_maps(tmp_path / "maps", IDS, "x/test").stamp() != before
    npz = [write_npz(tmp_path / f"{seed}.npz", IDS, maps(3, seed)) for seed in (0, 0, 1)]
    stamps = [find_maps(path, IDS, "x/test").stamp() for path in npz]
    assert stamps[0] == stamps[1] != stamps[2]


def refused(path, ids=IDS, error=WsolbenchError) -> str:
    with pytest.raises(error) as caught:
        find_maps(path, ids, "x/test")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_maps_are_counted_before_any_is_read(tmp_path):
    write(tmp_path, ["c"])
    (tmp_path / "c.npy").write_bytes(b"not read")
    said = refused(tmp_path, [*IDS, "d.jpg", "e.jpg"])
    assert "lacks the maps of 4 of the 5 images of x/test, first 'val/n01/a.jpeg', 'val/n01/b.JPEG', 'd.jpg';" in said
    assert "expected <id>.npy, or the id without its extension and .npy" in said


def test_places_without_maps(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "empty' holds no .npy map; expected <id>.npy" in refused(tmp_path / "empty")
    assert "gone' does not exist; expected a folder of <id>.npy files" in refused(tmp_path / "gone", error=UsageError)
    (tmp_path / "a.txt").touch()
    assert "a.txt' is neither a folder nor a .npz file" in refused(tmp_path / "a.txt", error=UsageError)
    (tmp_path / "a.npz").write_bytes(b"no archive")
    assert "a.npz' cannot be read as .npz" in refused(tmp_path / "a.npz")


@pytest.mark.parametrize("id", ["../a.jpg", "/etc/a.jpg", "a/../../b.jpg", "a\\b.jpg", "C:a.jpg", ""])
def test_ids_that_would_leave_the_folder(tmp_path, id):
    write(tmp_path / "maps", ["c"])
    assert "could name a file outside" in refused(tmp_path / "maps", ["c", id])


def test_one_file_cannot_serve_two_images(tmp_path):
    write(tmp_path, ["a"])
    said = refused(tmp_path, ["a.jpg", "a.png"])
    assert "a.npy' would serve two images of x/test, 'a.jpg' and 'a.png'; name each map <id>.npy" in said


# --- reading ---------------------------------------------------------------------------------------------------------


def broken(tmp_path: Path, name: str) -> tuple[bytes, str]:
    """Content of a file that is no map, and what is said of it."""
    np.save(tmp_path / "good.npy", maps()[0])
    good = (tmp_path / "good.npy").read_bytes()
    np.save(tmp_path / "objects.npy", np.array([Bomb()], object), allow_pickle=True)
    return {
        "a pickle": (pickle.dumps(Bomb()), "holds pickled Python objects, which are never loaded"),
        "pickled objects": ((tmp_path / "objects.npy").read_bytes(), "holds pickled Python objects, which are never"),
        "text": (b"0.5 0.5", "is no .npy file; expected one written by numpy.save"),
        "empty": (b"", "is no .npy file"),
        "a cut file": (good[:-8], "is damaged"),
        "a cut header": (good[:20], "is damaged"),
        "a mad header": (good[:10] + b"x" * 118 + good[128:], "is damaged"),
    }[name]


@pytest.mark.parametrize(
    "name", ["a pickle", "pickled objects", "text", "empty", "a cut file", "a cut header", "a mad header"]
)
def test_what_is_no_array_is_refused_and_never_unpickled(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    content, said = broken(tmp_path, name)
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "a.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "maps.npz", "w") as file:
        file.writestr("a.npy", content)
    for path in (tmp_path / "maps", tmp_path / "maps.npz"):
        with pytest.raises(WsolbenchError) as caught:
            find_maps(path, ["a.jpg"], "x/test").read(0)
        assert said in str(caught.value)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "exploded").exists()


def test_a_damaged_archive_entry_is_named(tmp_path):
    path = write_npz(tmp_path / "maps.npz", ["a"])
    content = bytearray(path.read_bytes())
    content[300] ^= 255
    path.write_bytes(content)
    with pytest.raises(WsolbenchError, match=r"maps\.npz' entry 'a' cannot be read: Bad CRC-32"):
        find_maps(path, ["a"], "x/test").read(0)


def at(value, row=3, column=5):
    array = maps()[0]
    array[row, column] = value
    return array


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (at(np.nan), "map 'a.npy' holds nan at row 3, column 5; expected finite numbers"),
        (at(np.inf), "map 'a.npy' holds inf at row 3, column 5; expected finite numbers"),
        (at(-np.inf), "map 'a.npy' holds -inf at row 3, column 5; expected finite numbers"),
        (maps()[0][None], r"map 'a.npy' has shape [1, 8, 8], expected [height, width]"),
        (np.zeros((0, 8)), r"map 'a.npy' has shape [0, 8], expected [height, width]"),
        (np.float64(3), r"map 'a.npy' has shape [], expected [height, width]"),
    ],
)
def test_maps_of_either_kind_that_cannot_be_scored(array, said):
    for check in (lambda: check_score_map(array, "map 'a.npy'", FRAME), lambda: check_raw_map(array, "map 'a.npy'")):
        with pytest.raises(WsolbenchError) as caught:
            check()
        assert str(caught.value) == said


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (maps()[0].astype(np.float32), "map 'a.npy' is float32, expected float64 in [0, 1]: normalise in float64"),
        ((maps()[0] * 255).astype(np.uint8), "map 'a.npy' is uint8, expected float64 in [0, 1]"),
        (at(1.5), "map 'a.npy' has values in [0."),
        (at(-0.25), "map 'a.npy' has values in [-0.25, "),
        (np.zeros((8, 7)), "map 'a.npy' is 8x7 (height x width), expected score maps of 8x8; --map-kind raw resizes"),
    ],
)
def test_score_maps_that_cannot_be_compared(array, said):
    with pytest.raises(WsolbenchError) as caught:
        check_score_map(array, "map 'a.npy'", FRAME)
    assert str(caught.value).startswith(said)
    check_raw_map(array, "map 'a.npy'")


@pytest.mark.parametrize("array", [np.zeros((2, 2), complex), np.zeros((2, 2), "U3"), np.zeros((2, 2), "V2")])
def test_raw_maps_hold_real_numbers(array):
    with pytest.raises(WsolbenchError, match="expected real numbers"):
        check_raw_map(array, "map 'a.npy'")


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f8", "i4", "u1", "?"])
def test_raw_maps_may_have_any_real_type(dtype):
    array = (maps()[0] * 3).astype(dtype)
    assert check_raw_map(array, "map 'a.npy'") is array


# --- class scores ----------------------------------------------------------------------------------------------------


@pytest.fixture
def case():
    rng = np.random.default_rng(4)
    ids = [f"x/{index}.jpg" for index in range(ROWS + 7)]
    return ids, rng.normal(size=(len(ids), 5)).astype(np.float32), rng.integers(0, 5, len(ids))


def written(tmp_path: Path, case, form: str) -> Path:
    ids, logits, _ = case
    if form == "npy":
        np.save(tmp_path / "logits.npy", logits)
        return tmp_path / "logits.npy"
    path = tmp_path / "logits.npz"
    order = np.random.default_rng(1).permutation(len(ids))
    if form == "ids and logits":
        np.savez_compressed(path, ids=np.array(ids)[order], logits=logits[order])
    elif form == "ids as keys":
        np.savez(path, **{ids[index]: logits[index] for index in order})
    return path


@pytest.mark.parametrize("form", ["npy", "ids and logits", "ids as keys"])
def test_ranks_are_those_of_the_whole_array(tmp_path, case, form):
    ids, logits, labels = case
    outcomes = read_logits(written(tmp_path, case, form), ids, labels, 5, "x/test")
    want = label_rank(torch.from_numpy(logits), torch.from_numpy(labels)).numpy()
    np.testing.assert_array_equal(outcomes.ranks, want)
    np.testing.assert_array_equal(outcomes.predictions, logits.argmax(1))


def save(path: Path, array, **kwargs) -> Path:
    np.save(path, array, **kwargs)
    return path


def test_class_scores_that_cannot_be_ranked(tmp_path, case, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ids, logits, labels = case
    path = tmp_path / "logits.npy"

    def said(path: Path = path, error=WsolbenchError) -> str:
        with pytest.raises(error) as caught:
            read_logits(path, ids, labels, 5, "x/test")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "gone.npy' does not exist; expected a .npy" in said(tmp_path / "gone.npy", UsageError)
    (tmp_path / "a.txt").touch()
    assert "a.txt' is no .npy or .npz file; expected a .npy" in said(tmp_path / "a.txt", UsageError)
    save(path, logits[1:])
    assert f"have shape [{len(ids) - 1}, 5], expected [images, classes] with the {len(ids)} images of x/test" in said()
    save(path, logits[:, 1:])
    assert "have 4 classes, expected the 5 of x/test" in said()
    save(path, logits.astype("U8"))
    assert "are <U8, expected real numbers" in said()
    save(path, np.asfortranarray(logits))
    assert "are stored by columns" in said()
    bad = logits.copy()
    bad[ROWS + 2, 1] = np.nan
    save(path, bad)
    assert f"hold NaN for image 'x/{ROWS + 2}.jpg'" in said()
    save(path, np.array([[Bomb()] * 5] * len(ids), object), allow_pickle=True)
    assert "holds pickled Python objects, which are never loaded" in said()
    save(path, logits)
    path.write_bytes(path.read_bytes()[:-100])
    assert f"end after {len(ids) - 5} of {len(ids)} images" in said()
    path.write_bytes(pickle.dumps(Bomb()))
    assert "holds pickled Python objects" in said()
    npz = tmp_path / "logits.npz"
    np.savez(npz, ids=np.array([*ids[:-1], "other"]), logits=logits)
    assert f"are not the {len(ids)} images of x/test, each once; see 'x/{len(ids) - 1}.jpg'" in said(npz)
    np.savez(npz, ids=np.array([*ids[:-1], ids[0]]), logits=logits)
    assert "each once" in said(npz)
    np.savez(npz, **dict(zip(ids[1:], logits[1:], strict=True)))
    assert f"lacks the class scores of 1 of the {len(ids)} images" in said(npz)
    assert not (tmp_path / "exploded").exists()
