"""The pages' example files are complete: they are taken from the pages and run. What pages name exists."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from wsolbench import create_dataset
from wsolbench.config.compose import expand
from wsolbench.config.schema import RunConfig
from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.registry import DATASETS, METHODS
from wsolbench.types import Batch

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
# what stands for something of the reader's, or for what a command writes
PLACEHOLDER = re.compile(
    r"(?<![A-Za-z])(NAME|VERB|pets|sparse|mine|my_package)(?![A-Za-z])|[<>*{}$]|\.\.\.|^results/runs"
)
SOURCES = ("wsolbench", "methods", "datasets", "tests", "results")
GROUPS = {"wsolbench.methods", "wsolbench.datasets"}  # of entry points, no modules


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Import the Python block of a page as a module of its own; what it registers is forgotten afterwards."""

    def load(page: str) -> ModuleType:
        code, *_ = re.findall(
            r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        )
        name = f"example_{Path(page).stem.replace('-', '_')}"
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
        monkeypatch.syspath_prepend(str(tmp_path))
        module = importlib.import_module(name)
        monkeypatch.delitem(sys.modules, name)
        return module

    yield load
    for registry in (METHODS, DATASETS):
        for name, cls in list(registry._classes.items()):
            if cls.__module__.startswith("example_"):  # others may have been imported meanwhile, and are for good
                del registry._classes[name]


def test_the_method_of_the_page_trains_and_localises(example: Any) -> None:
    page = example("add-a-method.md")
    torch.manual_seed(0)
    method = page.Sparse(page.SparseConfig(weight=0.5), num_classes=3, backbone="resnet10t", pretrained=False)
    batch = Batch(["a", "b"], torch.randn(2, 3, 64, 64), torch.tensor([0, 2]))
    losses = method.loss(batch)
    assert set(losses) == {"cls", "sparse"}
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in method.parameters())
    with torch.inference_mode():
        prediction = method.localize(batch.images_BCHW)
    assert prediction.logits_BK.shape == (2, 3)
    assert prediction.maps_Bhw.ndim == 3
    assert prediction.maps_Bhw.isfinite().all()


def _copy_if_there(source: str, target: str) -> None:
    """Compilers of other processes write temporary files beside their results, and take them away again."""
    with suppress(FileNotFoundError):
        shutil.copy2(source, target)


@pytest.mark.slow  # trains, and runs the conformance suite on one method
def test_following_the_page_step_by_step_adds_a_method(tmp_path: Path) -> None:
    """Every file the steps name is written, every command they end in is run, in a copy of the checkout."""
    for part in ("wsolbench", "methods", "datasets", "tests/conformance"):
        shutil.copytree(ROOT / part, tmp_path / part, copy_function=_copy_if_there)  # with what is compiled
    for part in ("tests/conftest.py", "pyproject.toml", "Makefile"):
        shutil.copy(ROOT / part, tmp_path / part)
    page = (ROOT / "docs" / "add-a-method.md").read_text(encoding="utf-8")
    example = page[page.index("## A complete file") :]
    (section,) = re.findall(r"^## Five steps\n(.*?)^## ", page, re.DOTALL | re.MULTILINE)
    steps = re.split(r"^\d\. ", section, flags=re.MULTILINE)[1:]
    assert len(steps) == 5
    output = {}
    for number, step in enumerate(steps, 1):
        blocks = re.findall(r"^ *```(\w+)\n(.*?)^ *```", step, re.DOTALL | re.MULTILINE)
        assert blocks[-1][0] == "bash", "a step ends in a command"
        path = re.search(r"`([\w/]+/\w+\.(?:py|yaml))`", step)
        if path is not None:
            content = [textwrap.dedent(body) for kind, body in blocks if kind in ("python", "yaml")]
            content = content or re.findall(r"^```python\n(.*?)^```", example, re.DOTALL | re.MULTILINE)
            if path[1].endswith(".yaml"):
                content = ["\n" + textwrap.indent(content[0], "  ")]
            (tmp_path / path[1]).parent.mkdir(exist_ok=True)
            with (tmp_path / path[1]).open("a", encoding="utf-8") as file:
                file.write(content[0])
        command = blocks[-1][1].strip()
        if command == "make check":  # everything else: too much for a test
            assert re.search(r"^check:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
            continue
        done = subprocess.run(
            [sys.executable, "-m", *command.split()],
            cwd=tmp_path,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(str(tmp_path / part) for part in ("", "methods", "datasets"))},
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"step {number}: {command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        output[number] = done.stdout
    assert re.search(r"^ *sparse .*methods/wsolbench_methods/sparse.py", output[1], re.MULTILINE)
    assert re.search(r"\d+ passed", output[2])
    assert "1 passed" in output[3]
    (record,) = tmp_path.glob("results/runs/badges/sparse/badges_cnn/full/*/record.json")
    config = (record.parent / "config.yaml").read_text(encoding="utf-8")
    assert "epochs: 1\n" in config


def test_the_data_set_of_the_page_reads_its_files(example: Any, tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    page = example("add-a-dataset.md")
    for folder in ("images", "lists"):
        (tmp_path / folder).mkdir()
    pixels = np.zeros((30, 40, 3), dtype=np.uint8)
    pixels[5:25, 10:20] = 255
    for name in ("a", "b", "c"):
        Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "lists" / "train.txt").write_text("b.png,cat,10,5,20,25\n")
    (tmp_path / "lists" / "val.txt").write_text("a.png,dog,10,5,20,25\nc.png,cat,0,0,3,3\na.png,dog,1,2,3,4\n")
    (tmp_path / "lists" / "test.txt").write_text("c.png,cat,10,5,20,25\n")
    pets = page.Pets(page.ListedConfig(), root=tmp_path)
    split = pets.split("val")
    sample, annotation = split[0], split.annotation("a.png")
    assert (sample.id, sample.label, sample.image_CHW.shape) == ("a.png", 1, (3, 224, 224))
    assert (annotation.size_HW, annotation.boxes_N4.tolist()) == ((30, 40), [[10, 5, 20, 25], [1, 2, 3, 4]])
    augmented = [split.sample(0, torch.Generator().manual_seed(seed)).image_CHW for seed in range(4)]
    assert not augmented[0].equal(augmented[1])
    assert len(pets.fingerprint()) == 64
    (tmp_path / "lists" / "test.txt").write_text("c.png,cat,20,5,10,25\n")
    pets = page.Pets(page.ListedConfig(), root=tmp_path)
    with pytest.raises(
        WsolbenchError, match=r"test\.txt' line 1: 'c\.png,cat,20,5,10,25', expected a box with x0 <= x1"
    ):
        pets.split("test")
    with pytest.raises(UsageError, match=r"data set 'pets' expects lists/ and images/"):
        page.Pets(page.ListedConfig())


@pytest.mark.slow  # trains
def test_following_the_page_step_by_step_benchmarks_own_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command of the five steps is given as it stands, with `sorted/` made by the test."""
    from folder_trees import write_folder

    from wsolbench.cli.main import build_parser, main
    from wsolbench.cli.parser import parsers_of

    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "sorted", counts={"train": 2, "val": 1, "test": 1}).write_csv()
    write_folder(tmp_path / "all", splits=False)
    page = (ROOT / "docs" / "add-a-dataset.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"^## Your own images in five minutes\n(.*?)^### ", page, re.DOTALL | re.MULTILINE)
    steps = re.split(r"^\d\. ", section, flags=re.MULTILINE)[1:]
    assert len(steps) == 5
    known = parsers_of(parsers_of(build_parser())["data"])
    for number, step in enumerate(steps, 1):
        (command,) = re.findall(r"^ *```bash\n(.*?)^ *```\n*\Z", step, re.DOTALL | re.MULTILINE)  # what a step ends in
        program, *words = shlex.split(command)
        if program == "wsolbench" and (words[0] != "data" or words[1] in known):
            assert main(words) == 0, f"step {number}: {command}\n{capsys.readouterr().err}"
        elif program != "wsolbench":
            subprocess.run([program, *words], check=True)
    assert (tmp_path / "sheet.png").is_file()
    assert "GT-known@val" in capsys.readouterr().out
    assert len(list(tmp_path.glob("results/runs/folder/*/*/full/*/record.json"))) == 2
    (command,) = re.findall(r"^```bash\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    config = expanded(command)
    assert config.dataset["test_share"] == 0.2
    options = {name: value for name, value in config.dataset.items() if name != "name"}
    assert create_dataset("folder", root=config.root, **options).info.counts == {"train": 21, "val": 3, "test": 6}


def expanded(command: str) -> RunConfig:
    """The one run that a command asks for."""
    from wsolbench.cli.main import build_parser

    program, *words = shlex.split(command)
    assert program == "wsolbench"
    arguments, overrides = build_parser().parse_known_args(words)
    (config,) = expand([arguments.methods], dataset=arguments.dataset, root=arguments.root, overrides=overrides)
    return config


def test_the_maps_of_the_page_are_scored(example: Any, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    from wsolbench.cli.main import main
    from wsolbench.record import read_record

    monkeypatch.chdir(tmp_path)
    example("evaluate.md")
    page = (ROOT / "docs" / "evaluate.md").read_text(encoding="utf-8")
    (commands,) = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    for command in commands.splitlines():
        program, *words = shlex.split(command)
        assert program == "wsolbench"
        assert main(words) == 0
    assert "brightness" in capsys.readouterr().out
    (path,) = tmp_path.glob("results/runs/badges/brightness/-/external/s0-*/record.json")
    record = read_record(path)
    columns = {cell.column for cell in record.cells}
    assert {"GT-known@val", "MaxBoxAcc", "MaxBoxAccV2", "PxAP"} <= columns
    flags = set(re.findall(r"^\| `(--[a-z-]+)|, `(--[a-z-]+)", page, re.MULTILINE))
    documented = {flag for pair in flags for flag in pair if flag} | {"--maps", "--dataset", "--root"}
    from wsolbench.cli.main import build_parser
    from wsolbench.cli.parser import parsers_of

    actions = parsers_of(build_parser())["evaluate"]._actions
    assert {action.option_strings[-1] for action in actions} - {"--help"} == documented


def test_the_examples_of_the_metrics_page_give_what_it_says() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    examples = "\n".join(re.findall(r"```pycon\n(.*?)```", text, re.DOTALL))
    page = doctest.DocTestParser().get_doctest(examples, {}, "metrics.md", "docs/metrics.md", 0)
    outcome = doctest.DocTestRunner().run(page)
    assert outcome.attempted
    assert not outcome.failed


def test_the_plan_on_the_page_is_what_its_script_prints() -> None:
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(ROOT / "results" / "ilsvrc_plan.py")], check=True, capture_output=True, text=True
    )
    assert f"<!-- PLAN -->\n{done.stdout}<!-- /PLAN -->" in page


def test_every_launch_option_is_on_the_page_and_no_other() -> None:
    from wsolbench.launch.options import Joblib, Slurm

    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    for launcher, title in ((Joblib, "## One machine"), (Slurm, "## A SLURM cluster")):
        section = page.partition(title)[2].partition("\n## ")[0]
        rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `launch.")]
        named = {name.removeprefix("launch.") for row in rows for name in re.findall(r"`([\w.]+)`", row)}
        assert named == {option.name for option in fields(launcher)}


def code_of(page: str) -> str:
    """The code blocks and code spans of a page, one after another."""
    pieces = re.split(r"^ *```", page, flags=re.MULTILINE)
    return "\n".join([*pieces[1::2], *re.findall(r"`([^`]+)`", "\n".join(pieces[::2]))])


def names_in(page: str) -> set[str]:
    """Dotted names of the packages, and what is imported from them."""
    code = code_of(page)
    package = r"(?<![\w./-])wsolbench(?:_methods|_datasets)?"
    names = set(re.findall(rf"{package}(?:\.[A-Za-z_]\w*)+(?![\w/-])", code))
    for module, one_line, lines in re.findall(rf"from ({package}[\w.]*) import (?:([^(\n]+)|\(([^)]+)\))", code):
        listed = (one_line or lines).split(",")
        names |= {f"{module}.{name.split(' as ')[0].strip()}" for name in listed if name.strip()}
    return {name for name in names if name not in GROUPS and not PLACEHOLDER.search(name)}


def paths_in(page: str) -> set[str]:
    """Paths of the repository: from its top or, of a file in a room, from `wsolbench/`."""
    rooms = [path.parent.name for path in (ROOT / "wsolbench").glob("*/__init__.py")]
    tops = [re.escape(path.name) for path in ROOT.iterdir() if path.is_dir()]
    top = re.compile(rf"(?:{'|'.join(tops)})/.*|[A-Z]+\.md|Makefile|pyproject\.toml")
    inner = re.compile(rf"(?:{'|'.join(rooms)})/[\w/]+\.(?:pyi?|yaml|csv)")
    words = {word.rstrip(".:;").split("::")[0] for word in re.split(r"[\s\"',()=|]+", code_of(page))}
    words = {word for word in words if not PLACEHOLDER.search(word)}
    return {word for word in words if top.fullmatch(word)} | {
        f"wsolbench/{word}" for word in words if inner.fullmatch(word)
    }


def links_in(page: str) -> set[str]:
    """Where the links of a page lead inside of the repository, without what stands behind #."""
    return {path for path in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page) if "://" not in path}


@pytest.mark.parametrize("page", PAGES)
def test_every_name_on_a_page_can_be_imported(page: str) -> None:
    gone = {}
    for name in sorted(names_in((ROOT / page).read_text(encoding="utf-8"))):
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError) as error:
            gone[name] = str(error)
    assert not gone


@pytest.mark.parametrize("page", PAGES)
def test_every_path_on_a_page_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = {ROOT / path for path in paths_in(text)} | {(ROOT / page).parent / path for path in links_in(text)}
    if not (ROOT / "results").is_dir():  # is not part of a source distribution
        named = {path for path in named if not path.is_relative_to(ROOT / "results")}
    assert not [str(path) for path in sorted(named) if not path.exists()]
    here = {path.name for folder in SOURCES for path in (ROOT / folder).rglob("*.py")}
    alone = set(re.findall(r"(?<![\w/.<*])\w+\.py\b(?!\.)", code_of(text)))  # a file by its bare name
    assert not {name for name in alone - here if not PLACEHOLDER.search(name)}


def test_what_a_page_names_is_seen() -> None:
    page = """`wsolbench.boxes.scan` ([b](boxes.md#x)), `tests/boxes/`, `runs/engine.py:`, `methods/wsolbench_methods/NAME.py`

1. wsolbench.nothing is no code

   ```python
   from wsolbench.method import Method, wide as w
   from wsolbench import (
       Batch,
   )
   mine = "wsolbench.methods", "results/runs/a", "wsolbench-like"
   ```
and `wsolbench.data`, `pytest tests/test_docs.py::x`, `wsolbench/errors.py`
"""
    assert names_in(page) == {
        "wsolbench.boxes.scan",
        "wsolbench.data",
        "wsolbench.method",
        "wsolbench.method.Method",
        "wsolbench.method.wide",
        "wsolbench.Batch",
    }
    assert paths_in(page) == {"tests/boxes/", "wsolbench/runs/engine.py", "tests/test_docs.py", "wsolbench/errors.py"}
    assert links_in(page) == {"boxes.md"}


def test_the_index_links_every_page() -> None:
    index = links_in((ROOT / "docs" / "README.md").read_text(encoding="utf-8"))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"} <= index
