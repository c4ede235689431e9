"""Whose checkpoint a file is shows in its keys; what does not fit is said in one sentence, and nothing in a file runs."""

from __future__ import annotations

import argparse
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from authors_layouts import WIDTHS, vit_shapes, without_memory
from safetensors.torch import save_file
from torch import Tensor, nn

import wsolbench
from wsolbench.errors import WsolbenchError
from wsolbench.method.checkpoint import Layout, load_into, match, prefixed, read_tensors

# --- which layout a file is in -----------------------------------------------------------------------------------


def released(layout: str, width: int, num_classes: int) -> dict[str, Tensor]:
    return without_memory(vit_shapes(layout, width, num_classes))


def bodiless(method: str, backbone: str, num_classes: int) -> wsolbench.Method:
    with torch.device("meta"):
        return wsolbench.create_method(method, num_classes=num_classes, backbone=backbone)


def test_released_files_have_the_listed_number_of_tensors() -> None:
    assert len(released("sat", 192, 20)) == 155
    assert len(released("tscam", 192, 20)) == 152


@pytest.mark.parametrize("num_classes", [20, 200, 1000])
@pytest.mark.parametrize("size", WIDTHS)
@pytest.mark.parametrize("name", ["sat", "tscam"])
def test_every_released_variant_is_told_and_fits(name: str, size: str, num_classes: int) -> None:
    method = bodiless(name, f"deit_{size}_patch16_224", num_classes)
    layout, state = match(method, released(name, WIDTHS[size], num_classes), method.layouts())
    assert layout.name == {"sat": "SAT (authors)", "tscam": "TS-CAM (authors)"}[name]
    assert {key: value.shape for key, value in state.items()} == {
        key: value.shape for key, value in method.state_dict().items()
    }


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("sat", {"head.weight", "head.bias", "loc_token", "loc_embed"}),
        ("tscam", {"head.weight", "head.bias"}),
        ("cam", {"classifier.head.weight", "classifier.head.bias"}),
        ("attention", set()),
    ],
)
def test_plain_vit_fills_all_but_what_the_method_adds(name: str, left: set[str]) -> None:
    method = bodiless(name, "deit_tiny_patch16_224", 200)
    layout, state = match(method, released("plain", 192, 1000), method.layouts())
    assert layout.name == "plain ViT"
    assert method.state_dict().keys() - state.keys() == left


def test_plain_classifier_is_read_by_post_hoc_methods(tmp_path: Path) -> None:
    from wsolbench.backbones import create_backbone

    classifier = create_backbone("badges_cnn", num_classes=3, pretrained=False)
    torch.save({"state_dict": {f"module.{k}": v for k, v in classifier.state_dict().items()}}, tmp_path / "last.pth")
    images = torch.randn(2, 3, 64, 64)
    for name in ("gradcam", "cam"):
        method = wsolbench.create_method(name, num_classes=3, backbone="badges_cnn")
        assert method.load_checkpoint(tmp_path / "last.pth").name == "plain classifier"
        torch.testing.assert_close(method.localize(images).logits_BK, classifier.eval()(images))


def test_absent_tensors_keep_their_starting_values(tmp_path: Path) -> None:
    from wsolbench.backbones import create_backbone

    vit = create_backbone("badges_vit.s0", num_classes=5, pretrained=False)
    torch.save({"model": vit.state_dict()}, tmp_path / "deit.pth")
    method = wsolbench.create_method("sat", num_classes=3, backbone="badges_vit.s0")
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method.load_checkpoint(tmp_path / "deit.pth")
    after = method.state_dict()
    assert torch.equal(after["head.weight"], before["head.weight"])
    assert torch.equal(after["loc_token"], before["loc_token"])
    assert torch.equal(after["vit.pos_embed"], vit.state_dict()["pos_embed"])
    assert not torch.equal(before["vit.pos_embed"], vit.state_dict()["pos_embed"])


# --- what does not fit ---------------------------------------------------------------------------------------------


class Net(nn.Module):
    num_classes = 4

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleDict({f"layer{i:02}": nn.Linear(3, 3) for i in range(12)})
        self.fc = nn.Linear(3, 4)


def complaint(state: dict[str, Tensor], layouts: tuple[Layout, ...] = ()) -> str:
    with pytest.raises(WsolbenchError) as caught:
        match(Net(), state, layouts, "checkpoint 'x.pth'")
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_mismatch_lists_ten_of_each_kind_with_counts() -> None:
    state = Net().state_dict()
    state["body.layer00.weight"] = torch.zeros(5, 3)
    bodies = [name for name in state if name.endswith("bias")]
    extra = {f"extra.{i:02}": torch.zeros(1) for i in range(11)}
    text = complaint({name: value for name, value in state.items() if name not in bodies} | extra)
    assert "does not fit Net" in text
    assert "missing (13): body.layer00.bias, " in text
    assert "body.layer09.bias, ...;" in text
    assert "body.layer10.bias" not in text
    assert "unexpected (11): extra.00, " in text
    assert "extra.09, ...;" in text
    assert "extra.10" not in text
    assert text.endswith("wrong shape (1): body.layer00.weight (5, 3) instead of (3, 3)")


def test_another_number_of_classes_is_named_as_such() -> None:
    state = Net().state_dict() | {"fc.weight": torch.zeros(9, 3), "fc.bias": torch.zeros(9)}
    assert "checkpoint 'x.pth' was made for 9 classes, but Net was built with num_classes=4" in complaint(state)
    assert "fc.bias (9,) instead of (4,)" in complaint(state)


@pytest.mark.parametrize("name", ["sat", "tscam"])
def test_another_number_of_classes_in_a_released_file(name: str) -> None:
    method = bodiless(name, "deit_tiny_patch16_224", 200)
    with pytest.raises(WsolbenchError, match=r"for 1000 classes, but .* was built with num_classes=200; .*authors"):
        match(method, released(name, 192, 1000), method.layouts())


def test_another_width_is_not_taken_for_another_number_of_classes() -> None:
    method = bodiless("sat", "deit_tiny_patch16_224", 200)
    with pytest.raises(WsolbenchError) as caught:
        match(method, released("sat", 384, 200), method.layouts(), "checkpoint 'x'")
    assert str(caught.value).startswith("checkpoint 'x' does not fit SAT on 'deit_tiny_patch16_224': the nearest")
    assert "wrong shape (153): " in str(caught.value)


def test_checkpoint_of_another_method_is_refused_with_the_nearest_layout() -> None:
    """A TS-CAM file holds a whole ViT, yet must not pass for a plain one."""
    method = bodiless("sat", "deit_tiny_patch16_224", 200)
    with pytest.raises(
        WsolbenchError, match=r"nearest .* 'SAT .authors.', with missing \(2\): loc_embed, loc_token; supp"
    ):
        match(method, released("tscam", 192, 200), method.layouts())
    method = bodiless("tscam", "deit_tiny_patch16_224", 200)
    with pytest.raises(WsolbenchError, match=r"'TS-CAM .authors.', with unexpected \(3\): .*loc_embed"):
        match(method, released("sat", 192, 200), method.layouts())


def test_a_module_that_does_not_fit_is_left_alone(tmp_path: Path) -> None:
    net = Net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    torch.save({name: value + 1 for name, value in before.items() if name != "fc.bias"}, tmp_path / "x.pth")
    with pytest.raises(WsolbenchError, match="missing"):
        load_into(net, tmp_path / "x.pth")
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_layouts_are_told_by_keys_not_by_order() -> None:
    upper = Layout(
        "upper", lambda s: any(n.startswith("BODY") for n in s), lambda s: {n.lower(): v for n, v in s.items()}
    )
    state = Net().state_dict()
    for layouts in ((upper, prefixed("bare", "net.")), (prefixed("bare", "net."), upper)):
        assert match(Net(), {name.upper(): value for name, value in state.items()}, layouts)[0].name == "upper"
        assert match(Net(), state, layouts)[0].name == "wsolbench"


# --- files ---------------------------------------------------------------------------------------------------------

TENSORS = {"a.weight": torch.arange(300.0), "b": torch.tensor(2)}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"model": s, "best_thr": 0.4, "epoch": 3},
        lambda s: {"state_dict": OrderedDict(s), "best_map": 0.87},
        lambda s: {"model": {"state_dict": s}},
    ],
    ids=["bare", "model", "state_dict", "nested"],
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_reads_wrapped_and_prefixed_files(tmp_path: Path, wrap: Any, prefix: str, zipped: bool) -> None:
    content = wrap({prefix + name: value for name, value in TENSORS.items()})
    torch.save(content, tmp_path / "x.pth.tar", _use_new_zipfile_serialization=zipped)
    state = read_tensors(tmp_path / "x.pth.tar")
    assert state.keys() == TENSORS.keys()
    assert torch.equal(state["a.weight"], TENSORS["a.weight"])


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_malicious_pickle_is_refused_and_nothing_runs(tmp_path: Path, zipped: bool) -> None:
    trap, file = tmp_path / "ran", tmp_path / "x.pth"
    torch.save({"state_dict": TENSORS, "args": Bomb(trap)}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        WsolbenchError, match=r"refused: it holds '\w+.mkdir' beside tensors, .*run any code; .*save_file"
    ):
        wsolbench.create_method("sat", num_classes=3, backbone="badges_vit.s0", checkpoint=file)
    assert not trap.exists()
    torch.load(file, weights_only=False)  # the trap works: unpickling would have run it
    assert trap.exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_malicious_bare_pickle_is_refused(tmp_path: Path, protocol: int) -> None:
    trap = tmp_path / "ran"
    (tmp_path / "x.pth").write_bytes(pickle.dumps({"a": Bomb(trap)}, protocol=protocol))
    with pytest.raises(WsolbenchError, match=r"is refused|is damaged"):
        read_tensors(tmp_path / "x.pth")
    assert not trap.exists()


def test_harmless_objects_are_refused_by_name(tmp_path: Path) -> None:
    torch.save({"state_dict": TENSORS, "args": argparse.Namespace(lr=1)}, tmp_path / "x.pth")
    with pytest.raises(WsolbenchError, match=r"holds 'argparse\.Namespace' beside tensors") as caught:
        read_tensors(tmp_path / "x.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.95])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_file_is_called_damaged(tmp_path: Path, kind: str, kept: float) -> None:
    file = tmp_path / ("x.safetensors" if kind == "safetensors" else "x.pth")
    if kind == "safetensors":
        save_file(TENSORS, file)
    else:
        torch.save(TENSORS, file, _use_new_zipfile_serialization=kind == "zip")
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(WsolbenchError, match="damaged or cut short") as caught:
        read_tensors(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [{}, [1, 2], {"epoch": 3}, {"a": torch.zeros(1), "b": 3}], ids=repr)
def test_file_without_weights_says_so(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(WsolbenchError, match="holds no state dict"):
        read_tensors(tmp_path / "x.pth")


def test_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(WsolbenchError, match="does not exist"):
        read_tensors(tmp_path / "none.pth")
