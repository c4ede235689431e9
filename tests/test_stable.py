"""What a rearrangement of the code must leave alone: where runs lie and what they are called, their bytes, the verbs' help.

The golden files were made by `python tests/test_stable.py`, before the code was arranged in rooms. Who changes one of them on
purpose says so under **Numbers** in CHANGELOG.md (hashes, outcomes) or **Changed** (help). Nothing here hangs on how a float
rounds: what is compared is computed from integers, or was not computed at all.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wsolbench import create_dataset
from wsolbench.cli.main import build_parser, main
from wsolbench.cli.parser import parsers_of
from wsolbench.config.compose import expand
from wsolbench.config.saved import to_yaml
from wsolbench.pseudo_boxes.folder import write_pseudo_boxes
from wsolbench.record import RunRecord, as_json, read_record
from wsolbench.runs.opening import Session, open_job
from wsolbench.runs.trained import training_settings
from wsolbench.system.hashing import digest

GOLDEN = Path(__file__).parent / "golden"
HELP, RUNS, OUTCOMES = "stable_help.json", "stable_runs.json", "stable_outcomes.json"

SMALL = ["dataset.val=20", "dataset.test=30", "dataset.train=40"]
COMMANDS: dict[str, dict[str, Any]] = {
    "defaults": {"methods": ["sat", "tscam", "cam", "gradcam", "attention", "center-box", "gradcam-pkg:EigenCAM"]},
    "backbones and seeds": {"methods": ["cam"], "backbone": "badges_vit.s0,badges_vit.s1", "seeds": [1, 2]},
    "sweep": {"methods": ["sat"], "overrides": ["sat.area=0.2,0.3", "train.lr=1e-4,1e-3"]},
    "few shots": {"methods": ["sat", "cam"], "protocol": "5shot"},
    "few shots, val too": {
        "methods": ["cam"],
        "protocol": "1shot+labels-only",
        "overrides": ["protocol.val_per_class=2"],
    },
    "percent": {"methods": ["cam"], "protocol": "10percent+reference", "overrides": ["protocol.budget=epochs"]},
    "every preset": {
        "methods": ["tscam"],
        "protocol": "full,reference,labels-only,paper-sat,paper-tscam,matrix",
    },
    "a changed preset": {"methods": ["cam"], "overrides": ["protocol.threshold=fixed:0.2", "protocol.select_every=2"]},
    "a named protocol": {"methods": ["cam"], "overrides": ["protocol.threshold=otsu", "protocol.name=mine"]},
    "search": {"methods": ["sat", "cam", "center-box"], "search": 3},
    "search by": {"methods": ["cam"], "search": 2, "search_by": "class-accuracy", "protocol": "5shot"},
    "pseudo-boxes": {"methods": ["cam"], "protocol": "realistic", "overrides": ["protocol.pseudo_boxes=pseudo"]},
    "matrix by pseudo-boxes": {
        "methods": ["cam"],
        "protocol": "matrix,5shot+realistic",
        "overrides": ["protocol.pseudo_boxes=pseudo"],
        "search": 2,
    },
    "convention": {"methods": ["cam"], "overrides": ["evaluate.convention='sat (box rule only)'"]},
    "subset": {"methods": ["cam"], "overrides": ["data.subset=subset.txt"]},
    "skipping bad images": {"methods": ["cam"], "overrides": ["data.on_bad_image=skip", "data.subset=subset.txt"]},
    "speed": {
        "methods": ["sat"],
        "overrides": ["train.dtype=bf16", "train.compile=true", "evaluate.dtype=fp16", "train.accumulate=2"],
    },
    "what decides nothing": {
        "methods": ["sat"],
        "overrides": [
            "train.workers=2",
            "evaluate.threads=2",
            "evaluate.save_every=5",
            "train.checkpoint_gradients=true",
        ],
    },
    "from scratch, no recipe": {"methods": ["tscam"], "overrides": ["experiment=none", "pretrained=false"]},
    "options of the data set": {"methods": ["cam", "full-image"], "overrides": ["dataset.clutter=0,1", *SMALL]},
}


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def prepare(folder: Path) -> None:
    """The files that the commands name."""
    badges = create_dataset("badges")
    val, train = badges.split("val"), badges.split("train")
    boxes = [(8, 8, 40 + index % 8, 48) for index in range(len(val))]
    write_pseudo_boxes(folder / "pseudo", val, [(64, 64)] * len(val), boxes, {"source": "middle", "external": None})
    (folder / "subset.txt").write_text("\n".join(train.ids[::7]) + "\n")


def runs() -> dict[str, Any]:
    """Where every run of the commands lies, its hash, that of its training, and that of its config.yaml."""
    found: dict[str, Any] = {}
    session = Session()
    for name, asked in COMMANDS.items():
        found[name] = []
        for config in expand(**asked):
            job = open_job(config, session)
            text = to_yaml(job.config)
            entry = {"path": job.directory.path.as_posix(), "hash": job.directory.hash, "job": str(job)}
            entry["training"] = digest(training_settings(job)) if job.training != "none" else job.training
            entry["config"] = text if name == "defaults" else hashlib.sha256(text.encode()).hexdigest()
            found[name].append(entry)
    return found


def _described(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """What a parser's help says, whatever the width of a terminal and the version of argparse."""
    return {
        "prog": parser.prog,
        "description": parser.description,
        "epilog": parser.epilog,
        "flags": [
            [action.option_strings or action.dest, action.metavar, action.nargs, str(action.default), action.help]
            for action in parser._actions
            if not isinstance(action, argparse._SubParsersAction)
        ],
        "verbs": {
            choice.dest: choice.help
            for action in parser._actions
            if isinstance(action, argparse._SubParsersAction)
            for choice in action._choices_actions
        },
    }


def helps() -> dict[str, Any]:
    """The help of every verb."""

    def below(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
        yield parser
        for verb in parsers_of(parser).values():
            yield from below(verb)

    return {each.prog: _described(each) for each in below(build_parser())}


def _maps(split: str) -> str:
    """A file of raw maps of integers, different from image to image."""
    rows, columns = np.mgrid[:64, :64]
    ids = create_dataset("badges").split(split).ids
    blobs = [24 - abs(rows - 20 - number % 16) - abs(columns - 24 - number % 7) for number in range(len(ids))]
    np.savez(
        f"{split}.npz", **{id: np.maximum(0, blob).astype(np.float64) for id, blob in zip(ids, blobs, strict=True)}
    )
    return f"{split}.npz"


def _rounded(value: Any) -> Any:
    """The ends of intervals come from functions that may round the last bit either way."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 9) if isinstance(value, float) else value


def _hash(record: RunRecord) -> str:
    """That of maps from elsewhere is over the place they lie at."""
    return "-" if record.protocol == "external" else record.hash


def _outcomes_of(folder: Path) -> dict[str, Any]:
    """Digests of what a run left, and its ledger; a compressed file's content, since compressors differ."""
    with np.load(folder / "levels.npz") as file:
        arrays = {name: hashlib.sha256(file[name].tobytes()).hexdigest() for name in file.files}
    record = read_record(folder / "record.json")
    written = (folder / "config.yaml").read_text(encoding="utf-8").replace(record.hash, _hash(record))
    kept = {name: value for name, value in as_json(record).items() if name not in ("cost", "provenance", "config")}
    kept["hash"] = _hash(record)
    return {
        "levels.npz": arrays,
        "images.csv.gz": hashlib.sha256(gzip.decompress((folder / "images.csv.gz").read_bytes())).hexdigest(),
        "config.yaml": hashlib.sha256(written.encode()).hexdigest(),
        "files": sorted(path.name for path in folder.iterdir()),
        "record": _rounded(kept),
        "cost": sorted(record.cost),
        "provenance": sorted(record.provenance),
    }


def outcomes() -> dict[str, Any]:
    """What runs leave whose numbers come from integers alone: nothing trained, and maps from files."""
    common = ["--dataset", "badges", *SMALL, "evaluate.batch_size=8"]
    assert (
        main(["run", "--methods", "center-box,full-image", *common, "evaluate.convention='sat (box rule only)'"]) == 0
    )
    assert main(["run", "--methods", "center-box", "--protocol", "1shot+reference", *common]) == 0
    maps = ["evaluate", "--maps", _maps("test"), "--dataset", "badges", "--map-kind", "raw"]
    assert main([*maps, "--val-maps", _maps("val"), "--contours", "multi", "--interval", "0.001"]) == 0
    assert main([*maps, "--convention", "sat (box rule only)", "--name", "mine", "--backbone", "some"]) == 0
    folders = [path.parent for path in sorted(Path("results").rglob("record.json"))]
    return {str(number): _outcomes_of(folder) for number, folder in enumerate(folders)}


def _ledger(folder: Path) -> dict[str, Any]:
    """The keys of a ledger, and what in it does not hang on rounding."""
    ledger = read_record(folder / "record.json").ledger.as_json()
    search = ledger["search"]
    return ledger | {"search": [*search] if isinstance(search, dict) else search}


def ledgers() -> dict[str, Any]:
    """The ledgers of runs that train for a moment: what touched the numbers, not the numbers."""
    common = [
        "--dataset",
        "badges",
        *SMALL,
        "train.steps=2",
        "train.batch_size=8",
        "evaluate.batch_size=16",
        "--out",
        "trained",
    ]
    assert main(["run", "--methods", "sat", "--protocol", "1shot", *common]) == 0
    assert main(["run", "--methods", "cam", "--search", "1", *common]) == 0
    assert main(["run", "--methods", "cam", "--protocol", "labels-only", *common, "data.on_bad_image=skip"]) == 0
    return {path.parent.as_posix(): _ledger(path.parent) for path in sorted(Path("trained").rglob("record.json"))}


def make(folder: Path) -> dict[str, Any]:
    """All golden content by file."""
    with inside(folder):
        prepare(folder)
        return {HELP: helps(), RUNS: runs(), OUTCOMES: {"outcomes": outcomes(), "ledgers": ledgers()}}


def golden(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


def plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def test_help_of_every_verb_is_as_it_was() -> None:
    assert plain(helps()) == golden(HELP)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_runs_lie_where_they_lay_and_are_called_as_they_were(home: Path) -> None:
    prepare(home)
    found, expected = plain(runs()), golden(RUNS)
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name] == expected[name], name


def test_outcomes_are_those_they_were(home: Path) -> None:
    assert plain(outcomes()) == golden(OUTCOMES)["outcomes"]


def test_ledgers_are_those_they_were(home: Path) -> None:
    assert plain(ledgers()) == golden(OUTCOMES)["ledgers"]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        for file, content in make(Path(place)).items():
            (GOLDEN / file).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.exit(0)
