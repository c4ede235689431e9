"""`wsolbench evaluate` from files to record: its numbers are those of a plain loop, and of a run that made the same maps."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import shlex
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from reference_trees import Tree, write_tree

from wsolbench.cli.main import main
from wsolbench.data.loading import eval_batches
from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.evaluation.levels import load_levels
from wsolbench.external.evaluate import evaluate_maps
from wsolbench.external.job import Request
from wsolbench.leaderboard.groups import summarise
from wsolbench.leaderboard.records import load_records
from wsolbench.leaderboard.view import render
from wsolbench.system.progress import Silent

SIDE = 224
NAMES = {"cub": "CUB", "ilsvrc": "ILSVRC"}


# --- a plain loop over thresholds ------------------------------------------------------------------------------------


def score_map(raw: np.ndarray) -> np.ndarray:
    resized = cv2.resize(raw.astype(np.float64), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    if resized.min() == resized.max():
        return np.zeros((SIDE, SIDE))
    shifted = resized - resized.min()
    return shifted / shifted.max()


def overlap(a, b) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return shared / (sum(areas) - shared)


def boxes_at(q: np.ndarray, threshold: float, contours: str) -> list[list[int]]:
    found, _ = cv2.findContours((q > int(threshold * q.max())).astype(np.uint8), cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    if not found:
        return [[0, 0, 0, 0]]
    kept = [max(found, key=cv2.contourArea)] if contours == "single" else found
    rectangles = [cv2.boundingRect(contour) for contour in kept]
    return [[x, y, min(x + w, SIDE - 1), min(y + h, SIDE - 1)] for x, y, w, h in rectangles]


def best_overlaps(tree: Tree, split: str, maps: dict[str, np.ndarray], interval: float, contours: str) -> np.ndarray:
    """Best IoU with any of the image's boxes, [images, thresholds]."""
    table = []
    for id in tree.ids[split]:
        width, height = tree.sizes[id]
        truth = [
            [int(x0 * SIDE / width), int(y0 * SIDE / height), int(x1 * SIDE / width), int(y1 * SIDE / height)]
            for x0, y0, x1, y1 in tree.boxes[id]
        ]
        q = (maps[id] * 255).astype(np.uint8)
        rows = [boxes_at(q, threshold, contours) for threshold in np.arange(0, 1, interval)]
        table.append([max(overlap(a, b) for a in found for b in truth) for found in rows])
    return np.array(table)


# --- cases -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=NAMES)
def tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return write_tree(tmp_path_factory.mktemp(request.param), NAMES[request.param], images=False)


def blob(rng: np.random.Generator, side: int = 14) -> np.ndarray:
    """A raw map with one warm region, as a network gives it."""
    y, x = np.mgrid[:side, :side]
    center, width = rng.uniform(3, side - 3, 2), rng.uniform(2, 5)
    noise = rng.normal(scale=0.05, size=(side, side))
    return (np.exp(-((x - center[0]) ** 2 + (y - center[1]) ** 2) / (2 * width**2)) + noise).astype(np.float32)


def raw_maps(tree: Tree, split: str, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {id: blob(rng) for id in tree.ids[split]}


def write(folder: Path, maps: dict[str, np.ndarray]) -> str:
    for id, array in maps.items():
        path = folder / f"{id}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, array)
    return str(folder)


def evaluate(tree: Tree, maps: str, out: Path, **asked):
    request = Request(maps, {"name": tree.name.lower()}, root=str(tree.root), out=str(out), **asked)
    return evaluate_maps(request, reporter=Silent())


def cells(record) -> dict[str, float]:
    return {cell.column: cell.value for cell in record.cells}


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_numbers_are_those_of_a_plain_loop(tree, tmp_path):
    raw = {split: raw_maps(tree, split, seed) for seed, split in enumerate(("val", "test"))}
    scores = {split: {id: score_map(one) for id, one in maps.items()} for split, maps in raw.items()}
    labels = np.array([tree.labels[id] for id in tree.ids["test"]])
    logits = np.random.default_rng(7).normal(size=(len(labels), 3))
    np.save(tmp_path / "logits.npy", logits)
    overlaps = {split: best_overlaps(tree, split, scores[split], 0.01, "single") for split in scores}
    hits = {split: each >= 0.5 for split, each in overlaps.items()}
    at = hits["val"].sum(0).argmax()
    right = logits.argmax(1) == labels
    multi = best_overlaps(tree, "test", scores["test"], 0.001, "multi")
    per_iou = [(multi >= iou).mean(0).max() for iou in (0.3, 0.5, 0.7)]
    want = {
        "Top-1 Cls": right.mean(),
        "Top-5 Cls": 1.0,
        "GT-known@val": hits["test"][:, at].mean(),
        "Top-1 Loc@val": (hits["test"][:, at] & right).mean(),
        "Top-5 Loc@val": hits["test"][:, at].mean(),
        "MaxBoxAcc": hits["test"].mean(0).max(),
        "MaxBoxAccV2": sum(per_iou) / 3,
        "MaxBoxAccV2@.3": per_iou[0],
        "MaxBoxAccV2@.5": per_iou[1],
        "MaxBoxAccV2@.7": per_iou[2],
    }
    assert 0 < want["MaxBoxAcc"] < 1
    given = {split: write(tmp_path / f"scores-{split}", maps) for split, maps in scores.items()}
    asked = {"logits": str(tmp_path / "logits.npy"), "val_maps": given["val"]}
    outcome = evaluate(tree, given["test"], tmp_path / "out", **asked)
    found = cells(outcome.record)
    assert {column: found[column] for column in want} == pytest.approx(want, abs=1e-12)
    assert found.keys() - want.keys() == {"BoxAcc plateau", "BoxAcc area"}  # of the curve: see tests/metrics

    # raw maps, normalised here, are the same maps; and so are those in one .npz
    given = {split: write(tmp_path / f"raw-{split}", maps) for split, maps in raw.items()}
    asked["val_maps"] = given["val"]
    outcome_raw = evaluate(tree, given["test"], tmp_path / "out", map_kind="raw", **asked)
    assert cells(outcome_raw.record) == cells(outcome.record)
    assert outcome_raw.directory != outcome.directory
    np.savez_compressed(tmp_path / "all.npz", **raw["test"])
    outcome_npz = evaluate(tree, str(tmp_path / "all.npz"), tmp_path / "out", map_kind="raw", **asked)
    assert cells(outcome_npz.record) == cells(outcome.record)
    assert outcome_npz.record.provenance["maps_sha256"] == outcome_raw.record.provenance["maps_sha256"]


def test_masks_without_boxes_are_scored_by_pixels(tmp_path):
    tree = write_tree(tmp_path, "OpenImages", per_class=6, images=False)
    maps = {id: score_map(one) for id, one in raw_maps(tree, "test").items()}
    np.save(tmp_path / "logits.npy", np.eye(3)[[tree.labels[id] for id in tree.ids["test"]]])
    outcome = evaluate(tree, write(tmp_path / "mine", maps), tmp_path / "out", logits=str(tmp_path / "logits.npy"))
    scores, truth = [], []
    for id in tree.ids["test"]:
        foreground, ignored = (
            np.any(
                [
                    cv2.resize(cv2.imread(str(path), 0), (SIDE, SIDE), interpolation=cv2.INTER_NEAREST) > 0
                    for path in paths
                ],
                0,
            )
            for paths in (tree.masks[id], [tree.ignore[id]])
        )
        counted = foreground | ~ignored
        scores.append(maps[id][counted])
        truth.append(foreground[counted])
    scores, truth = np.concatenate(scores), np.concatenate(truth)
    average, before, peak = 0.0, 0.0, 0.0
    for threshold in [1.0, *np.arange(0, 1, 0.001)[::-1]]:
        kept = scores >= threshold
        if kept.any():
            hits = (kept & truth).sum()
            average += (hits / truth.sum() - before) * hits / kept.sum()
            before = hits / truth.sum()
            peak = max(peak, hits / (kept | truth).sum())
    want = {"Top-1 Cls": 1.0, "Top-5 Cls": 1.0, "PxAP": average, "pIoU": peak}
    assert cells(outcome.record) == pytest.approx(want, abs=1e-12)
    assert outcome.record.ledger.threshold is None
    with gzip.open(outcome.directory / "images.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["prediction"], row["iou"], row["hit"]) for row in rows] == [
        (id, str(tree.labels[id]), "", "") for id in tree.ids["test"]
    ]
    with pytest.raises(UsageError, match="convention 'tscam' compares boxes, but openimages has masks and no boxes"):
        evaluate(tree, str(tmp_path / "mine"), tmp_path / "out", map_kind="raw", convention="tscam")


def test_without_val_maps_the_test_boxes_choose_and_the_column_says_so(tree, tmp_path):
    maps = {id: score_map(one) for id, one in raw_maps(tree, "test").items()}
    outcome = evaluate(tree, write(tmp_path / "mine", maps), tmp_path / "out", backbone="resnet50")
    found = cells(outcome.record)
    best = (best_overlaps(tree, "test", maps, 0.01, "single") >= 0.5).mean(0).max()
    assert found["GT-known@test-oracle"] == found["MaxBoxAcc"] == pytest.approx(best)
    assert not any("Top-" in column for column in found)
    marked = {cell.column: cell.oracle for cell in outcome.record.cells}
    assert marked.pop("BoxAcc area") is False  # no threshold is chosen for it
    assert all(marked.values())
    record = outcome.record
    assert (record.method, record.backbone, record.protocol, record.seed) == ("mine", "resnet50", "external", 0)
    uses = {(use["split"], use["kind"], use["purpose"]): use["images"] for use in record.ledger.annotations}
    assert uses["test", "boxes", "threshold selection"] == len(tree.ids["test"])
    assert uses["test", "boxes", "scoring"] == len(tree.ids["test"])
    assert record.ledger.checkpoint == record.ledger.search == "not known: the maps were made elsewhere"
    assert "who chose checkpoint and hyper-parameters, is not known" in record.notes[0]


def test_other_intervals_and_contours_stand_in_columns_of_their_own(tree, tmp_path):
    maps = {id: score_map(one) for id, one in raw_maps(tree, "test").items()}
    folder, val = write(tmp_path / "mine", maps), write(tmp_path / "val", {})
    val = write(tmp_path / "val", {id: score_map(one) for id, one in raw_maps(tree, "val", 1).items()})
    usual = cells(evaluate(tree, folder, tmp_path / "out", val_maps=val).record)
    found = cells(evaluate(tree, folder, tmp_path / "out", val_maps=val, interval=0.2, contours="multi").record)
    hits = best_overlaps(tree, "test", maps, 0.2, "multi") >= 0.5
    assert found.pop("MaxBoxAcc(multi, 0.2)") == pytest.approx(hits.mean(0).max())
    chosen = (
        (
            best_overlaps(
                tree, "val", {id: score_map(one) for id, one in raw_maps(tree, "val", 1).items()}, 0.2, "multi"
            )
            >= 0.5
        )
        .sum(0)
        .argmax()
    )
    assert found.pop("GT-known(multi, 0.2)@val") == pytest.approx(hits[:, chosen].mean())
    assert found == usual


def test_val_may_be_scored_and_stands_apart(tree, tmp_path):
    maps = write(tmp_path / "mine", raw_maps(tree, "val"))
    record = evaluate(tree, maps, tmp_path / "out", map_kind="raw", split="val").record
    assert record.protocol == "external-val"
    assert "GT-known@val" in cells(record)
    assert {use["split"] for use in record.ledger.annotations} == {"val"}
    assert not any(cell.oracle for cell in record.cells)


def test_a_convention_is_printed_beside_the_reference(tree, tmp_path):
    maps = write(tmp_path / "mine", raw_maps(tree, "test"))
    plain = cells(evaluate(tree, maps, tmp_path / "out", map_kind="raw").record)
    both = cells(evaluate(tree, maps, tmp_path / "out", map_kind="raw", convention="tscam").record)
    assert plain.items() < both.items()
    (column,) = both.keys() - plain.keys()
    assert column.startswith("GT-known@fixed:")
    assert column.endswith("[tscam]")
    cropped = cells(
        evaluate(tree, maps, tmp_path / "out", map_kind="raw", convention="sat", geometry="centre-crop").record
    )
    assert cropped
    assert all(column.endswith("[sat]") for column in cropped)  # the reference never sees a crop
    for asked, said in (
        ({"split": "val", "val_maps": maps}, "leave them out with --split val"),
        ({"convention": "tscam"}, "convention 'tscam' needs raw maps, these are score maps"),
        ({"convention": "sat", "map_kind": "raw"}, "convention 'sat' needs maps of the centre crop"),
        ({"geometry": "centre-crop"}, "convention 'reference' needs maps of the whole image"),
        ({"convention": "stat"}, "unknown convention 'stat', did you mean 'sat'"),
    ):
        with pytest.raises(UsageError, match=said):
            evaluate(tree, maps, tmp_path / "out", **asked)


# --- record ----------------------------------------------------------------------------------------------------------


def test_foreign_maps_stand_in_the_leaderboard_and_the_command_repeats_them(tree, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "their maps", raw_maps(tree, "test"))
    words = ["--maps", "their maps", "--dataset", tree.name.lower(), "--root", str(tree.root), "--map-kind", "raw"]
    assert main(["evaluate", *words, "--name", "theirs", "--backbone", "vgg16"]) == 0
    printed = capsys.readouterr()
    record_line = printed.out.strip().splitlines()[-2]  # the last one tells the command of the page
    path = Path(record_line.removeprefix("record: "))
    assert path.parts[:-2] == ("results", "runs", tree.name.lower(), "theirs", "vgg16", "external")
    assert "theirs" in printed.out
    assert "maps/s)" in printed.err
    assert {each.name for each in path.parent.iterdir()} == {
        "config.yaml", "env.json", "images.csv.gz", "levels.npz", "record.json"
    }  # fmt: skip
    table = render(load_records(Path("results")), "markdown")
    assert "theirs" in table
    (group,) = summarise(load_records(Path("results")))
    assert group.title == f"{tree.name.lower()} | vgg16 | external"
    repeat = (path.parent / "config.yaml").read_text().splitlines()[1].removeprefix("# repeat: wsolbench ")
    assert main(shlex.split(repeat)) == 0
    printed = capsys.readouterr().out
    assert "skipped (done on" in printed
    assert re.search(r"\nrecord: (.*)/record\.json\nas a page: wsolbench report \1\n$", printed)
    assert len(load_records(Path("results"))) == 1


def test_changed_maps_are_scored_again_and_unchanged_ones_are_not(tree, tmp_path):
    maps = write(tmp_path / "mine", raw_maps(tree, "test"))
    first = evaluate(tree, maps, tmp_path / "out", map_kind="raw")
    assert first.status == "done"
    second = evaluate(tree, maps, tmp_path / "out", map_kind="raw")
    assert second.status == "skipped"
    assert second.reason.startswith("done on 2")
    assert second.record.cells == first.record.cells
    write(tmp_path / "mine", raw_maps(tree, "test", seed=9))
    third = evaluate(tree, maps, tmp_path / "out", map_kind="raw")
    assert third.status == "done"
    assert third.directory == first.directory
    assert third.record.provenance["maps_sha256"] != first.record.provenance["maps_sha256"]
    request = Request(maps, {"name": tree.name.lower()}, root=str(tree.root), out=str(tmp_path / "out"), map_kind="raw")
    assert evaluate_maps(request, rerun=True, reporter=Silent()).status == "done"


def test_images_csv_has_the_box_and_its_overlap(tree, tmp_path):
    maps = {id: score_map(one) for id, one in raw_maps(tree, "test").items()}
    outcome = evaluate(tree, write(tmp_path / "mine", maps), tmp_path / "out")
    (cell,) = (cell for cell in outcome.record.cells if cell.metric == "GT-known")
    with gzip.open(outcome.directory / "images.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == tree.ids["test"]
    assert np.mean([int(row["hit"]) for row in rows]) == cell.value
    for row in rows:
        q = (maps[row["id"]] * 255).astype(np.uint8)
        assert [int(row[side]) for side in ("x0", "y0", "x1", "y1")] == boxes_at(q, cell.threshold, "single")[0]


def test_constant_and_extra_maps_are_counted(tree, tmp_path):
    maps = raw_maps(tree, "test")
    first = tree.ids["test"][0]
    maps[first] = np.full((7, 7), 3.0)
    folder = write(tmp_path / "mine", maps | {"other/x": np.zeros((2, 2))})
    record = evaluate(tree, folder, tmp_path / "out", map_kind="raw").record
    split = f"{tree.name.lower()}/test"
    said = f"maps in '{folder}' that belong to no image of {split} are left out: 1, first 'other/x.npy'"
    assert said in record.notes
    assert f"1 of {len(maps)} maps of test are constant, first map '{folder}/{first}.npy'" in record.notes


# --- interruption and bad input --------------------------------------------------------------------------------------


def test_a_bad_map_costs_nothing_that_was_done_before(tmp_path, monkeypatch):
    tree = write_tree(tmp_path, "CUB", per_class=40, images=False)
    maps = raw_maps(tree, "test")
    folder = write(tmp_path / "mine", maps)
    bad = tree.ids["test"][100]
    np.save(Path(folder) / f"{bad}.npy", np.full((14, 14), np.nan))
    with pytest.raises(
        WsolbenchError, match=rf"map '.*{bad}\.npy' holds nan at row 0, column 0; expected finite numbers"
    ):
        evaluate(tree, folder, tmp_path / "out", map_kind="raw")
    (directory,) = (tmp_path / "out").glob("runs/*/*/*/*/*")
    assert "holds nan" in json.loads((directory / "failed.json").read_text())["reason"]
    np.save(Path(folder) / f"{bad}.npy", maps[bad])
    read: list[int] = []
    from wsolbench.external.map_files import MapFiles

    plain_read = MapFiles.read
    monkeypatch.setattr(MapFiles, "read", lambda self, index: read.append(index) or plain_read(self, index))
    resumed = evaluate(tree, folder, tmp_path / "out", map_kind="raw")
    assert sorted(read) == list(range(96, 120))  # three whole chunks of 32 were kept
    assert not (directory / "failed.json").exists()
    assert not (directory / "partial").exists()
    whole = evaluate(tree, folder, tmp_path / "whole", map_kind="raw")
    assert resumed.record.cells == whole.record.cells
    assert resumed.record.ledger == whole.record.ledger
    for name in ("levels.npz", "images.csv.gz"):
        assert (resumed.directory / name).read_bytes() == (whole.directory / name).read_bytes()


def test_parts_of_maps_that_were_changed_since_are_scored_again(tmp_path, monkeypatch):
    tree = write_tree(tmp_path, "CUB", per_class=40, images=False)
    maps = raw_maps(tree, "test")
    folder = write(tmp_path / "mine", maps)
    bad = Path(folder) / f"{tree.ids['test'][100]}.npy"
    bad.write_bytes(b"")
    with pytest.raises(WsolbenchError, match=r"is no \.npy file"):
        evaluate(tree, folder, tmp_path / "out", map_kind="raw")
    other = raw_maps(tree, "test", seed=5)
    write(tmp_path / "mine", other)
    resumed = evaluate(tree, folder, tmp_path / "out", map_kind="raw")
    whole = evaluate(tree, folder, tmp_path / "whole", map_kind="raw")
    assert resumed.record.cells == whole.record.cells


def test_interrupting_saves_and_resumes(tmp_path, monkeypatch):
    tree = write_tree(tmp_path, "CUB", per_class=80, images=False)
    folder = write(tmp_path / "mine", raw_maps(tree, "test"))
    from wsolbench.external.map_files import MapFiles

    plain_read, read = MapFiles.read, []

    def interrupting(self, index):
        read.append(index)
        if read.count(70) == 1 and index == 70:
            os.kill(os.getpid(), signal.SIGINT)
        return plain_read(self, index)

    monkeypatch.setattr(MapFiles, "read", interrupting)
    with pytest.raises(KeyboardInterrupt):
        evaluate(tree, folder, tmp_path / "out", map_kind="raw")
    assert len(read) < 240
    before = len(read)
    resumed = evaluate(tree, folder, tmp_path / "out", map_kind="raw")
    assert min(read[before:]) >= 32
    monkeypatch.setattr(MapFiles, "read", plain_read)
    whole = evaluate(tree, folder, tmp_path / "whole", map_kind="raw")
    assert resumed.record.cells == whole.record.cells
    assert resumed.record.ledger == whole.record.ledger


def test_every_refusal_is_one_sentence_of_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree = write_tree(tmp_path, "CUB", images=False)
    good = {id: score_map(one) for id, one in raw_maps(tree, "test").items()}
    write(tmp_path / "mine", good)
    first = tree.ids["test"][0]

    def said(*words: str, maps: str = "mine", status: int = 1) -> str:
        assert main(["evaluate", "--maps", maps, "--dataset", "cub", "--root", str(tmp_path), *words]) == status
        captured = capsys.readouterr()
        assert captured.out == ""
        line = captured.err.strip().splitlines()[-1]
        assert line.startswith("wsolbench: ")
        assert "Traceback" not in captured.err
        return line

    assert "unknown --split 'tset', did you mean 'test'" in said("--split", "tset", status=2)
    assert "unknown --split 'train'" in said("--split", "train", status=2)
    assert "unknown --map-kind 'raws', did you mean 'raw'" in said("--map-kind", "raws", status=2)
    assert "unknown --contours 'all'" in said("--contours", "all", status=2)
    assert "--interval 1.5: expected a step" in said("--interval", "1.5", status=2)
    assert "maps 'gone' does not exist" in said(maps="gone", status=2)
    assert "--logits 'gone.npy' does not exist" in said("--logits", "gone.npy", status=2)
    (tmp_path / "empty").mkdir()
    assert "'empty' holds no .npy map" in said(maps="empty")
    for array, expected in (
        (good[first].astype(np.float32), "is float32, expected float64 in [0, 1]"),
        (good[first][:100], "is 100x224 (height x width), expected score maps of 224x224"),
        (good[first][None], "has shape [1, 224, 224], expected [height, width]"),
        (good[first] * 2, "has values in [0, 2], expected score maps in [0, 1]"),
    ):
        np.save(f"mine/{first}.npy", array)
        assert f"map 'mine/{first}.npy' {expected}" in said()
    Path(f"mine/{first}.npy").unlink()
    assert f"'mine' lacks the maps of 1 of the 12 images of cub/test, first '{first}'" in said()
    lines = (tree.metadata / "test" / "localization.txt").read_text().splitlines()
    (tree.metadata / "test" / "localization.txt").write_text("\n".join(lines[1:]))
    assert f"localization.txt' has no line for 1 of the 12 images of 'image_ids.txt', first '{first}'" in said()
    (tree.metadata / "test" / "localization.txt").write_text("")
    np.save(f"mine/{first}.npy", good[first])
    assert "the images of cub/test have neither boxes nor masks" in said()


# --- badges ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_dumped_maps_of_a_run_give_its_levels(tmp_path):
    from wsolbench import create_dataset
    from wsolbench.config.compose import expand
    from wsolbench.runs.engine import run
    from wsolbench.runs.load import load_run

    (config,) = expand(
        ["cam"],
        dataset="badges",
        overrides=["train.steps=2", "dataset.train=20", "dataset.val=20", "dataset.test=40"],
        device="cpu",
        out=str(tmp_path / "out"),
    )
    done = run(config)
    method = load_run(done.directory)
    options = {name: value for name, value in config.dataset.items() if name != "name"}
    dataset = create_dataset("badges", **options)
    for name in ("val", "test"):
        split = dataset.split(name)
        maps, logits = {}, []
        for batch in eval_batches(split, batch_size=config.evaluate.batch_size):  # rounding depends on it
            with torch.inference_mode():
                prediction = method.localize(batch.images_BCHW, batch.labels_B)
            maps |= dict(zip(batch.ids, prediction.maps_Bhw.numpy(), strict=True))
            logits.append(prediction.logits_BK.numpy())
        write(tmp_path / name, maps)
        np.save(tmp_path / f"{name}.npy", np.concatenate(logits))
    request = Request(
        str(tmp_path / "test"),
        {"name": "badges", **options},
        logits=str(tmp_path / "test.npy"),
        map_kind="raw",
        val_maps=str(tmp_path / "val"),
        out=str(tmp_path / "out"),
    )
    outcome = evaluate_maps(request, reporter=Silent())
    ours, theirs = (load_levels(each.directory / "levels.npz") for each in (done, outcome))
    for column in ("ids", "labels", "ranks", "predictions", "qmax", "otsu", "packed", "foreground", "background"):
        np.testing.assert_array_equal(getattr(ours["test"], column), getattr(theirs["test"], column))
    np.testing.assert_array_equal(ours["val"].packed, theirs["val"].packed)
    assert outcome.record.cells == done.record.cells
