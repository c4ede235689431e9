"""The recipe that made the embedded weights still runs."""

from __future__ import annotations

import json

import pytest
import torch

from wsolbench.backbones import embedded
from wsolbench.backbones.pretrain import pretrain
from wsolbench.errors import WsolbenchError
from wsolbench.method.checkpoint import load_into


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WSOLBENCH_CACHE", str(tmp_path / "cache"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["badges_cnn", "badges_vit.s0"])
def test_a_short_run_learns_and_its_file_loads(name, tmp_path):
    from wsolbench.backbones import create_backbone

    summary = pretrain(name, tmp_path / "out", seed=3, scale=0.1)
    lines = [json.loads(line) for line in (tmp_path / "out" / f"{name}.jsonl").read_text().splitlines()]
    head, *epochs, tail = lines
    assert head["seed"] == 3
    assert name in head["command"]
    assert head["torch"] == torch.__version__
    assert tail["seconds"] > 0
    images = [line for line in epochs if line["phase"] == "images"]
    assert {line["phase"] for line in epochs} == {"crops", "images"}
    crops = [line for line in epochs if line["phase"] == "crops"]
    assert crops[-1]["letter"] < crops[0]["letter"]
    assert images[-1]["letter"] + images[-1]["texture"] < images[0]["letter"] + images[0]["texture"]
    assert summary["letter_accuracy"] == images[-1]["letter_accuracy"]
    model = create_backbone(name, num_classes=16, pretrained=False)
    load_into(model, summary["path"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{name}.jsonl", f"{name}.safetensors"]


def test_a_seed_repeats_bit_for_bit_and_leaves_the_global_generator(tmp_path):
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    files = [pretrain("badges_cnn", tmp_path / run, seed=0, scale=0.01)["path"].read_bytes() for run in ("a", "b")]
    assert torch.rand(1) == expected
    assert files[0] == files[1]


def test_unknown_names_and_unwritable_folders(tmp_path):
    with pytest.raises(WsolbenchError, match="did you mean 'badges_cnn'"):
        pretrain("badges_cn", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(WsolbenchError, match="cannot write"):
        pretrain("badges_cnn", tmp_path / "file")


@pytest.mark.parametrize("name", embedded.list_backbones())
def test_shipped_logs_say_what_made_the_weights(name):
    from safetensors import safe_open

    lines = [json.loads(line) for line in (embedded.WEIGHTS / f"{name}.jsonl").read_text().splitlines()]
    assert lines[0]["command"] == f"wsolbench pretrain --backbone {name} --seed {embedded.SEEDS[name]}"
    assert lines[0]["scale"] == 1.0
    with safe_open(embedded.weights_file(name), "pt") as file:
        origin = json.loads(file.metadata()["origin"])
    assert origin["command"] == lines[0]["command"]
    assert origin["torch"] == lines[0]["torch"]
