"""Several processes: what they compute together is what one computes; they agree, stop and fail together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from wsolbench import distributed
from wsolbench.data.loading import eval_batches, train_steps
from wsolbench.distributed import group
from wsolbench.errors import UsageError
from wsolbench.record import comparable, read_record
from wsolbench.training.replica import check_shares

ROOT = Path(__file__).parents[2]
KILLED, INTERRUPTED = -9, 130
LIST = ["tiny", "raises", "certain", "shared-a", "shared-b", "centre"]
NETWORKS = [["sat", "badges_vit.s0"], ["tscam", "badges_vit.s0"], ["cam", "badges_vit.s0"], ["cam", "badges_cnn"]]
EVERY_BATCH = {"save_every": 0.0}


@dataclass
class Case:
    """Some processes that do something; `out` is shared by cases that go on with what an earlier one has left."""

    act: str
    arguments: list[Any]
    out: str = ""
    processes: int = 2
    only: dict[str, dict[str, str]] = field(default_factory=dict)  # environment of one of them
    eager: bool = False


def runs(methods: list[str], changes: dict[str, Any] | None = None, **more: Any) -> Case:
    return Case("runs", [methods, changes or {}], **more)


CASES = {
    "gradients": Case("gradients", []),
    "losses, one": Case("losses", [NETWORKS, 20, 5], processes=1),
    "losses": Case("losses", [NETWORKS, 20, 5]),
    "losses in parts": Case("losses", [NETWORKS[:1], 20, 5, 2]),
    "list, one": runs(LIST, processes=1),
    "list": runs(LIST, out="list"),
    "list again": runs(LIST, out="list"),
    "evaluated by one": Case("evaluations", [LIST, {}], out="list", processes=1),
    "select": runs(["certain"], {"checkpoint": "val-boxes", "trials": 2, "space": "SPACE"}),
    "fails in a step": runs(["steady", "centre"], only={"1": {"FAIL_AT_LOSS": "4"}}),
    "fails amid others": runs(["certain", "centre"], only={"1": {"FAIL_AT_LOSS": "4"}}),
    "fails in evaluation": runs(["certain", "centre"], only={"1": {"FAIL_AT_BATCH": "1"}}),
    "whole": runs(["interrupted"]),
    "stops in training": runs(["interrupted"], only={"1": {"INTERRUPT_AT_LOSS": "4"}}, out="stop"),
    "stops, goes on": runs(["interrupted"], out="stop"),
    "stops in evaluation": runs(["interrupted"], only={"0": {"INTERRUPT_AT_BATCH": "1"}}, out="stop2"),
    "one goes on": runs(["interrupted"], out="stop2", processes=1),
    "killed": runs(["interrupted"], only={"1": {"KILL_AT_LOSS": "4"}}, out="kill", eager=True),
    "killed, goes on": runs(["interrupted"], out="kill"),
    "leader killed": runs(["interrupted"], only={"0": {"KILL_AT_LOSS": "4"}}, out="kill2", eager=True),
    "leader killed, goes on": runs(["interrupted"], out="kill2"),
    "killed in evaluation": runs(["interrupted"], EVERY_BATCH, only={"1": {"KILL_AT_BATCH": "1"}}, out="kill3"),
    "killed in evaluation, goes on": runs(["interrupted"], EVERY_BATCH, out="kill3"),
}


@dataclass
class Ended:
    codes: list[int]
    folder: Path

    @property
    def left(self) -> Path:
        """The output folder when the case ended."""
        return self.folder / "left"

    def printed(self, rank: int) -> str:
        return (self.folder / f"{rank}.err").read_text() + (self.folder / f"{rank}.out").read_text()

    def run(self, method: str) -> Path:
        (path,) = self.left.glob(f"runs/fake-data/{method}/-/*/*")
        return path


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """Every case, carried out."""
    base = tmp_path_factory.mktemp("several")
    space = base / "space.yaml"
    space.write_text("space:\n  - for: {methods: ['*']}\n    train: {lr: {log-uniform: [1.0e-3, 1.0e-2]}}\n")
    cases = []
    for number, case in enumerate(CASES.values()):
        folder = base / str(number)
        text = json.dumps([str(base / case.out if case.out else folder / "out"), *case.arguments])
        arguments = json.loads(text.replace("SPACE", str(space)))
        cases.append({**vars(case), "folder": str(folder), "arguments": arguments})
    (base / "cases.json").write_text(json.dumps(cases))
    paths = [str(path) for path in (ROOT, ROOT / "methods", ROOT / "datasets", ROOT / "tests/support")]
    env = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/support/dist_child.py"), str(base / "cases.json")],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=500,
        env=os.environ | env,
    )
    codes = json.loads(done.stdout)
    return {name: Ended(codes[number], base / str(number)) for number, name in enumerate(CASES)}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def same_run(a: Path, b: Path, processes: bool = True) -> bool:
    """Two finished runs have equal records and outcomes; `processes=False`: but for how many worked on them."""
    records = [comparable(read_record(path / "record.json")) for path in (a, b)]
    for record in records:
        record["config"]["evaluate"].pop("save_every")
        if not processes:
            record["provenance"].pop("processes", None)
    files = all((a / name).read_bytes() == (b / name).read_bytes() for name in ("levels.npz", "images.csv.gz"))
    return files and records[0] == records[1]


# --- the same numbers ------------------------------------------------------------------------------------------------

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("method", "backbone"), NETWORKS)
def test_losses_are_those_of_one_process(ended: dict[str, Ended], method: str, backbone: str) -> None:
    """Twenty steps on five images, of which one process has two and the other three, others at each step."""
    one, two = (lines(ended[name].left / f"{method}-{backbone}") for name in ("losses, one", "losses"))
    assert len(one) == len(two) == 20
    assert one[-1]["loss"] < 0.9 * one[0]["loss"]  # something was learned, so weights were compared too
    for a, b in zip(one, two, strict=True):
        assert a["images"] == b["images"] == 5
        assert b["losses"] == pytest.approx(a["losses"], rel=0, abs=1e-9)
        assert b["loss"] == pytest.approx(a["loss"], rel=0, abs=1e-9)


def test_shares_may_be_taken_in_parts(ended: dict[str, Ended]) -> None:
    """SAT's area term is neither a mean over parts nor over processes."""
    name = "sat-badges_vit.s0"
    one, two = (lines(ended[case].left / name) for case in ("losses, one", "losses in parts"))
    assert len(two) == 20
    for a, b in zip(one, two, strict=True):
        assert b["losses"] == pytest.approx(a["losses"], rel=0, abs=1e-9)


def test_gradients_and_batch_statistics_are_those_of_the_whole_batch(ended: dict[str, Ended]) -> None:
    """Two images in one process and five in the other, through a batch norm: gradients, running mean and variance."""
    base = ended["gradients"].folder
    wanted = torch.load(base / "out.wanted", weights_only=True)
    for rank in range(2):
        found = torch.load(base / f"out.found.{rank}", weights_only=True)
        assert len(found) == len(wanted) == 8
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["tiny", "certain", "shared-a", "shared-b", "centre"])
def test_evaluation_in_shares_is_evaluation_bit_for_bit(ended: dict[str, Ended], method: str) -> None:
    """The weights that two processes trained, evaluated by both and by one; `tiny` draws for every batch."""
    assert same_run(ended["list"].run(method), ended["evaluated by one"].run(method), processes=False)


# --- one list, one voice ---------------------------------------------------------------------------------------------


def test_runs_that_fail_everywhere_leave_the_others_alone(ended: dict[str, Ended]) -> None:
    one, two = ended["list, one"], ended["list"]
    assert (one.codes, two.codes) == ([1], [1, 1])
    assert two.printed(0).count("failed (ZeroDivisionError: the map is empty)") == 1
    assert two.printed(0).count(": done in") == 5
    assert two.printed(1) == ""
    assert (two.run("raises") / "failed.json").is_file()
    files = [{path.relative_to(case.left).name for path in case.left.rglob("*")} for case in (one, two)]
    assert {name for name in files[0] if "-" not in name} == {name for name in files[1] if "-" not in name}


def test_finished_runs_are_skipped_by_all(ended: dict[str, Ended]) -> None:
    again = ended["list again"]
    assert again.codes == [1, 1]
    assert again.printed(0).count("skipped") == 5
    assert again.printed(1) == ""


def test_records_say_how_many_worked_on_them(ended: dict[str, Ended]) -> None:
    records = [read_record(ended[name].run("centre") / "record.json") for name in ("list, one", "list")]
    assert [record.provenance.get("processes") for record in records] == [None, 2]


def test_search_and_selection_of_checkpoints(ended: dict[str, Ended]) -> None:
    case = ended["select"]
    assert case.codes == [0, 0], case.printed(0)
    record = read_record(case.run("certain") / "record.json")
    assert record.ledger.search["trials"] == 2
    assert record.ledger.checkpoints > 1


@pytest.mark.parametrize(
    ("name", "method", "next_run"),
    [
        ("fails in a step", "steady", "done"),
        ("fails amid others", "certain", "failed (not begun: the processes have lost each other)"),
        ("fails in evaluation", "certain", "done"),
    ],
)
def test_what_goes_wrong_in_one_process_ends_the_run_in_all(
    ended: dict[str, Ended], name: str, method: str, next_run: str
) -> None:
    """Said once. Where the others wait inside of a batch norm for the one that failed, nothing more can be done."""
    case = ended[name]
    assert case.codes == [1, 1]
    assert case.printed(0).count("process 1: ZeroDivisionError: only here") == 1
    assert f"[2/2] centre on fake-data (-, full, seed 0): {next_run}" in case.printed(0)
    assert "Traceback" not in case.printed(0)
    assert case.printed(1) == ""
    failed = json.loads((case.run(method) / "failed.json").read_text())
    assert failed["reason"] == "process 1: ZeroDivisionError: only here"


# --- stopped and killed ----------------------------------------------------------------------------------------------


def test_an_interrupt_of_one_process_stops_all_at_the_same_step(ended: dict[str, Ended]) -> None:
    case = ended["stops in training"]
    assert case.codes == [INTERRUPTED, INTERRUPTED]
    state = torch.load(case.run("interrupted") / "state.pt", weights_only=True)
    assert state["step"] == 5
    assert case.printed(0).count("interrupted, its state is saved") == 1
    assert case.printed(1) == ""
    assert same_run(ended["stops, goes on"].run("interrupted"), ended["whole"].run("interrupted"))
    assert lines_without_times(ended["stops, goes on"]) == lines_without_times(ended["whole"])


def lines_without_times(case: Ended) -> list[dict[str, Any]]:
    found = lines(case.run("interrupted"))
    return [{key: value for key, value in line.items() if "second" not in key} for line in found]


def test_another_number_of_processes_takes_up_an_evaluation(ended: dict[str, Ended]) -> None:
    assert ended["stops in evaluation"].codes == [INTERRUPTED, INTERRUPTED]
    assert list((ended["stops in evaluation"].run("interrupted") / "partial").glob("val-*.npz"))
    case = ended["one goes on"]
    assert case.codes == [0]
    assert same_run(case.run("interrupted"), ended["whole"].run("interrupted"), processes=False)


@pytest.mark.parametrize(
    ("name", "codes", "speaker"),
    [("killed", [1, KILLED], 0), ("leader killed", [KILLED, 1], 1), ("killed in evaluation", [1, KILLED], 0)],
)
def test_the_loss_of_a_process_is_one_sentence_and_the_run_resumes(
    ended: dict[str, Ended], name: str, codes: list[int], speaker: int
) -> None:
    case = ended[name]
    assert case.codes == codes
    assert case.printed(speaker).count(group.LOST) == 1
    assert "Traceback" not in case.printed(speaker)
    assert not (case.run("interrupted") / "record.json").exists()
    if "evaluation" not in name:
        assert torch.load(case.run("interrupted") / "state.pt", weights_only=True)["step"] == 4
    assert ended[f"{name}, goes on"].codes == [0, 0]
    assert same_run(ended[f"{name}, goes on"].run("interrupted"), ended["whole"].run("interrupted"))


# --- as users start it -----------------------------------------------------------------------------------------------


def test_torchrun(tmp_path: Path) -> None:
    """One command line, one table, one summary, whatever the number of processes."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    what = ["--methods", "cam,center-box", "--backbone", "badges_cnn", "--device", "cpu", "--out", str(tmp_path)]
    paths = [str(path) for path in (ROOT, ROOT / "methods", ROOT / "datasets")]
    started = subprocess.run(
        [sys.executable, *torchrun, "-m", "wsolbench", "run", *what, "train.steps=2", "train.batch_size=8"],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
    )
    assert started.returncode == 0, started.stderr
    assert started.stdout.count("2 runs: 2 done") == 1
    assert started.stderr.count("[1/2] cam on badges (badges_cnn, full, seed 0): running") == 1
    assert "Warning" not in started.stderr
    records = [read_record(path) for path in tmp_path.rglob("record.json")]
    assert {record.method for record in records} == {"cam", "center-box"}
    assert {record.provenance["processes"] for record in records} == {2}


# --- by itself -------------------------------------------------------------------------------------------------------


def test_shares_make_up_the_batches_of_one_process() -> None:
    from engine_fakes import FakeSplit

    split = FakeSplit("test", per_class=6)  # 18 images
    steps: dict[str, Any] = {"batch_size": 7, "seed": 3, "first": 1, "last": 5}
    whole = [batch.ids for batch in train_steps(split, range(18), **steps)]
    shares = [[batch.ids for batch in train_steps(split, range(18), **steps, share=(i, 3))] for i in range(3)]
    assert [[id for ids in step for id in ids] for step in zip(*shares, strict=True)] == whole
    assert {len(ids) for share in shares for ids in share} == {2, 3}
    for count in (2, 3, 4, 9):
        batches = [[batch.ids for batch in eval_batches(split, batch_size=4, share=(i, count))] for i in range(count)]
        taken = [batches[number % count][number // count] for number in range(5)]
        assert taken == [batch.ids for batch in eval_batches(split, batch_size=4)]
        assert sum(map(len, batches)) == 5


def test_a_process_by_itself_has_no_group() -> None:
    assert (distributed.rank(), distributed.world(), distributed.is_main(), distributed.apart()) == (0, 1, True, ())
    assert distributed.from_main(lambda: 3) == 3
    assert distributed.gather("a") == ["a"]
    assert distributed.any_of(True)
    with pytest.raises(KeyError), distributed.turn():
        raise KeyError
    assert not torch.distributed.is_initialized()


def test_batches_too_small_to_share_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_shares(3, parts=8)  # by itself a process may take whatever there is
    monkeypatch.setattr(distributed, "world", lambda: 4)
    check_shares(8, parts=2)
    with pytest.raises(
        UsageError, match="a batch of 3 images cannot be shared by 4 processes: start at most 3, or raise"
    ):
        check_shares(3)


def test_processes_without_a_meeting_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with (
        pytest.raises(UsageError, match="MASTER_ADDR and MASTER_PORT not set: start several processes with torchrun"),
        distributed.joined(),
    ):
        pass


def test_only_run_takes_several_processes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from wsolbench.cli.main import main

    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, said in (("0", "'wsolbench list' is the work of one process: start it without torchrun"), ("1", "")):
        monkeypatch.setenv("RANK", rank)
        assert main(["list"]) == 2
        assert said in capsys.readouterr().err
    assert capsys.readouterr().err == ""


def test_each_process_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from wsolbench.runs.opening import resolve_device
    from wsolbench.system.preflight import check_device

    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(distributed, "world", lambda: 4)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda", 2)
    assert resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match="each of several processes takes a GPU of its own; use --device cuda"):
        check_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match="process 2 of this machine needs a GPU of its own, and there are 2"):
        check_device("auto")
