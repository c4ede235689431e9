"""The verbs as users type them. What a verb calls is replaced by stand-ins; journeys test the real thing."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from wsolbench import __version__
from wsolbench.cli.main import build_parser, main
from wsolbench.cli.parser import parsers_of
from wsolbench.config.saved import to_yaml
from wsolbench.config.schema import RunConfig
from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.launch.options import Here, Joblib, Launcher
from wsolbench.profile import Request
from wsolbench.registry import DATASETS, METHODS, Entry

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Empty:
    pass


@dataclass
class SatConfig:
    area: float = 0.2
    area_weight: float = 1.0
    masked_blocks: int = 3


def fake(config: type, backbone: str | None = None) -> Any:
    class Fake:
        Config: ClassVar[type] = config
        default_backbone: ClassVar[str | None] = backbone

    return Fake


@dataclass
class Outcome:
    config: RunConfig
    directory: Path | None
    status: str
    reason: str = ""
    record: Any = None


class Stage:
    """Stand-ins for what verbs call, and what they were called with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, Any, Any]] = []
        self.statuses: dict[str, str] = {}  # of a method; "done" where none is given
        self.interrupt = False
        self.launcher: Launcher = Here()
        self.monkeypatch = monkeypatch

    def replace(self, module_name: str, **functions: Any) -> None:
        module = ModuleType(f"wsolbench.{module_name}")
        for name, function in functions.items():
            setattr(module, name, function)
        self.monkeypatch.setitem(sys.modules, module.__name__, module)

    def run_by(self, launcher: Launcher, configs: list[RunConfig], *, rerun: bool = False) -> list[Outcome]:
        self.launcher = launcher
        self.calls.append(("run_all", configs, rerun))
        if self.interrupt:
            raise KeyboardInterrupt
        outcomes = []
        for config in configs:
            name = config.method["name"]
            status = self.statuses.get(name, "done")
            failed = status == "failed"
            reason, record = ("it raised ValueError", None) if failed else ("", f"{name}/{config.seed}")
            outcomes.append(Outcome(config, Path("results/runs") / name, status, reason, record))
        return outcomes

    def backbones(self, name: str) -> str:
        if name not in ("vit", "cnn", "badges_cnn", "badges_vit.s0"):
            raise UsageError(f"unknown backbone '{name}'")
        return "vit"

    def render(self, records: list[Any], format: str) -> str | None:
        self.calls.append(("render", records, format))
        return f"TABLE of {records}"

    def note(self, name: str, answer: Any = None) -> Any:
        def called(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            return answer

        return called


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stage:
    made = Stage(monkeypatch)
    monkeypatch.chdir(tmp_path)
    methods = {"sat": fake(SatConfig, "vit"), "cam": fake(Empty, "cnn"), "center-box": fake(Empty)}
    for registry, classes in ((METHODS, methods), (DATASETS, {"badges": fake(Empty)})):
        monkeypatch.setattr(registry, "_classes", classes)
        monkeypatch.setattr(
            registry, "_entries", {name: Entry(name, "m", "C", "", Path("m.py"), 1) for name in classes}
        )
    made.replace("backbones", check_backbone=made.backbones)
    made.replace("launch.start", run_by=made.run_by)
    monkeypatch.setattr("wsolbench.leaderboard.view.render", made.render)  # the rest of it is read by another module
    made.replace("profile", profile=made.note("profile", 0), Request=Request)
    made.replace("backbones.embedded", list_backbones=lambda: ["badges_cnn", "badges_vit.s0"])
    made.replace("backbones.pretrain", pretrain=made.note("pretrain", {"path": "weights"}))
    made.replace("data.contact_sheet", write_contact_sheet=made.note("sheet", Path("sheet.png")))
    return made


def refused(capsys: pytest.CaptureFixture[str], *words: str, status: int = 2) -> str:
    """The one sentence on stderr that a wrong request gets."""
    assert main(words) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("wsolbench: ")
    return line.removeprefix("wsolbench: ")


def test_the_command_line_is_frozen() -> None:
    """Scripts depend on it: a verb or a flag may be added here, never taken away or renamed."""

    def flags(parser: argparse.ArgumentParser) -> list[str]:
        actions = [action for action in parser._actions if not isinstance(action, argparse._SubParsersAction)]
        return [name for action in actions for name in (action.option_strings or [action.dest])]

    verbs = parsers_of(build_parser())
    frozen = {
        "run": "--methods --dataset --root --backbone --protocol --seeds --device --out --search --search-by --track "
        "--config --rerun --max-time",
        "evaluate": (
            "--maps --dataset --root --split --logits --map-kind --convention --geometry --interval --contours "
            "--name --backbone --val-maps --out --rerun --max-time"
        ),
        "leaderboard": (
            "results --format --write --dataset --protocol --method --backbone --metric --sort --spread --pivot "
            "--reported --contradictions --matrix --compare --force"
        ),
        "report": "runs -o --out --images --ids --no-maps",
        "profile": (
            "--methods --dataset --backbone --device --batch-size --image-size --out --dtype --compile --channels-last "
            "--work --classes --seconds --no-memory --results"
        ),
        "list": "what",
        "data": "",
        "pretrain": "--backbone --seed --scale --out",
    }
    assert {name: flags(verb) for name, verb in verbs.items()} == {
        name: ["-h", "--help", *text.split()] for name, text in frozen.items()
    }
    nested = parsers_of(verbs["data"])
    assert {name: flags(verb) for name, verb in nested.items()} == {
        "show": ["-h", "--help", "name", "--root", "--split", "--count", "--seed", "-o", "--out"],
        "init": ["-h", "--help", "folder"],
        "check": ["-h", "--help", "name", "--root", "--splits", "--quick", "--json", "--workers"],
        "draw": ["-h", "--help", "name", "--root", "--shots", "--val-per-class", "--seed", "-o", "--out"],
        "pseudo-boxes": [
            "-h", "--help", "name", "--root", "--split", "--source", "--classifier", "--weights", "--class-names",
            "--rated", "--seed", "--device", "--workers", "-o", "--out",
        ],
    }  # fmt: skip


def all_parsers() -> dict[str, argparse.ArgumentParser]:
    found = {"": build_parser()}
    for name, parser in parsers_of(found[""]).items():
        found[name] = parser
        found |= {f"{name} {inner}": deep for inner, deep in parsers_of(parser).items()}
    return found


@pytest.mark.parametrize("verb", [""] + [name for name in all_parsers() if name])
def test_help_shows_an_example_that_the_parser_accepts(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*verb.split(), "--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert "example (works offline, on a laptop):" in printed
    example = printed.strip().splitlines()[-1].split()
    assert example[0] == "wsolbench"
    _, rest = build_parser().parse_known_args(example[1:])
    assert all("=" in word and not word.startswith("-") for word in rest)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"wsolbench {__version__}\n"


def test_run_composes_in_any_order_and_prints_the_table_of_its_runs(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train.epochs=3", "run", "--seeds", "0,1", "sat.area=0.4", "--methods", "sat,cam", "--device", "cpu"]
    words = [words[1], words[0], *words[2:]]
    assert main(words) == 0
    (_, configs, rerun), (_, records, format) = stage.calls
    assert [(config.method["name"], config.seed) for config in configs] == [
        ("sat", 0), ("cam", 0), ("sat", 1), ("cam", 1)
    ]  # fmt: skip
    assert {config.train.epochs for config in configs} == {3}
    assert configs[0].method["area"] == 0.4
    assert (rerun, format, records) == (False, "table", ["sat/0", "cam/0", "sat/1", "cam/1"])
    printed = capsys.readouterr().out
    assert printed.endswith(f"records: {Path('results/runs')}\nas a page: wsolbench report results\n")
    assert "4 runs: 4 done" in printed
    assert printed.index("4 runs") < printed.index("TABLE of ['sat/0'")


def test_run_says_to_which_methods_a_key_applies(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--methods", "sat,cam", "method.area=0.3"]) == 0
    assert capsys.readouterr().err == "method.area=0.3 applies to sat; not to cam\n"


def test_a_failed_run_is_named_and_the_others_are_shown(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.statuses = {"sat": "failed", "cam": "skipped"}
    assert main(["run", "--methods", "sat,cam,center-box", "--rerun"]) == 1
    captured = capsys.readouterr()
    assert "3 runs: 1 done, 1 done before (--rerun repeats them), 1 failed" in captured.out
    assert captured.err == f"failed: {Path('results/runs/sat')}: it raised ValueError\n"
    assert [call[0] for call in stage.calls] == ["run_all", "render"]
    assert stage.calls[0][2] is True
    assert stage.calls[1][1] == ["cam/0", "center-box/0"]


def test_how_runs_are_launched_is_no_part_of_them(stage: Stage, tmp_path: Path) -> None:
    words = ["run", "--methods", "sat", "method.area=0.3"]
    assert main(words) == main([*words, "launch=joblib", "launch.jobs=2"]) == 0
    assert stage.launcher == Joblib(jobs=2)
    (first,), (second,) = (call[1] for call in stage.calls if call[0] == "run_all")
    assert first == second
    (tmp_path / "run.yaml").write_text(to_yaml(first))
    assert main(["run", "--config", str(tmp_path / "run.yaml"), "launch=joblib"]) == 0
    assert stage.launcher == Joblib()


def test_ctrl_c_says_how_to_resume(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.interrupt = True
    assert main(["run", "--methods", "sat", "checkpoint='a b'"]) == 130
    message = capsys.readouterr().err
    assert "resume with the same command: wsolbench run --methods sat" in message
    assert "Traceback" not in message


def test_run_repeats_a_config_file(stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = RunConfig(
        {"name": "sat", "area": 0.3, "area_weight": 1.0, "masked_blocks": 3}, {"name": "badges"}, backbone="vit", seed=4
    )
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert main(["run", "--config", str(path)]) == 0
    assert stage.calls[0][1] == [config]
    capsys.readouterr()
    assert "leave out --methods" in refused(capsys, "run", "--config", str(path), "--methods", "sat")
    assert "leave out 'seed=1'" in refused(capsys, "run", "--config", str(path), "seed=1")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("rnu", "unknown verb 'rnu', did you mean 'run'?"),
        ("evaluate", "the following arguments are required: --maps, --dataset"),
        ("--methods", "'--methods' needs a verb before it"),
        ("run", "say what to run with --methods A,B. Known: cam, center-box, sat"),
        ("run --methods satt", "unknown method 'satt', did you mean 'sat'?"),
        ("run --methods sat --dataset badge", "unknown data set 'badge', did you mean 'badges'?"),
        ("run --methods sat --protocol fulll", "unknown protocol 'fulll', did you mean 'full'?"),
        ("run --methods sat --backbone vti", "unknown backbone 'vti'"),
        ("run --methods sat --device gpu", "unknown device 'gpu'"),
        ("run --methods sat --device cudda", "unknown device 'cudda', did you mean 'cuda'?"),
        ("run --methods sat --device cpu:1", "unknown device 'cpu:1'"),
        ("run --methods sat train.epoch=1", "unknown key 'train.epoch', did you mean 'train.epochs'?"),
        ("run --methods sat --seeds 0,x", "--seeds 0,x: expected whole numbers from 0"),
        ("run --methods sat --seeds 0,-1", "--seeds 0,-1: expected whole numbers from 0"),
        ("run --methods sat --seeds 0 seed=1", "--seeds and 'seed=1' contradict each other"),
        ("run --methods sat --sedes 0", "unknown flag '--sedes' of 'wsolbench run', did you mean '--seeds'?"),
        ("run --methods sat --train.epochs=1", "options of a run are written key=value, without dashes"),
        ("run --methods sat cam", "'cam' is neither a flag nor key=value"),
        ("run --methods", "expected one argument"),
        ("report", "the following arguments are required: RUN"),
        ("report nowhere", "'nowhere' is no run directory and no folder of results"),
        ("report . --images -1", "--images -1: expected a whole number from 0"),
        ("report . -o .", "-o '.' is a folder: name a file"),
        ("leaderboard nowhere", "'nowhere' is no folder of results"),
        ("leaderboard . --format markdwn", "unknown format 'markdwn', did you mean 'markdown'?"),
        ("leaderboard . train.epochs=1", "'wsolbench leaderboard' takes no 'train.epochs=1'"),
        ("profile", "the following arguments are required: --methods"),
        ("profile --methods sat --batch-size 0", "--batch-size 0: expected whole numbers from 1"),
        ("profile --methods sat --dtype bf61", "unknown number format 'bf61', did you mean 'bf16'?"),
        ("profile --methods sat --work boxs", "unknown kind of work 'boxs', did you mean 'boxes'?"),
        ("profile --methods sat --work ,", "name at least one kind of work: forward, localize, boxes, train"),
        ("profile --methods sat --seconds -1", "--seconds -1.0: expected a number from 0"),
        ("profile --methods sat --results nowhere", "--results 'nowhere' is no folder of results"),
        ("list method", "unknown kind 'method', did you mean 'methods'?"),
        ("data", "say what to do with a data set: show"),
        ("data chek badges", "invalid choice: 'chek'"),
        ("data show badge", "unknown data set 'badge', did you mean 'badges'?"),
        ("pretrain --backbone badges_cn", "unknown embedded backbone 'badges_cn', did you mean 'badges_cnn'?"),
        ("pretrain --scale 0", "--scale 0.0: expected a number above 0"),
        ("pretrain --seed one", "invalid int value: 'one'"),
    ],
)
def test_wrong_usage_is_one_sentence_and_starts_nothing(
    stage: Stage, capsys: pytest.CaptureFixture[str], words: str, sentence: str
) -> None:
    assert sentence in refused(capsys, *words.split())
    assert stage.calls == []


def test_cuda_without_cuda_is_refused(
    stage: Stage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "--device cuda:1 was asked for, but torch finds no CUDA" in refused(
        capsys, "run", "--methods", "sat", "--device", "cuda:1"
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert "only cuda:0 to cuda:1 exist" in refused(capsys, "profile", "--methods", "sat", "--device", "cuda:2")
    assert main(["run", "--methods", "sat", "--device", "cuda:1"]) == 0


def test_an_unwritable_folder_is_refused_before_anything_runs(
    stage: Stage, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    for words in (["run", "--methods", "sat", "--out", "file/x"], ["pretrain", "--out", "file/x"]):
        assert "cannot be written" in refused(capsys, *words)
    assert stage.calls == []


def test_errors_of_a_verb_are_one_sentence_unless_the_traceback_is_asked_for(
    stage: Stage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "holds no finished run" in refused(capsys, "leaderboard", str(tmp_path), status=1)
    monkeypatch.setenv("WSOLBENCH_TRACEBACK", "1")
    with pytest.raises(WsolbenchError):
        main(["leaderboard", str(tmp_path)])


def test_leaderboard_shows_what_is_built_as_it_was_asked_for(
    stage: Stage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from wsolbench.leaderboard import formats
    from wsolbench.leaderboard import view as board
    from wsolbench.leaderboard.selection import Selection

    monkeypatch.setattr(board, "build", stage.note("build", "DOCUMENT"))
    monkeypatch.setattr(formats, "text", stage.note("show", "TABLE"))
    words = ["--format", "csv", "--dataset", "badges,cub", "--metric", "GT-known@val", "--compare", "sat,cam", "tscam"]
    assert main(["leaderboard", str(tmp_path), *words]) == 0
    view = board.View(Selection(datasets=("badges", "cub"), metrics=("GT-known@val",)), compare=("sat", "cam", "tscam"))
    assert stage.calls == [("build", (tmp_path, view), {}), ("show", ("DOCUMENT", "csv"), {})]
    assert capsys.readouterr().out == "TABLE\n"


def test_profile_and_pretrain_pass_on_what_was_asked(stage: Stage, tmp_path: Path) -> None:
    words = ["profile", "--methods", "sat,cam", "--batch-size", "2,64", "--device", "cpu", "--image-size", "224"]
    more = ["--dtype", "fp32,bf16", "--compile", "--work", "train", "--classes", "200"]
    assert main([*words, *more, "--out", str(tmp_path / "p.csv")]) == 0
    assert main(["pretrain", "--seed", "3", "--scale", "0.5", "--out", "made"]) == 0
    command = shlex.join(["wsolbench", *words, *more, "--out", str(tmp_path / "p.csv")])
    asked = Request(["sat", "cam"], device="cpu", batch_sizes=[2, 64], image_size=224, out=tmp_path / "p.csv")
    asked = replace(asked, dtypes=["fp32", "bf16"], compile=True, works=["train"], classes=200)
    (_, (request,), _) = stage.calls[0]
    assert replace(request, command="") == asked
    assert sorted(shlex.split(request.command)) == sorted(shlex.split(command))
    assert stage.calls == [
        ("profile", (request,), {}),
        ("pretrain", ("badges_cnn", Path("made")), {"seed": 3, "scale": 0.5}),
        ("pretrain", ("badges_vit.s0", Path("made")), {"seed": 3, "scale": 0.5}),
    ]


def python(*words: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    roots = [ROOT, ROOT / "methods", ROOT / "datasets"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, roots))}
    return subprocess.run(
        [sys.executable, *words], check=False, capture_output=True, text=True, cwd=folder, env=environment
    )


@pytest.mark.parametrize("words", [["list"], ["--help"], ["run", "--help"], ["rnu"]])
def test_nothing_heavy_is_imported_to_say_what_exists(words: list[str]) -> None:
    code = (
        "import sys\nfrom wsolbench.cli.main import main\n"
        f"try:\n    main({words})\nexcept SystemExit:\n    pass\n"
        "print('IMPORTED', *sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    imported = python("-c", code).stdout.partition("IMPORTED ")[2].split()
    assert "argparse" in imported
    assert not {"torch", "numpy", "hydra", "omegaconf", "timm", "rich", "wsolbench_methods"} & set(imported)


def test_list_says_what_exists_and_where() -> None:
    done = python("-m", "wsolbench", "list")
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    families = {name for name in METHODS.names() if name.endswith(":")}
    names = {*METHODS.names(), *DATASETS.names()} - families | {f"{family}<name>" for family in families}
    assert {"methods", "datasets", "protocols", "backbones", *names} <= set(words)
    assert str(Path("wsolbench/config/presets/protocol/full.yaml")) in words
    assert "<k>shot" in words
    only = python("-m", "wsolbench", "list", "protocols").stdout
    assert [line.split()[0] for line in only.splitlines()] == [
        "full", "labels-only", "matrix", "paper-sat", "paper-tscam", "realistic", "reference", "<k>shot"
    ]  # fmt: skip


def test_a_reader_may_close_the_pipe() -> None:
    command = f"{sys.executable} -m wsolbench list | true"
    done = subprocess.run(["sh", "-c", command], check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == ""
