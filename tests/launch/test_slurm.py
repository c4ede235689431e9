"""Runs as SLURM jobs: real jobs of submitit on this machine, and what sbatch is told where there is none."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import stat
from dataclasses import replace
from pathlib import Path

import dist_child  # noqa: F401 (registers a method)
import pytest
from engine_fakes import fake_config
from rich.console import Console

from wsolbench.cli.main import main
from wsolbench.config.schema import RunConfig
from wsolbench.errors import UsageError
from wsolbench.launch.here import run_all
from wsolbench.launch.options import Slurm
from wsolbench.record import comparable
from wsolbench.runs.engine import Outcome
from wsolbench.runs.opening import Session, open_job
from wsolbench.system.progress import Reporter, Silent

pytest.importorskip("submitit")
from submitit.slurm.slurm import SlurmJob

from wsolbench.launch import with_slurm

ROOT = Path(__file__).parents[2]


def submitted(launcher: Slurm, configs: list[RunConfig]) -> tuple[list[Outcome], list[str]]:
    """Outcomes of jobs, and what was said."""
    text = io.StringIO()
    outcomes = with_slurm.run_all(launcher, configs, reporter=Reporter(Console(file=text)), poll=0.2)
    return outcomes, text.getvalue().splitlines()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path with an sbatch that keeps the script it is given, and a sacct that knows nothing."""
    folder = tmp_path / "bin"
    folder.mkdir()
    command(folder / "sbatch", f'cp "$1" {tmp_path}/script.sh; echo "Submitted batch job 77"')
    command(folder / "srun", "exit 1")
    command(folder / "sacct", "true")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(SlurmJob.watcher, "_delay_s", 0)
    SlurmJob.watcher.clear()
    return folder


def command(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.mark.slow
def test_jobs_leave_what_one_process_leaves_though_one_is_preempted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [str(path) for path in (ROOT, ROOT / "methods", ROOT / "datasets", ROOT / "tests/support")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("PREEMPTED", str(tmp_path / "once"))
    names = ["preempted", "shared-a", "shared-b"]
    configs = [fake_config(tmp_path / "slurm", name) for name in names]
    outcomes, lines = submitted(Slurm(cluster="local", time="1h"), configs)
    assert [outcome.status for outcome in outcomes] == ["done", "done", "done"]
    assert (tmp_path / "once").exists()
    whole = run_all([fake_config(tmp_path / "here", name) for name in names], reporter=Silent())
    for ours, theirs in zip(outcomes, whole, strict=True):
        assert ours.record is not None
        assert theirs.record is not None
        assert comparable(ours.record) == comparable(theirs.record)
    assert lines[0].startswith("launch=slurm: 2 jobs submitted (")
    assert sum(line.startswith("[1/3] preempted") and line.endswith(": running") for line in lines) == 2
    assert sum(": done in " in line for line in lines) == 3
    logs = "".join(path.read_text() for path in (tmp_path / "slurm" / "slurm").rglob("*_log.*"))
    assert "this job is preempted" in logs
    assert logs.count("Requeued job") == 1


@pytest.mark.slow
def test_a_job_of_two_processes_leaves_what_one_process_leaves_though_it_is_preempted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [str(path) for path in (ROOT, ROOT / "methods", ROOT / "datasets", ROOT / "tests/support")]
    for name, value in {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PREEMPTED", str(tmp_path / "once"))
    config = fake_config(tmp_path / "slurm", "certain-preempted")
    (outcome,), lines = submitted(Slurm(cluster="local", time="1h", tasks=2), [config])
    assert outcome.status == "done", outcome.reason
    assert outcome.record is not None
    assert outcome.record.provenance["processes"] == 2
    assert (tmp_path / "once0").exists()  # the first process was told to go
    assert sum(line.startswith("[1/1] certain-preempted") and line.endswith(": running") for line in lines) == 2
    assert sum(": done in " in line for line in lines) == 1
    logs = "".join(path.read_text() for path in (tmp_path / "slurm" / "slurm").rglob("*_log.*"))
    assert logs.count("Requeued job") == 1

    (tmp_path / "once").touch()  # a process by itself stays
    (alone,) = run_all([fake_config(tmp_path / "here", "certain-preempted")], reporter=Silent())
    two, one = (losses(each.directory) for each in (outcome, alone))
    assert len(two) == len(one) == 3  # one an epoch
    assert two == pytest.approx(one, abs=1e-5)

    found = comparable(outcome.record)  # and the same scores as one process with these weights
    (Path(str(outcome.directory)) / "record.json").unlink()
    (again,) = run_all([config], reporter=Silent())
    assert again.record is not None
    scored = comparable(again.record)
    assert found["provenance"].pop("processes") == 2
    scored["provenance"].pop("processes", None)
    assert scored == found


def losses(run: Path | None) -> list[float]:
    return [json.loads(line)["loss"] for line in (Path(str(run)) / "train.jsonl").read_text().splitlines()]


def test_options_reach_sbatch(cluster: Path, tmp_path: Path) -> None:
    launcher = Slurm(
        partition="gpu",
        account="lab",
        qos="long",
        constraint="a100",
        exclude="n[1-3]",
        time="1d",
        memory="32G",
        cpus=8,
        gpus=1,
        parallel=20,
        setup=["module load cuda"],
        sbatch={"reservation": "maint"},
        wait=False,
    )
    configs = [fake_config(tmp_path, "tiny", seed=seed, device="auto") for seed in range(30)]
    outcomes, lines = submitted(launcher, [*configs, fake_config(tmp_path, "shared-a", device="auto")])
    assert {outcome.status for outcome in outcomes} == {"submitted"}
    assert lines[0].startswith("launch=slurm: 31 jobs submitted (77), logs in ")
    script = (tmp_path / "script.sh").read_text()
    told = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", script, re.MULTILINE))
    expected = {
        "account": "lab",
        "array": "0-30%20",
        "constraint": "a100",
        "cpus-per-task": "8",
        "exclude": "'n[1-3]'",
        "gpus-per-node": "1",
        "job-name": "wsolbench",
        "mem": "32GB",
        "nodes": "1",
        "ntasks-per-node": "1",
        "partition": "gpu",
        "qos": "long",
        "reservation": "maint",
        "signal": "USR2@90",
        "time": "1440",
    }
    assert expected.items() <= told.items()
    assert "\nmodule load cuda\n" in script
    assert re.search(r"^srun .* -m submitit.core._submit ", script, re.MULTILINE)


def test_processes_of_a_job_reach_sbatch_with_a_gpu_each(cluster: Path, tmp_path: Path) -> None:
    configs = [fake_config(tmp_path, "tiny", device="auto")]
    for launcher, gpus in ((Slurm(nodes=2, tasks=8), 8), (Slurm(nodes=2, tasks=2, gpus=4), 4)):
        submitted(replace(launcher, wait=False), configs)
        told = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", (tmp_path / "script.sh").read_text(), re.MULTILINE))
        expected = {"nodes": "2", "ntasks-per-node": str(launcher.tasks), "gpus-per-node": str(gpus)}
        assert expected.items() <= told.items()
    submitted(Slurm(tasks=4, wait=False), [fake_config(tmp_path, "tiny")])
    script = (tmp_path / "script.sh").read_text()
    assert "--ntasks-per-node=4" in script
    assert "gpus" not in script
    submitted(Slurm(tasks=4, gpus=0, wait=False), configs)
    with pytest.raises(UsageError, match=r"launch\.tasks=4 with launch\.gpus=2: each process .* use launch\.gpus=4"):
        submitted(Slurm(tasks=4, gpus=2), configs)


def test_done_runs_are_not_submitted_and_no_run_is_a_job_without_gpu_that_asks_for_one(
    cluster: Path, tmp_path: Path
) -> None:
    first, second = (fake_config(tmp_path, "centre", seed=seed) for seed in (0, 1))
    assert run_all([first], reporter=Silent())[0].status == "done"
    outcomes, lines = submitted(Slurm(wait=False), [first, second])
    assert [outcome.status for outcome in outcomes] == ["skipped", "submitted"]
    assert "gpus" not in (tmp_path / "script.sh").read_text()
    assert lines[1].startswith("launch=slurm: 1 job submitted (77)")


def test_a_job_that_ends_without_a_word_is_a_failure_by_its_state(cluster: Path, tmp_path: Path) -> None:
    command(cluster / "sacct", "printf 'JobID|State|NodeList\\n77_0|OUT_OF_MEMORY|n1\\n77_1|CANCELLED by 5|n2\\n'")
    outcomes, _ = submitted(Slurm(), [fake_config(tmp_path, "tiny", seed=seed) for seed in (0, 1)])
    assert [outcome.status for outcome in outcomes] == ["failed", "failed"]
    assert outcomes[0].reason.startswith("SLURM job 77_0 ended as OUT_OF_MEMORY; see ")
    assert outcomes[1].reason.startswith("SLURM job 77_1 ended as CANCELLED")


def test_what_sbatch_refuses_is_said_in_its_words(cluster: Path, tmp_path: Path) -> None:
    command(cluster / "sbatch", "echo 'sbatch: error: invalid partition specified: gpuu' >&2; exit 1")
    with pytest.raises(UsageError, match=r"sbatch refused the jobs: .*invalid partition specified: gpuu"):
        submitted(Slurm(partition="gpuu"), [fake_config(tmp_path, "tiny")])


@pytest.mark.parametrize(
    ("number", "status", "why"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGALRM, 75, "stopped for --max-time 1h")],
)
def test_who_stops_waiting_leaves_the_jobs_and_hears_how_to_end_them(
    cluster: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
    status: int,
    why: str,
) -> None:
    """By Ctrl-C, or because the time is up."""

    def interrupt(seconds: float) -> None:
        os.kill(os.getpid(), number)

    monkeypatch.setattr(with_slurm.time, "sleep", interrupt)
    command(cluster / "sacct", "printf 'JobID|State|NodeList\\n77|RUNNING|n1\\n'")
    words = ["run", "--methods", "center-box", "--out", str(tmp_path), "--max-time", "1h", "launch=slurm"]
    assert main(words) == status
    said = capsys.readouterr()
    assert f"launch=slurm: {why}, no longer waiting, but the jobs go on; scancel 77 ends them" in said.err
    assert "1 run: 1 submitted" in said.out


def test_jobs_find_the_device_of_their_machine_not_of_this_one(cluster: Path, tmp_path: Path) -> None:
    """Else a finished run on a GPU would not be recognised where jobs are submitted."""
    import torch

    config = fake_config(tmp_path, "centre", device="auto")
    outcomes, _ = submitted(Slurm(wait=False), [config])
    there = open_job(config, Session(), torch.device("cuda")).directory.path
    assert outcomes[0].directory == there
    assert "--gpus-per-node=1" in (tmp_path / "script.sh").read_text()
    with pytest.raises(UsageError, match="SLURM gives its jobs their devices"):
        submitted(Slurm(), [fake_config(tmp_path, "centre", device="cuda:1")])
    with pytest.raises(UsageError, match=r"launch\.gpus=0 contradict"):
        submitted(Slurm(gpus=0), [fake_config(tmp_path, "centre", device="cuda")])


def test_the_command_submits_and_says_where_results_will_be(
    cluster: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "--methods", "center-box", "--out", str(tmp_path), "launch=slurm", "launch.wait=false"]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "1 run: 1 submitted" in said.out
    assert "wsolbench leaderboard" in said.out
