"""The pages' example files are complete: they are taken from the pages and run."""

from __future__ import annotations

import doctest
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from wsolbench.registry import DATASETS, METHODS
from wsolbench.types import Batch

ROOT = Path(__file__).resolve().parent.parent


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


@pytest.mark.slow  # trains, and runs the conformance suite on one method
def test_following_the_page_step_by_step_adds_a_method(tmp_path: Path) -> None:
    """Every file the steps name is written, every command they end in is run, in a copy of the checkout."""
    for part in ("wsolbench", "methods", "datasets", "tests/conformance"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
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
    (tmp_path / "images").mkdir()
    pixels = np.zeros((30, 40, 3), dtype=np.uint8)
    pixels[5:25, 10:20] = 255
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    (tmp_path / "list.csv").write_text("id,split,label,x0,y0,x1,y1\na,val,dog,10,5,20,25\n")
    pets = page.Pets(page.PetsConfig(size=32), root=tmp_path)
    assert pets.info.counts == {"train": 0, "val": 1, "test": 0}
    split = pets.split("val")
    sample, annotation = split[0], split.annotation("a")
    assert (sample.id, sample.label, sample.image_CHW.shape) == ("a", 1, (3, 32, 32))
    assert (sample.image_CHW.min(), sample.image_CHW.max()) == (-2, 2)
    assert (annotation.size_HW, annotation.boxes_N4.tolist()) == ((30, 40), [[10, 5, 20, 25]])
    flipped = [split.sample(0, torch.Generator().manual_seed(seed)).image_CHW for seed in range(8)]
    assert {image.equal(sample.image_CHW) for image in flipped} == {True, False}
    assert len(pets.fingerprint()) == 64


def test_the_maps_of_the_page_are_scored(example: Any, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    from wsolbench.cli import main
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
    from wsolbench.cli import build_parser, parsers_of

    actions = parsers_of(build_parser())["evaluate"]._actions
    assert {action.option_strings[-1] for action in actions} - {"--help"} == documented


def test_the_examples_of_the_metrics_page_give_what_it_says() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    examples = "\n".join(re.findall(r"```pycon\n(.*?)```", text, re.DOTALL))
    page = doctest.DocTestParser().get_doctest(examples, {}, "metrics.md", "docs/metrics.md", 0)
    outcome = doctest.DocTestRunner().run(page)
    assert outcome.attempted
    assert not outcome.failed
