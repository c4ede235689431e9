"""`launch=...` and `launch.*=...`: how runs are carried out, apart from what they are."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from wsolbench.cli.main import main
from wsolbench.errors import UsageError
from wsolbench.launch.options import Here, Joblib, Slurm, check, take


def test_words_of_the_launcher_are_taken_out_and_the_others_are_left() -> None:
    words = [
        "launch=slurm",
        "train.lr=1e-3,3e-3",
        "launch.gpus=2",
        "launch.time=90m",
        "launch.memory=32G",
        "launch.wait=no",
    ]
    launcher, rest = take(words)
    assert rest == ["train.lr=1e-3,3e-3"]
    assert launcher == Slurm(gpus=2, time="90m", memory="32G", wait=False)
    assert isinstance(launcher, Slurm)
    assert (launcher.minutes, launcher.gigabytes) == (90, 32.0)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("launch.devices=1", [1]),
        ("launch.devices=0,2", [0, 2]),
        ("launch.devices=[0,2]", [0, 2]),
    ],
)
def test_a_comma_list_of_devices_is_a_list_and_no_sweep(word: str, expected: list[int]) -> None:
    assert take(["launch=joblib", word])[0] == Joblib(devices=expected)


def test_without_a_word_runs_take_place_here() -> None:
    assert take(["train.epochs=1"]) == (Here(), ["train.epochs=1"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["launch=jobib"], "unknown launcher 'jobib', did you mean 'joblib'?"),
        (["launch=here,joblib"], "'launch=here,joblib' is a sweep"),
        (["launch.jobs=2"], "'launch.jobs=2' is an option of launch=joblib, but this is launch=here"),
        (["launch=joblib", "launch.job=2"], "did you mean 'launch.jobs'?"),
        (["launch=joblib", "launch.jobs=2,4"], "'launch.jobs=2,4' is a sweep"),
        (["launch=joblib", "launch.jobs=0"], "launch.jobs=0 is impossible: the least is 1"),
        (["launch=joblib", "launch.jobs=two"], "'launch.jobs=two': Value 'two'"),
        (["launch=slurm", "launch.partitoin=gpu"], "did you mean 'launch.partition'?"),
        (["launch=slurm", "launch.time=4"], "launch.time=4 is no time"),
        (["launch=slurm", "launch.time=0h"], "a job needs some time"),
        (["launch=slurm", "launch.memory=32"], "launch.memory=32 is no amount of memory"),
        (["launch=slurm", "launch.cluster=pbs"], "unknown cluster 'pbs'"),
        (["launch=slurm", "launch.tasks=0"], "launch.tasks=0 is impossible: the least is 1"),
        (["launch=slurm", "launch.cluster=local", "launch.nodes=2"], "this machine: one node"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(UsageError) as raised:
        take(words)
    assert sentence in str(raised.value)


def test_inside_torchrun_no_other_launcher_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    check(Here())
    with pytest.raises(UsageError, match=r"launch=joblib starts processes of its own .* torchrun"):
        check(Joblib())


def test_slurm_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find_spec = importlib.util.find_spec
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None if name == "submitit" else find_spec(name))
        with pytest.raises(UsageError, match=r"pip install 'wsolbench\[slurm\]'"):
            check(Slurm())
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="no 'sbatch' on this machine"):
        check(Slurm())
    check(Slurm(cluster="local"))


def test_the_command_line_refuses_before_anything_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--methods", "center-box", "--out", str(tmp_path / "out"), "launch=jobib"]) == 2
    assert "did you mean 'joblib'?" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
