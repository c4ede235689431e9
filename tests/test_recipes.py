"""The recipes that are shipped fit the methods and data sets that are shipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsolbench.compose import expand
from wsolbench.config import from_yaml, to_yaml
from wsolbench.listing import list_section
from wsolbench.recipes import CONF
from wsolbench.registry import DATASETS, METHODS

EMBEDDED = {name for name, _, where in list_section("backbones") if where.endswith(".safetensors")}
EXPERIMENTS = sorted((CONF / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
@pytest.mark.parametrize("method", [name for name in METHODS.names() if not name.endswith(":")])
def test_every_method_composes_under_every_shipped_recipe(method: str, path: Path) -> None:
    assert path.stem in DATASETS.names()
    (run,) = expand([method], dataset=path.stem)
    assert from_yaml(to_yaml(run)) == run


def test_the_default_run_needs_no_download() -> None:
    for method in METHODS.names():
        if not method.endswith(":"):
            (run,) = expand([method], dataset="badges")
            assert run.backbone is None or run.backbone in EMBEDDED, method
