"""No room: every writer names the file and the reason, leaves what was there, and the same command comes to the same later.

The limits are the kernel's own: the largest size of a file (RLIMIT_FSIZE, as a quota would), and a small file system.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_fakes import fake_config
from matplotlib.figure import Figure
from run_files import assert_same_files, temporary_files

from wsolbench.config.schema import RunConfig, SearchConfig
from wsolbench.errors import MachineError
from wsolbench.evaluation.levels import Levels, save_levels
from wsolbench.evaluation.parts import Part, Parts
from wsolbench.evaluation.scoring import score_with_boxes
from wsolbench.launch.here import run_all
from wsolbench.leaderboard import plots
from wsolbench.method.checkpoint import write_tensors
from wsolbench.runs.directory import RunDirectory
from wsolbench.system.files import atomically, write_bytes, write_json, write_text
from wsolbench.system.progress import Silent


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Files cannot grow beyond `size` bytes: Python ignores SIGXFSZ, so that writing fails with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def levels(count: int) -> Levels:
    maps_BHW, labels = np.random.RandomState(0).rand(count, 8, 8), np.zeros(count, np.int64)
    return score_with_boxes(
        maps_BHW, [np.array([[1, 1, 5, 5]])] * count, labels, None, None, [f"{n}" for n in range(count)]
    ).levels


# --- writers ---------------------------------------------------------------------------------------------------------


def save_state(path: Path) -> None:
    with atomically(path) as temporary, temporary.open("wb") as file:
        torch.save({"a": torch.rand(10_000)}, file)


WRITERS: dict[str, Callable[[Path], object]] = {
    "bytes": lambda path: write_bytes(path, bytes(40_000)),
    "text": lambda path: write_text(path, "x" * 40_000),
    "json": lambda path: write_json(path, {"x": "x" * 40_000}),
    "weights": lambda path: write_tensors(path, {"a": torch.rand(10_000)}),
    "state": save_state,
    "levels": lambda path: save_levels(path, {"test": levels(40)}),
    "figure": lambda path: plots.save(Figure(), path),
}


@pytest.mark.parametrize("size", [0, 1000])
@pytest.mark.parametrize("name", WRITERS)
def test_a_file_for_which_there_is_no_room_stays_as_it_was(name: str, size: int, tmp_path: Path) -> None:
    path = tmp_path / "file.png"
    path.write_bytes(b"before")
    said = rf"^'{path}' could not be written: File too large; what was saved before is whole: make room"
    with largest_file(size), pytest.raises(MachineError, match=said):
        WRITERS[name](path)
    assert [each.name for each in tmp_path.iterdir()] == ["file.png"]
    assert path.read_bytes() == b"before"
    WRITERS[name](path)
    assert path.stat().st_size > 1000


def test_what_is_written_in_place_of_nothing_is_absent(tmp_path: Path) -> None:
    with largest_file(10), pytest.raises(MachineError):
        write_text(tmp_path / "a" / "b.json", "x" * 100)
    assert not list((tmp_path / "a").iterdir())


def test_parts_of_an_evaluation_go_on_where_there_was_room(tmp_path: Path) -> None:
    def part() -> Part:
        return Part({"boxes": np.zeros((4, 255, 4), np.uint8)}, levels(4))

    parts = Parts(tmp_path, "test")
    parts.add(part())
    parts.flush()
    parts.add(part())
    with largest_file(2000), pytest.raises(MachineError, match=r"test-000001\.arrays\.npz' could not be written"):
        parts.flush()
    assert not temporary_files(tmp_path)
    again = Parts(tmp_path, "test")
    assert again.load() == 4
    assert len(list(tmp_path.iterdir())) == 2


def test_the_reason_of_a_failure_needs_no_room(tmp_path: Path) -> None:
    """Else the error of writing it down would hide the error itself."""
    run = RunDirectory(tmp_path / "run", "a" * 64)
    with run.locked():
        run.begin("seed: 0\n", {})
        with largest_file(0):
            run.fail(ValueError("the reason"), "details")
    with largest_file(0), run.locked():  # nor does a lock
        pass


# --- runs ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("disk")


def configs(out: Path, space: Path) -> list[RunConfig]:
    """A training among whose checkpoints is chosen, with a search."""
    config = fake_config(out, "tiny", matrix=True, save_every=0.0)
    return [config, replace(config, search=SearchConfig(2, None, str(space)))]


@pytest.fixture(scope="module")
def whole(base: Path) -> Path:
    (base / "space.yaml").write_text('space: [{for: {methods: ["*"]}, train: {lr: {log-uniform: [1.0e-3, 0.1]}}}]')
    outcomes = run_all(configs(base / "whole", base / "space.yaml"), reporter=Silent())
    assert [outcome.status for outcome in outcomes] == ["done", "done"]
    return base / "whole"


@pytest.mark.parametrize("size", [100, 1000, 2000, 4000, 12_000])
def test_a_run_without_room_fails_with_a_sentence_and_goes_on_later(size: int, base: Path, whole: Path) -> None:
    """Another writer fails first at each size; a trial that fails for want of room is no reason to choose another one."""
    out = base / f"limited-{size}"
    with largest_file(size):
        outcomes = run_all(configs(out, base / "space.yaml"), reporter=Silent())
    reasons = [outcome.reason for outcome in outcomes if outcome.status == "failed"]
    print(size, reasons)
    assert reasons
    for reason in reasons:
        assert re.match(rf"'{out}/.*' could not be written: File too large", reason)
    assert not temporary_files(out)
    outcomes = run_all(configs(out, base / "space.yaml"), reporter=Silent())
    assert [outcome.status for outcome in outcomes if outcome.status == "failed"] == []
    assert_same_files(out, whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB; only root may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("a file system can be mounted by root only, and not everywhere")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_run_on_a_full_disk_goes_on_once_there_is_room(small_disk: Path, tmp_path: Path) -> None:
    config = fake_config(small_disk / "out", "tiny", save_every=0.0)
    whole = run_all([fake_config(tmp_path / "whole", "tiny", save_every=0.0)], reporter=Silent())
    assert whole[0].status == "done"
    said: list[str] = []
    for room in (20_000, 40_000, 60_000):
        filler = small_disk / "filler"
        free = os.statvfs(small_disk)
        filler.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - room)))
        (outcome,) = run_all([config], reporter=Silent())
        if outcome.status == "failed":
            said.append(outcome.reason)
            assert re.match(rf"'{small_disk}/.*' could not be written: No space left on device; .*", outcome.reason)
        assert not temporary_files(small_disk)
        filler.unlink()
    print(said)
    assert said
    (outcome,) = run_all([config], reporter=Silent())
    assert outcome.status in ("done", "skipped")
    assert_same_files(small_disk / "out", tmp_path / "whole")


def test_a_disk_that_became_read_only(small_disk: Path) -> None:
    write_text(small_disk / "a.json", "before")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(MachineError, match=r"a\.json' could not be written: Read-only file system$"):
        write_text(small_disk / "a.json", "after")
    assert (small_disk / "a.json").read_text() == "before"
