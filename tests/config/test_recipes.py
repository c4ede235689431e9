"""The recipes that are shipped fit the methods and data sets that are shipped."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import timm

import wsolbench
from wsolbench.cli.list import list_section
from wsolbench.config.compose import expand
from wsolbench.config.identity import deciding_run
from wsolbench.config.presets import CONF
from wsolbench.config.saved import from_yaml, to_yaml
from wsolbench.config.schema import Budget, Optimizer, RunConfig, Schedule
from wsolbench.errors import UsageError
from wsolbench.registry import DATASETS, METHODS
from wsolbench.training.optimizers import build_optimizer, lr_factor
from wsolbench.training.plan import training_plan

EMBEDDED = {name for name, _, where in list_section("backbones") if where.endswith(".safetensors")}
EXPERIMENTS = sorted((CONF / "experiment").glob("*.yaml"))
OF_A_DATASET = [path for path in EXPERIMENTS if path.stem in DATASETS.names()]  # used without being asked for
OF_A_PAPER = {path.stem for path in EXPERIMENTS} - {path.stem for path in OF_A_DATASET}
IMAGES = {"cub": 5994, "ilsvrc": 1281167}  # for training

# What the authors' code does: backbone, optimizer, rate, weight decay, batch, epochs, and the factor of the rate in every epoch.
SAT = ("sat", "deit_small_patch16_224", Optimizer.adamw)
TSCAM = ("tscam", "deit_small_patch16_224", Optimizer.adamw)
CUTS_CUB = [1] * 14 + [0.1] * 15 + [0.01] * 15 + [0.001] * 6
CUTS_ILSVRC = [1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001, 0.001]
AUTHORS: dict[str, tuple[str, str, Optimizer, float, float, int, list[float]]] = {
    "sat_cub": (*SAT, 1e-4, 0.05, 256, [1.0] * 30),
    "sat_ilsvrc": (*SAT, 1.5e-5, 0.05, 512, [1.0]),
    "tscam_cub": (*TSCAM, 5e-5, 0.05, 128, [1] * 29 + [0.1] * 30 + [0.01]),
    "tscam_ilsvrc": (*TSCAM, 5e-4, 0.05, 256, [1] * 9 + [0.1] * 2 + [0.01] * 8 + [0.001]),
    "cam_resnet50_cub": ("cam", "wsol_resnet50_28", Optimizer.sgd, 2.3222617e-4, 1e-4, 32, CUTS_CUB),
    "cam_vgg16_cub": ("cam", "wsol_vgg16", Optimizer.sgd, 1.268269e-5, 5e-4, 32, CUTS_CUB),
    "cam_inceptionv3_cub": ("cam", "wsol_inception_v3_28", Optimizer.sgd, 2.24844746e-3, 5e-4, 32, CUTS_CUB),
    "cam_resnet50_ilsvrc": ("cam", "wsol_resnet50_28", Optimizer.sgd, 3.108411e-5, 1e-4, 32, CUTS_ILSVRC),
    "cam_vgg16_ilsvrc": ("cam", "wsol_vgg16", Optimizer.sgd, 1.654502e-5, 5e-4, 32, CUTS_ILSVRC),
    "cam_inceptionv3_ilsvrc": ("cam", "wsol_inception_v3_28", Optimizer.sgd, 3.606503e-4, 5e-4, 32, CUTS_ILSVRC),
}


def compose(experiment: str, method: str | None = None, **flags: Any) -> RunConfig:
    dataset = experiment.rpartition("_")[2]
    (run,) = expand(
        [method or AUTHORS[experiment][0]], dataset=dataset, overrides=[f"experiment={experiment}"], **flags
    )
    return run


def test_every_recipe_of_a_paper_is_checked() -> None:
    assert {*AUTHORS} == OF_A_PAPER


@pytest.mark.parametrize("experiment", AUTHORS)
def test_a_recipe_does_what_the_authors_code_does(experiment: str) -> None:
    _, backbone, optimizer, lr, weight_decay, batch, factors = AUTHORS[experiment]
    run = compose(experiment)
    assert from_yaml(to_yaml(run)) == run
    assert (run.experiment, run.backbone, run.pretrained) == (experiment, backbone, True)
    train = run.train
    assert (train.optimizer, train.lr, train.weight_decay, train.batch_size) == (optimizer, lr, weight_decay, batch)
    assert (train.epochs, train.steps, train.warmup_steps) == (len(factors), None, 0)
    images = IMAGES[run.dataset["name"]]
    plan = training_plan(train, Budget.steps, images, images)
    for epoch, factor in enumerate(factors):
        first, last = epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch - 1
        for step in (first, last):
            assert math.isclose(lr_factor(step, plan, train), factor), epoch + 1
    assert plan.steps == len(factors) * (images // batch)


def test_what_sets_the_methods_of_a_paper_apart() -> None:
    assert [compose(f"sat_{data}").method["area"] for data in IMAGES] == [0.25, 0.35]
    assert compose("sat_cub").train.schedule is Schedule.constant
    assert [compose(f"{method}_cub").method["drop_path"] for method in ("sat", "tscam")] == [0.1, 0.1]
    assert compose("tscam_cub", backbone="deit_tiny_patch16_224").train.batch_size == 128
    batches = {
        backbone: compose("tscam_ilsvrc", backbone=backbone).train.batch_size
        for backbone in ("deit_tiny_patch16_224", "deit_base_patch16_224", "conformer_small_patch16")
    }
    assert [*batches.values()] == [128, 256, 128]
    for experiment in AUTHORS:
        method = experiment.partition("_")[0]
        assert compose(experiment).evaluate.convention == (method if method in ("sat", "tscam") else "reference")
    assert compose("tscam_ilsvrc", backbone="deit_tiny_patch16_224").evaluate.convention == "tscam"
    classifier, shared = compose("cam_vgg16_cub"), compose("cam_vgg16_cub", "gradcam-pkg:ScoreCAM")
    assert (classifier.train, classifier.backbone) == (shared.train, shared.backbone)


@pytest.mark.parametrize(
    ("experiment", "decaying", "free"),
    [("sat_cub", 54, 100), ("tscam_cub", 50, 102)],  # counted in the official optimizers
)
def test_weight_decay_falls_on_the_tensors_of_the_official_optimizer(experiment: str, decaying: int, free: int) -> None:
    run = compose(experiment, backbone="deit_tiny_patch16_224")
    method = wsolbench.create_method(run.method["name"], num_classes=200, backbone=run.backbone)
    groups = build_optimizer(method, run.train).param_groups
    counts: dict[float, int] = {}
    for group in groups:
        counts[group["weight_decay"]] = counts.get(group["weight_decay"], 0) + len(group["params"])
        assert group["lr"] == run.train.lr
        if run.train.optimizer is Optimizer.adamw:
            assert (group["betas"], group["eps"]) == ((0.9, 0.999), 1e-8)
    assert counts == {0.05: decaying, 0.0: free}


# What learns at ten times the rate, as the reference tells it from the names.
FAST = {
    "cam_resnet50_cub": lambda name: name.startswith(("layer4.", "fc.")),
    "cam_vgg16_cub": lambda name: "features." not in name,
    "cam_inceptionv3_cub": lambda name: not any(part in name for part in ("Mixed", "Conv2d_")),
}


@pytest.mark.parametrize("experiment", FAST)
def test_rates_of_a_reference_network(experiment: str) -> None:
    run = compose(experiment)
    if not timm.is_model(run.backbone or ""):
        pytest.skip(f"backbone '{run.backbone}' does not exist yet")
    method = wsolbench.create_method("cam", num_classes=20, backbone=run.backbone)
    optimizer = build_optimizer(method, run.train)
    assert optimizer.defaults["nesterov"]
    assert optimizer.defaults["momentum"] == 0.9
    names = {id(p): name.removeprefix("classifier.") for name, p in method.named_parameters()}
    seen = {}
    for group in optimizer.param_groups:
        assert group["weight_decay"] == run.train.weight_decay
        seen |= {names[id(p)]: group["lr"] for p in group["params"]}
    assert seen == {
        name: pytest.approx(run.train.lr * (10 if FAST[experiment](name) else 1)) for name in names.values()
    }


def test_a_variant_is_named_by_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "recipes:\n  - for: {methods: [sat]}\n    train: {lr: 0.5, epochs: 3}\n"
        "  - for: {methods: [sat], recipe: paper}\n    train: {lr: 0.25}\n"
    )
    rates = {}
    for recipe in ([], ["recipe=code"], ["recipe=paper"]):
        (run,) = expand(["sat"], overrides=[f"experiment={path}", *recipe])
        assert from_yaml(to_yaml(run)) == run
        rates[run.recipe] = run.train.lr
        assert run.train.epochs == 3
    assert rates == {None: 0.5, "code": 0.5, "paper": 0.25}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["experiment=sat_cub", "recipe=paper"], "unknown recipe of experiment 'sat_cub' 'paper'. Known: code"),
        (["recipe=paper", "experiment=none"], "recipe=paper names a variant of an experiment: add experiment=NAME"),
        (["experiment=sat_cub", "recipe=code,paper"], "'recipe=code,paper': a command takes one recipe"),
        (["experiment=sat_cbu"], "unknown experiment 'sat_cbu', did you mean 'sat_cub'"),
        (["experiment=tscam_cub"], "experiment 'tscam_cub' is for tscam, none of which is asked for"),
    ],
)
def test_recipes_that_do_not_exist(overrides: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        expand(["sat"], overrides=overrides)


def test_the_names_of_recipes_decide_nothing() -> None:
    """Two runs with the same values are one run, whatever they were called; nor does the key move older runs' hash."""
    (run,) = expand(["sat"], dataset="cub", overrides=["experiment=sat_cub", "recipe=code"])
    assert not {"experiment", "recipe"} & {*deciding_run(run)}


@pytest.mark.parametrize("path", OF_A_DATASET, ids=lambda path: path.stem)
@pytest.mark.parametrize("method", [name for name in METHODS.names() if not name.endswith(":")])
def test_every_method_composes_under_every_shipped_recipe(method: str, path: Path) -> None:
    (run,) = expand([method], dataset=path.stem)
    assert from_yaml(to_yaml(run)) == run


def test_the_default_run_needs_no_download() -> None:
    for method in METHODS.names():
        if not method.endswith(":"):
            (run,) = expand([method], dataset="badges")
            assert run.backbone is None or run.backbone in EMBEDDED, method
