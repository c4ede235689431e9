"""What an installed copy holds, and that the files which say how to install agree with each other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import wsolbench

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "wsolbench": ROOT / "wsolbench",
    "wsolbench_methods": ROOT / "methods" / "wsolbench_methods",
    "wsolbench_datasets": ROOT / "datasets" / "wsolbench_datasets",
}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel built from a source distribution, as a packager would."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_every_file_of_the_packages(wheel: zipfile.ZipFile) -> None:
    """Code, weights, YAML, tables, py.typed: hatch drops what git ignores, so a rule too many would lose a file."""
    expected = {
        f"{name}/{path.relative_to(folder).as_posix()}"
        for name, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == expected
    assert {f"{name}/py.typed" for name in PACKAGES} <= held
    assert {
        "wsolbench/config/presets/run.yaml",
        "wsolbench/config/presets/protocol/full.yaml",
        "wsolbench/leaderboard/reported.csv",
    } <= held


def test_the_wheel_announces_command_and_plugins(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))
    text = wheel.read(name).decode()
    assert "wsolbench = wsolbench.cli.main:main" in text
    assert "[wsolbench.methods]\nbuiltin = wsolbench_methods" in text
    assert "[wsolbench.datasets]\nbuiltin = wsolbench_datasets" in text


def test_an_unpacked_wheel_answers_from_anywhere(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "site")
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "wsolbench", "list"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "site" / "wsolbench" / "config" / "presets" / "protocol" / "full.yaml") in done.stdout


def test_the_version_is_said_once() -> None:
    assert PYPROJECT["project"]["version"] == wsolbench.__version__


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    bounds = {}
    for requirement in PYPROJECT["project"]["dependencies"]:
        name, bound = re.fullmatch(r"([\w-]+)>=([\d.]+)(?:,<[\d.]+)?", requirement).groups()  # type: ignore[union-attr]
        bounds[name] = bound
    lines = (ROOT / "tests" / "oldest.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert {name: pin.removesuffix(".*") for name, pin in pins.items()} == bounds


def test_continuous_integration_runs_the_command_of_the_readme() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text(encoding="utf-8")
    assert "\nmake test" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("verb", ["run", "test", "check", "lint", "types", "bench", "test-oldest", "browser"])
def test_make_knows_the_verb(verb: str) -> None:
    """Dry, so that nothing is installed."""
    done = subprocess.run(["make", "-n", verb], check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_registry_host_and_no_machine_path_is_committed() -> None:
    """Installing must work with whatever index a machine is configured for."""
    pattern = re.compile(r"--(?:extra-)?index-url|--find-links|(?:^|[\s\"'=])/(?:home|root|work)/\w", re.MULTILINE)
    for name in ("Makefile", "pyproject.toml", "README.md", "CONTRIBUTING.md", ".ci/run", "tests/oldest.txt"):
        assert not pattern.search((ROOT / name).read_text(encoding="utf-8")), name
