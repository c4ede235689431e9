"""The training loop: schedules, determinism, resuming, and a loss that is not finite."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fakes import FakeSplit, NaN, Tiny

import wsolbench.training.state
from wsolbench.config.schema import Budget, Optimizer, Schedule, TrainConfig
from wsolbench.data.loading import train_batches
from wsolbench.errors import WsolbenchError
from wsolbench.system.hashing import stable_seed
from wsolbench.system.progress import Silent
from wsolbench.training.fit import fit
from wsolbench.training.log import training_cost
from wsolbench.training.optimizers import build_optimizer, lr_factor
from wsolbench.training.plan import TrainingPlan, training_plan

State = dict[str, torch.Tensor]


class Stop(Exception):
    pass


def train_tiny(
    folder: Path, *, stop_at: int | None = None, cls: type[Tiny] = Tiny, images: int = 12, **changes: Any
) -> State:
    """Train `cls` on the fake data, or until an exception in step `stop_at`; returns the weights."""
    folder.mkdir(exist_ok=True)
    train = TrainConfig(**({"epochs": 4, "batch_size": 4, "lr": 1e-2} | changes))
    torch.manual_seed(0)
    method = cls(cls.Config(), num_classes=3, backbone=None)
    if stop_at is not None:
        whole = method.loss

        def loss(batch: Any) -> Any:
            if method.losses == stop_at:
                raise Stop
            return whole(batch)

        method.loss = loss  # type: ignore[method-assign]
    fit(
        method,
        FakeSplit("train", per_class=4),
        range(images),
        training_plan(train, Budget.steps, images, 12),
        train,
        seed=5,
        device=torch.device("cpu"),
        folder=folder,
        reporter=Silent(),
    )
    return {name: value.clone() for name, value in method.state_dict().items()}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def without_times(folder: Path) -> list[dict[str, Any]]:
    times = ("seconds", "images_per_second")
    return [{name: value for name, value in line.items() if name not in times} for line in lines(folder)]


def same(a: State, b: State) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def eager_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsolbench.training.state, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(wsolbench.training.state, "SAVE_SHARE", math.inf)


# --- schedule --------------------------------------------------------------------------------------------------------


def test_warm_up_is_linear_and_reaches_one() -> None:
    plan, train = TrainingPlan(20, 5, 5), TrainConfig(warmup_steps=4)
    assert [lr_factor(step, plan, train) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_cosine_falls_from_one_to_almost_zero() -> None:
    plan, train = TrainingPlan(12, 5, 5), TrainConfig(schedule=Schedule.cosine, warmup_steps=2)
    factors = [lr_factor(step, plan, train) for step in range(2, 12)]
    assert factors[0] == 1.0
    assert factors[5] == pytest.approx(0.5)
    assert factors[-1] == pytest.approx(0.5 * (1 + math.cos(0.9 * math.pi)))
    assert factors == sorted(factors, reverse=True)


def test_steps_come_at_epochs_of_the_full_data() -> None:
    plan = TrainingPlan(steps=15, steps_per_pass=1, steps_per_epoch=5)  # one-shot at equal steps
    train = TrainConfig(schedule=Schedule.step, milestones=[1, 2], gamma=0.1)
    factors = [lr_factor(step, plan, train) for step in range(15)]
    assert factors == pytest.approx([1.0] * 5 + [0.1] * 5 + [0.01] * 5)


def test_optimizers_take_the_methods_groups() -> None:
    method = Tiny(Tiny.Config(), num_classes=3, backbone=None)
    adamw = build_optimizer(method, TrainConfig(lr=0.5, weight_decay=0.1))
    assert isinstance(adamw, torch.optim.AdamW)
    assert {(group["base_lr"], group["weight_decay"]) for group in adamw.param_groups} == {(0.5, 0.1), (0.5, 0.0)}
    sgd = build_optimizer(method, TrainConfig(optimizer=Optimizer.sgd))
    assert isinstance(sgd, torch.optim.SGD)
    assert all(group["nesterov"] and group["momentum"] == 0.9 for group in sgd.param_groups)


# --- the loop --------------------------------------------------------------------------------------------------------


def test_same_seed_same_bits_and_global_generator_does_not_matter(tmp_path: Path) -> None:
    first = train_tiny(tmp_path / "a")
    torch.rand(7)
    assert same(first, train_tiny(tmp_path / "b"))
    assert without_times(tmp_path / "a") == without_times(tmp_path / "b")


def test_workers_do_not_change_a_bit(tmp_path: Path) -> None:
    assert same(train_tiny(tmp_path / "a"), train_tiny(tmp_path / "b", workers=2))


def test_one_line_per_epoch(tmp_path: Path) -> None:
    train_tiny(tmp_path)
    assert [(line["epoch"], line["step"], line["images"]) for line in lines(tmp_path)] == [
        (1, 3, 12),
        (2, 6, 12),
        (3, 9, 12),
        (4, 12, 12),
    ]
    cost = training_cost(tmp_path)
    assert cost["train_seconds"] == pytest.approx(sum(line["seconds"] for line in lines(tmp_path)))


def test_the_first_line_is_the_mean_loss_of_the_epoch(tmp_path: Path) -> None:
    train_tiny(tmp_path, lr=0.0, weight_decay=0.0)
    torch.manual_seed(0)
    method = Tiny(Tiny.Config(), num_classes=3, backbone=None)
    losses = []
    for step, batch in enumerate(
        train_batches(FakeSplit("train", 4), range(12), batch_size=4, seed=5, epoch=0),
    ):
        torch.manual_seed(stable_seed("step", 5, step))
        losses.append(method.loss(batch)["cls"].item())
    assert lines(tmp_path)[0]["loss"] == pytest.approx(sum(losses) / 3)


def test_tiny_passes_write_few_lines(tmp_path: Path) -> None:
    train_tiny(tmp_path, images=3, epochs=40)  # 120 passes of one step, as many steps as the full run
    assert lines(tmp_path)[-1]["step"] == 120
    assert len(lines(tmp_path)) == 40


def test_loss_falls(tmp_path: Path) -> None:
    train_tiny(tmp_path, epochs=30)
    assert lines(tmp_path)[-1]["loss"] < 0.7 * lines(tmp_path)[0]["loss"]


@pytest.mark.parametrize("stop_at", [1, 2, 3, 7, 11])
@pytest.mark.usefixtures("eager_saves")
def test_resuming_is_exact_at_any_step(tmp_path: Path, stop_at: int) -> None:
    whole = train_tiny(tmp_path / "whole")
    with pytest.raises(Stop):
        train_tiny(tmp_path / "broken", stop_at=stop_at)
    assert torch.load(tmp_path / "broken/state.pt", weights_only=True)["step"] == stop_at
    assert same(whole, train_tiny(tmp_path / "broken"))
    assert without_times(tmp_path / "broken") == without_times(tmp_path / "whole")


def test_lines_after_the_last_saved_state_are_cut_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train_tiny(tmp_path / "whole")
    monkeypatch.setattr(
        wsolbench.training.state.State, "is_due", lambda self: not self.path.exists()
    )  # one state, at step 1
    with pytest.raises(Stop):
        train_tiny(tmp_path / "broken", stop_at=8)
    assert [line["step"] for line in lines(tmp_path / "broken")] == [3, 6]
    assert same(whole, train_tiny(tmp_path / "broken"))
    assert without_times(tmp_path / "broken") == without_times(tmp_path / "whole")


def test_without_a_state_training_starts_over(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train_tiny(tmp_path, stop_at=8)
    train_tiny(tmp_path)
    assert [line["step"] for line in lines(tmp_path)] == [3, 6, 9, 12]


@pytest.mark.usefixtures("eager_saves")
def test_a_loss_that_is_not_finite_stops_with_the_images_and_keeps_the_state(tmp_path: Path) -> None:
    with pytest.raises(WsolbenchError, match=r"area nan\) at epoch 2, step 5, images train/0\d\d, "):
        train_tiny(tmp_path, cls=NaN)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 4
    assert all(value.isfinite().all() for value in state["model"].values())


def test_the_last_good_state_is_kept_though_none_was_due(tmp_path: Path) -> None:
    with pytest.raises(WsolbenchError, match=r"not finite .* at epoch 2, step 5"):
        train_tiny(tmp_path, cls=NaN)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 4


@pytest.mark.usefixtures("eager_saves")
def test_a_state_that_is_not_finite_does_not_replace_a_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finite loss can have a gradient that is not: the weights are gone one step before the loss shows it."""
    update = torch.optim.AdamW.step

    def breaking(self: torch.optim.AdamW) -> None:
        update(self)
        if next(iter(self.state.values()))["step"].item() == 3:
            self.param_groups[0]["params"][0].data.fill_(math.nan)

    monkeypatch.setattr(torch.optim.AdamW, "step", breaking)
    with pytest.raises(WsolbenchError, match="step 4"):
        train_tiny(tmp_path)
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 2


def test_a_damaged_state_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"garbage")
    with pytest.raises(WsolbenchError, match=r"state '.*state.pt' cannot be resumed"):
        train_tiny(tmp_path)
