"""Names are found in source, without importing; third parties take the same road as built-ins."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wsolbench import registry
from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.registry import DATASETS, METHODS, Registry, slug

ROOT = Path(__file__).resolve().parent.parent

PLUGIN = '''
import torch
from wsolbench import Prediction, register_method
from wsolbench.method import Untrained

@register_method("corner")
class Corner(Untrained):
    """Say that the object is in the corner."""

    def localize(self, images_BCHW, labels_B=None):
        maps_Bhw = torch.zeros(images_BCHW.shape[0], *images_BCHW.shape[2:])
        maps_Bhw[:, 0, 0] = 1
        return Prediction(None, maps_Bhw)
'''


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def source(*names: str, body: str = "pass") -> str:
    """A file that registers a class per name; the first class starts on line 4."""
    classes = [f'@register_method("{name}")\nclass Made{i}:\n    {body}\n' for i, name in enumerate(names)]
    return "from wsolbench.registry import register_method\n\n" + "\n".join(classes)


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path whose empty package `plug` is meant as the built-ins of a fresh registry."""
    write(tmp_path, {"plug/__init__.py": ""})
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "entry_points", lambda group: [])
    for name in [name for name in sys.modules if name.split(".")[0] == "plug"]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def announce(module_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        module = module_name

    monkeypatch.setattr(registry, "entry_points", lambda group: [Point])


def test_listing_reads_source_and_imports_nothing(plugins: Path) -> None:
    text = source("one", body='"""First line.\n\n    More."""') + "raise RuntimeError('imported')\n"
    write(plugins, {"plug/a.py": text})
    entry = Registry("method", "plug").entries()["one"]
    assert (entry.module, entry.class_name, entry.summary) == ("plug.a", "Made0", "First line.")
    assert (entry.path, entry.line) == (plugins / "plug" / "a.py", 4)
    assert "plug.a" not in sys.modules


def test_several_registrations_in_one_file(plugins: Path) -> None:
    write(plugins, {"plug/a.py": source("one", "two")})
    assert Registry("method", "plug").names() == ["one", "two"]


def test_a_typo_names_the_nearest(plugins: Path) -> None:
    write(plugins, {"plug/a.py": source("sat", "tscam")})
    with pytest.raises(UsageError, match="unknown method 'satt', did you mean 'sat'"):
        Registry("method", "plug").get("satt")


def test_a_clash_names_both_files(plugins: Path) -> None:
    write(plugins, {"plug/a.py": source("same"), "plug/b.py": source("same")})
    with pytest.raises(UsageError) as caught:
        Registry("method", "plug").names()
    assert all(str(plugins / "plug" / name) in str(caught.value) for name in ("a.py", "b.py"))


def test_a_clash_while_importing_is_an_error() -> None:
    fresh = Registry("method", "plug")
    fresh.register("x")(type("A", (), {}))
    with pytest.raises(UsageError, match=r"'x' is registered twice: by .*A and by .*B"):
        fresh.register("x")(type("B", (), {}))


def test_a_computed_name_is_refused_with_its_line(plugins: Path) -> None:
    write(plugins, {"plug/a.py": source("x").replace('"x"', "'x' + ''")})
    with pytest.raises(UsageError, match=r"a\.py:3: @register_method needs its name as a literal"):
        Registry("method", "plug").names()


def test_a_syntax_error_names_file_and_line(plugins: Path) -> None:
    write(plugins, {"plug/a.py": source("x") + "def f(:\n"})
    with pytest.raises(WsolbenchError, match=r"a\.py:6"):
        Registry("method", "plug").names()


def test_a_missing_package_is_named(plugins: Path) -> None:
    write(plugins, {"plug/a.py": "import surely_not_installed\n" + source("needy")})
    with pytest.raises(WsolbenchError, match=r"method 'needy' .* needs the package 'surely_not_installed'"):
        Registry("method", "plug").get("needy")


def test_an_announced_module_that_is_gone_is_named(plugins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    announce("plug.gone.deeper", monkeypatch)
    with pytest.raises(UsageError, match=r"plug\.gone\.deeper"):
        Registry("method", "plug").names()


def test_finding_a_nested_plugin_does_not_run_its_parent(plugins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(plugins, {"outer/__init__.py": "raise RuntimeError('imported')", "outer/inner.py": source("nested")})
    announce("outer.inner", monkeypatch)
    assert Registry("method", "plug").names() == ["nested"]


def test_a_plugin_with_helpers_is_found_at_any_depth_and_the_helpers_offer_nothing(
    plugins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = "def register_method_of(name): ...\n\n\nclass Reader:\n    'No plug-in: it has no decorator.'\n"
    deep = {"plug/deep/__init__.py": "", "plug/deep/method.py": source("deep"), "plug/deep/parts/helper.py": helper}
    write(plugins, {"plug/flat.py": source("flat"), "plug/helper.py": helper, **deep})
    made = Registry("method", "plug")
    assert {name: entry.module for name, entry in made.entries().items()} == {
        "flat": "plug.flat",
        "deep": "plug.deep.method",
    }
    assert not [name for name in sys.modules if name.split(".")[0] == "plug"]
    monkeypatch.setattr(registry, "register_method", made.register)
    assert made.get("deep").__module__ == "plug.deep.method"


def test_a_prefix_answers_for_what_follows_it(plugins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = '@classmethod\n    def adapt(cls, rest):\n        return type(rest, (cls,), {"rest": rest})'
    write(plugins, {"plug/prefixed.py": source("pkg:", body=body)})
    fresh = Registry("method", "plug")
    monkeypatch.setattr(registry, "register_method", fresh.register)
    assert fresh.get("pkg:EigenCAM").rest == "EigenCAM"
    with pytest.raises(UsageError, match="unknown method 'other:EigenCAM'"):
        fresh.get("other:EigenCAM")


@pytest.mark.parametrize("asked", [METHODS, DATASETS], ids=["methods", "datasets"])
def test_what_is_listed_can_be_imported(asked: Registry) -> None:
    for name, entry in asked.entries().items():
        if name.endswith(":"):  # a family: which of them is not listed
            with pytest.raises(UsageError, match=f"'{name}' is a family of {asked.title}s"):
                asked.get(name)
        else:
            assert asked.get(name).__name__ == entry.class_name


def test_slug_is_a_folder_name() -> None:
    assert slug("pkg:Eigen/CAM") == "pkg-Eigen-CAM"
    assert slug("../x") == "-x"


def test_the_source_roots_are_not_packages() -> None:
    """An `__init__.py` there would shadow Hugging Face's `datasets` wherever the repository is the current folder."""
    assert not (ROOT / "methods" / "__init__.py").exists()
    assert not (ROOT / "datasets" / "__init__.py").exists()


def python(code: str, *folders: Path, flags: tuple[str, ...] = ()) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    done = subprocess.run(
        [sys.executable, *flags, "-c", code],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        cwd=folders[-1],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_bare_checkout_offers_the_builtins() -> None:
    """Nothing else on the path than the repository's root: -S leaves out whatever is installed."""
    printed = python("import wsolbench; print(*wsolbench.list_methods(), sep='\\n')", ROOT, flags=("-S",))
    assert printed.split() == METHODS.names()


def test_a_third_party_wheel_is_listed_and_runs(tmp_path: Path) -> None:
    """Build a wheel, install it, find its method on the command line and run it on the embedded data."""
    files = {
        "source/pyproject.toml": (
            '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
            '[project]\nname = "corner"\nversion = "1"\n'
            '[project.entry-points."wsolbench.methods"]\ncorner = "corner_method"\n'
            '[tool.hatch.build.targets.wheel]\nonly-include = ["corner_method.py"]\n'
        ),
        "source/corner_method.py": PLUGIN,
    }
    write(tmp_path, files)
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(site), str(tmp_path / "source")], check=True, capture_output=True)

    listed = python("from wsolbench.cli.main import main; main(['list', 'methods'])", ROOT, site)
    line = next(line for line in listed.splitlines() if line.split()[0] == "corner")
    assert "Say that the object is in the corner." in line
    assert "corner_method.py:" in line
    words = ["run", "--methods", "corner", "--dataset", "badges", "--out", str(tmp_path / "results")]
    words += ["dataset.train=20", "dataset.val=10", "dataset.test=10"]
    ran = python(f"import sys; from wsolbench.cli.main import main; sys.exit(main({words}))", ROOT, site)
    assert "1 run: 1 done" in ran
    assert len(list((tmp_path / "results").rglob("record.json"))) == 1
