"""Flags choose what, `key=value` chooses how; everything wrong is refused in one sentence before anything runs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wsolbench.config import recipes
from wsolbench.config.compose import expand
from wsolbench.config.presets import protocol_presets
from wsolbench.config.saved import from_yaml, repeat, to_yaml
from wsolbench.config.schema import Budget, Optimizer, RunConfig, Schedule
from wsolbench.errors import UsageError
from wsolbench.registry import DATASETS, METHODS, Entry


class Layer(Enum):
    last = "last"
    first = "first"


@dataclass
class SatConfig:
    area: float = 0.2
    area_weight: float = 1.0
    masked_blocks: int = 3
    scales: list[float] = field(default_factory=lambda: [1.0])
    layer: Layer = Layer.last
    teacher: Path | None = None

    def __post_init__(self) -> None:
        if self.area > 1:
            raise UsageError(f"area={self.area} is more than the whole image")


@dataclass
class BasConfig:
    area: float = 0.9


@dataclass
class Empty:
    pass


@dataclass
class BadgesConfig:
    clutter: int = 2
    part: float = 0.3


def fake(config: type, backbone: str | None = None) -> Any:
    class Fake:
        Config: ClassVar[type] = config
        default_backbone: ClassVar[str | None] = backbone

    return Fake


@pytest.fixture(autouse=True)
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins, so that these tests say what composing does whatever the built-ins' options are."""
    methods = {
        "cam": fake(Empty, "resnet50"),
        "sat": fake(SatConfig, "deit_small_patch16_224"),
        "bas": fake(BasConfig, "resnet50"),
        "pkg:eigen": fake(BasConfig, "resnet50"),
        "center-box": fake(Empty),
    }
    datasets = {"badges": fake(BadgesConfig), "birds": fake(Empty)}
    for registry, classes in ((METHODS, methods), (DATASETS, datasets)):
        entries = {name: Entry(name, "m", "C", "", Path("m.py"), 1) for name in classes}
        monkeypatch.setattr(registry, "_classes", classes)
        monkeypatch.setattr(registry, "_entries", entries)


def one(*overrides: str, method: str = "sat", **flags: Any) -> RunConfig:
    """The only run of a request without the data set's recipe."""
    (run,) = expand([method], overrides=["experiment=none", *overrides], **flags)
    return run


def refusal(*overrides: str, methods: tuple[str, ...] = ("sat",), **flags: Any) -> str:
    with pytest.raises(UsageError) as caught:
        expand(methods, overrides=overrides, **flags)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_come_from_the_dataclasses() -> None:
    run = one()
    assert run == RunConfig(
        method={
            "name": "sat",
            "area": 0.2,
            "area_weight": 1.0,
            "masked_blocks": 3,
            "scales": [1.0],
            "layer": "last",
            "teacher": None,
        },
        dataset={"name": "badges", "clutter": 2, "part": 0.3},
        backbone="deit_small_patch16_224",
    )


def test_keys_choose_how() -> None:
    run = one(
        "train.lr=1e-3",
        "train.optimizer=sgd",
        "train.milestones=[3,5]",
        "method.layer=first",
        "dataset.clutter=0",
        "evaluate.batch_size=8",
        "checkpoint='a,b.pt'",
        "pretrained=false",
    )
    assert (run.train.lr, run.train.optimizer, run.train.milestones) == (1e-3, Optimizer.sgd, [3, 5])
    assert (run.method["layer"], run.dataset["clutter"], run.evaluate.batch_size) == ("first", 0, 8)
    assert (run.checkpoint, run.pretrained) == ("a,b.pt", False)


def test_flags_choose_what() -> None:
    run = one(backbone="vit", device="cpu", root="/data", out="elsewhere", seeds=[7], dataset="birds")
    assert (run.backbone, run.device, run.root, run.out, run.seed) == ("vit", "cpu", "/data", "elsewhere", 7)
    assert run.dataset == {"name": "birds"}


def test_sweeps_multiply_and_finish_one_comparison_before_the_next() -> None:
    runs = expand(
        ["cam", "bas"], overrides=["train.lr=1e-3,1e-4", "experiment=none"], seeds=[0, 1], protocol="full,1shot"
    )
    got = [(run.protocol.name, run.train.lr, run.seed, run.method["name"]) for run in runs]
    assert len(got) == len(set(got)) == 16
    assert got[:3] == [("full", 1e-3, 0, "cam"), ("full", 1e-3, 0, "bas"), ("full", 1e-3, 1, "cam")]


def test_range_sweeps() -> None:
    assert [run.seed for run in expand(["cam"], overrides=["seed=range(1,4)"])] == [1, 2, 3]


def test_backbones_sweep_and_methods_without_a_network_run_once() -> None:
    runs = expand(["cam", "center-box"], backbone="a,b")
    assert [(run.method["name"], run.backbone) for run in runs] == [("cam", "a"), ("center-box", None), ("cam", "b")]


def test_method_keys_apply_where_they_exist_and_say_where() -> None:
    said: list[str] = []
    runs = expand(["cam", "sat", "bas"], overrides=["method.area=0.4", "experiment=none"], say=said.append)
    assert [run.method.get("area") for run in runs] == [None, 0.4, 0.4]
    assert said == ["method.area=0.4 applies to sat, bas; not to cam"]


def test_a_method_sweep_does_not_repeat_methods_without_the_key() -> None:
    runs = expand(["cam", "bas"], overrides=["method.area=0.1,0.2", "experiment=none"])
    assert [(run.method["name"], run.method.get("area")) for run in runs] == [("cam", None), ("bas", 0.1), ("bas", 0.2)]


def test_a_named_method_is_the_only_target_and_wins() -> None:
    overrides = ["bas.area=0.7", "method.area=0.4", "experiment=none"]
    for order in (overrides, overrides[::-1]):
        assert [run.method["area"] for run in expand(["sat", "bas"], overrides=order)] == [0.4, 0.7]
    (run,) = expand(["pkg:eigen"], overrides=["pkg-eigen.area=0.1"])
    assert run.method["area"] == 0.1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("train.lrr=1", "unknown key 'train.lrr', did you mean 'train.lr'"),
        ("lr=1", "unknown key 'lr', did you mean 'train.lr'"),
        ("trian.epochs=1", "did you mean 'train.epochs'"),
        ("method.aera=1", "did you mean 'method.area'"),
        ("sat.aera=1", "did you mean 'sat.area'"),
        ("bas.area=1", "'bas.area=1' is for method 'bas', which is not among --methods sat"),
        ("dataset.cluter=1", "did you mean 'dataset.clutter'"),
        ("train.epochs=few", "'train.epochs=few': Value 'few' of type 'str' could not be converted to Integer"),
        ("train.epochs=2.5", "'train.epochs=2.5': Value '2.5'"),
        ("train.optimizer=adam", "'train.optimizer=adam': Invalid value 'adam', expected one of [adamw, sgd]"),
        ("method.area=big", "'method.area=big': Value 'big' of type 'str' could not be converted to Float"),
        ("method.area=2", "area=2.0 is more than the whole image"),
        ("method.layer=middle", "expected one of [last, first]"),
        ("dataset.clutter=lots", "'dataset.clutter=lots'"),
        ("train.milestones=3,5", "write one list as train.milestones=[3,5]"),
        ("train.milestones=[3],[5]", "would sweep a list"),
        ("train.milestones=3", "write train.milestones=[3]"),
        ("method.scales=1,2", "write one list as method.scales=[1,2]"),
        ("method.teacher=a,b", "would sweep a path"),
        ("root=/a,b", "would sweep a path: write one path with commas as root=\"'/a,b'\""),
        ("train.lr", "'train.lr' is neither a flag nor key=value"),
        ("+train.lr=1", "write plain key=value"),
        ("~train.lr=1", "write plain key=value"),
        ("train.lr=interval(0,1)", "sweep over a comma list or range(start,stop)"),
        ("train.lr=range(0,0)", "stands for no value"),
        ("train.lr=[1", "'train.lr=[1' cannot be read"),
        ("method=sat", "use --methods NAME"),
        ("protocol=full", "use --protocol NAME"),
        ("train=1", "train.KEY=value"),
        ("method.name=cam", "unknown key 'method.name'"),
        ("train.batch_size=0", "train.batch_size=0 is impossible: the least is 1"),
        ("train.lr=nan", "train.lr=nan is impossible"),
        ("train.lr=null", "field 'train.lr' is not Optional"),
        ("method.area=${oc.env:PATH}", "options of 'sat'"),
        ("method.area=???", "missing mandatory value"),
        ("device=${nope}", "Interpolation key 'nope' not found"),
        ("backbone=[a]", "'backbone=[a]': backbone is a name"),
        ("protocol.shots=0", "the least is 1"),
        ("evaluate.interval=0", "it lies between 0 and 1"),
        ("protocol.threshold=val-box", "unknown protocol.threshold 'val-box', did you mean 'val-boxes'"),
        ("protocol.checkpoint=best", "unknown protocol.checkpoint 'best'"),
        ("seed=-1", "seed=-1 is impossible"),
        ("seed=a", "Value 'a'"),
        ("experiment=badgers", "unknown experiment 'badgers', did you mean 'badges'"),
        ("experiment=a,b", "would sweep a path"),
        ("experiment=gone.yaml", "'gone.yaml' does not exist"),
    ],
)
def test_bad_keys_and_values_are_refused_in_one_sentence(text: str, sentence: str) -> None:
    assert sentence in refusal(text)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.sampled_from(
        [
            "seed",
            "backbone",
            "device",
            "root",
            "experiment",
            "pretrained",
            "checkpoint",
            "train.lr",
            "train.milestones",
            "train.optimizer",
            "method.area",
            "sat.layer",
            "method.scales",
            "method.teacher",
            "dataset.clutter",
            "protocol.name",
        ]
    ),
    value=st.text(alphabet="ab01.,[]{}()'\"$:=-+~\\ ", max_size=8),
)
def test_no_text_on_the_command_line_is_a_traceback(key: str, value: str) -> None:
    with contextlib.suppress(UsageError):
        for run in expand(["sat"], overrides=[f"{key}={value}"], dataset="birds" if key == "experiment" else "badges"):
            assert from_yaml(to_yaml(run)) == run


def test_bad_names_are_refused_with_the_nearest() -> None:
    assert "unknown method 'satt', did you mean 'sat'" in refusal(methods=("satt",))
    assert "unknown data set 'badge', did you mean 'badges'" in refusal(dataset="badge")
    assert "unknown protocol 'ful', did you mean 'full'" in refusal(protocol="ful")
    assert "unknown protocol '5shots', did you mean '5shot'" in refusal(protocol="5shots")
    assert "unknown protocol '0shot'" in refusal(protocol="0shot")
    assert "unknown protocol ','" in refusal(protocol=",")
    assert "no method asked for. Known: bas, cam" in refusal(methods=())


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"seeds": [0, 1]}, "seed=2"),
        ({"backbone": "a"}, "backbone=b"),
        ({"device": "cpu"}, "device=cuda"),
        ({"root": "a"}, "root=b"),
        ({"out": "a"}, "out=b"),
    ],
)
def test_a_flag_and_its_key_together_are_refused(flags: dict[str, Any], text: str) -> None:
    assert f"'{text}' contradict each other" in refusal(text, **flags)


def test_a_key_given_twice_is_refused() -> None:
    assert "'train.lr' is given twice" in refusal("train.lr=1", "train.lr=2")


def protocol(name: str, *overrides: str) -> tuple[Any, ...]:
    chosen = one(*overrides, protocol=name).protocol
    return chosen.name, chosen.shots, chosen.checkpoint, chosen.threshold, chosen.budget


def test_protocols() -> None:
    assert set(protocol_presets()) >= {"full", "reference"}
    assert protocol("full") == ("full", None, "last", "val-boxes", Budget.steps)
    assert protocol("reference") == ("reference", None, "last", "test-oracle", Budget.steps)
    assert protocol("5shot") == ("5shot", 5, "last", "val-boxes", Budget.steps)
    assert protocol("17shot") == ("17shot", 17, "last", "val-boxes", Budget.steps)


def test_protocols_compose_data_with_selectors_in_any_order() -> None:
    expected = ("5shot+reference", 5, "last", "test-oracle", Budget.steps)
    assert protocol("5shot+reference") == protocol("reference+5shot") == expected
    assert protocol("5shot+full") == protocol("5shot")
    assert "names two of a kind" in refusal(protocol="1shot+5shot")
    assert "names two of a kind" in refusal(protocol="full+reference")


def test_a_changed_preset_is_called_something_else() -> None:
    """Otherwise two protocols would share a name, and be averaged as if they were seeds of one."""
    assert protocol("full", "protocol.threshold=test-oracle")[0] == "full+threshold=test-oracle"
    assert protocol("5shot", "protocol.budget=epochs")[0] == "5shot+budget=epochs"
    assert protocol("full", "protocol.val_per_class=1", "protocol.name=mine")[0] == "mine"


RECIPE = """
recipes:
  - for: {methods: ["*"]}
    train: {epochs: 4, lr: 0.01}
  - for: {methods: [sat]}
    backbone: tiny_vit
    method: {area: 0.25, layer: first}
  - for: {methods: [sat, cam], backbones: ["tiny*"]}
    train: {lr: 0.5, schedule: cosine}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recipe above as `badges.yaml`, and one for nobody here as `cub.yaml`."""
    folder = tmp_path / "conf"
    (folder / "experiment").mkdir(parents=True)
    (folder / "experiment" / "badges.yaml").write_text(RECIPE)
    (folder / "experiment" / "cub.yaml").write_text("recipes:\n  - for: {methods: [tscam]}\n    train: {epochs: 1}\n")
    monkeypatch.setattr(recipes, "CONF", folder)
    return folder / "experiment" / "badges.yaml"


@pytest.mark.usefixtures("recipe")
def test_blocks_are_merged_in_order_where_they_match() -> None:
    sat, cam, box = expand(["sat", "cam", "center-box"])
    assert (sat.backbone, sat.train.epochs, sat.train.lr, sat.train.schedule) == ("tiny_vit", 4, 0.5, Schedule.cosine)
    assert (sat.method["area"], sat.method["layer"], sat.experiment) == (0.25, "first", "badges")
    assert (cam.backbone, cam.train.epochs, cam.train.lr, cam.train.schedule) == (
        "resnet50",
        4,
        0.01,
        Schedule.constant,
    )
    assert (box.backbone, box.train.lr) == (None, 0.01)


@pytest.mark.usefixtures("recipe")
def test_the_backbone_is_resolved_before_blocks_that_filter_on_it() -> None:
    sat, cam = expand(["sat", "cam"], backbone="tiny_cnn")
    assert (sat.backbone, cam.backbone, sat.train.lr, cam.train.lr) == ("tiny_cnn", "tiny_cnn", 0.5, 0.5)
    (sat,) = expand(["sat"], overrides=["backbone=big_vit"])
    assert (sat.backbone, sat.train.lr, sat.method["area"]) == ("big_vit", 0.01, 0.25)


@pytest.mark.usefixtures("recipe")
def test_the_user_wins_over_recipes() -> None:
    (run,) = expand(["sat"], overrides=["train.lr=0.1", "method.area=0.4", "sat.layer=last"])
    assert (run.train.lr, run.method["area"], run.method["layer"], run.train.epochs) == (0.1, 0.4, "last", 4)


@pytest.mark.usefixtures("recipe")
def test_which_recipe_is_used() -> None:
    (none,) = expand(["sat"], overrides=["experiment=none"])
    assert (none.train.epochs, none.experiment) == (30, None)
    (other,) = expand(["sat"], dataset="birds")
    assert (other.train.epochs, other.experiment) == (30, None)
    (lent,) = expand(["sat"], dataset="birds", overrides=["experiment=badges"])
    assert (lent.train.epochs, lent.experiment) == (4, "badges")
    assert refusal("experiment=cub") == "experiment 'cub' is for tscam, none of which is asked for"


def test_a_recipe_can_be_any_file(recipe: Path) -> None:
    mine = recipe.with_name("mine.yaml")
    mine.write_text("recipes:\n  - for: {methods: sat}\n    train: {epochs: 9}\n")
    (run,) = expand(["sat"], overrides=[f"experiment={mine}"])
    assert (run.train.epochs, run.experiment) == (9, str(mine))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("lr: 1", "must hold one list named 'recipes'"),
        ("recipes: [{train: {lr: 1}}]", "block 1: a block says whom it is for"),
        ("recipes: [{for: {methods: []}}]", "'for' names no methods"),
        ("recipes: [{for: {methods: sat}, trian: {}}]", "unknown key 'trian'"),
        ("recipes: [{for: {methds: sat}}]", "unknown key 'methds'"),
        ("recipes: [{for: {methods: sat}, train: 3}]", "'train' holds values by key"),
        ("recipes: [{for: {methods: sat}, train: {lrr: 3}}]", "(badges.yaml, block 1), did you mean 'train.lr'?"),
        ("recipes: [{for: {methods: sat}, train: {lr: high}}]", "badges.yaml, block 1"),
        ("recipes: [{for: {methods: sat}, method: {aera: 1}}]", "(badges.yaml, block 1), did you mean 'area'?"),
        ("recipes: [", "cannot be read"),
    ],
)
def test_a_bad_recipe_is_refused_with_its_place(recipe: Path, text: str, sentence: str) -> None:
    recipe.write_text(text)
    message = refusal()
    assert sentence in message
    assert "badges.yaml" in message


def test_yaml_round_trip() -> None:
    overrides = ["train.optimizer=sgd", "method.layer=first", "method.teacher=a/b.pt", "train.milestones=[1]"]
    run = one(*overrides, protocol="5shot+reference", seeds=[3])
    assert from_yaml(to_yaml(run)) == run
    assert "optimizer: sgd" in to_yaml(run)
    assert "teacher: a/b.pt" in to_yaml(run)
    assert "!!" not in to_yaml(run)


def test_a_run_is_repeated_from_its_file(tmp_path: Path) -> None:
    run = one("method.area=0.3", device="cpu")
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(run))
    assert repeat(str(path)) == run
    moved = repeat(str(path), out="elsewhere", root="/data", device="auto")
    assert (moved.out, moved.root, moved.device, moved.method) == ("elsewhere", "/data", "auto", run.method)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: "a: 1", "has no method, dataset and protocol"),
        (lambda text: "- 1", "is not the config.yaml of a run"),
        (lambda text: "{", "is not the config.yaml of a run"),
        (lambda text: text + "extra: 1\n", "Key 'extra' not in 'RunConfig'"),
        (lambda text: text.replace("lr: 0.0001", "lr: high"), "could not be converted to Float"),
        (
            lambda text: text.replace("  area: 0.2\n", "  aera: 0.2\n"),
            "unknown option of method 'sat' 'aera', did you mean 'area'?",
        ),
        (lambda text: text.replace("name: sat", "name: satt"), "unknown method 'satt'"),
        (lambda text: text.replace("  name: sat\n", ""), "its method has no name"),
    ],
)
def test_a_foreign_file_is_refused_in_one_sentence(tmp_path: Path, change: Any, sentence: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(change(to_yaml(one())))
    with pytest.raises(UsageError) as caught:
        repeat(str(path))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"config\.yaml' cannot be read: No such file"):
        repeat(str(tmp_path / "config.yaml"))


def test_composing_works_inside_another_hydra_application() -> None:
    from hydra import initialize
    from hydra.core.global_hydra import GlobalHydra

    from wsolbench.config.protocol import _hydra_compose

    _hydra_compose.cache_clear()
    with initialize(version_base="1.3", config_path=None):
        outer = GlobalHydra.instance().hydra
        assert one().protocol.name == "full"
        assert GlobalHydra.instance().hydra is outer
