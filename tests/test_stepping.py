"""Optimizer steps: batches in parts, other number formats, and a device that runs ahead of the host."""

# B batch, C channels, H W image

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fakes import FakeSplit, NaN, Tiny, fake_config
from rich.console import Console
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import wsolbench
import wsolbench.fit
import wsolbench.stepping
from wsolbench.config import Budget, Dtype, Optimizer, TrainConfig
from wsolbench.engine import run
from wsolbench.errors import WsolbenchError
from wsolbench.fit import fit
from wsolbench.job import Session, open_job
from wsolbench.leaderboard import summarise
from wsolbench.method import Method
from wsolbench.numerics import Numerics
from wsolbench.optimizers import build_optimizer
from wsolbench.progress import Reporter, Silent
from wsolbench.protocol import training_plan
from wsolbench.stepping import Stepper
from wsolbench.types import Batch, Sample

CPU = torch.device("cpu")
State = dict[str, Tensor]


class Listening(Silent):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)


def train_tiny(
    folder: Path,
    cls: type[Tiny] = Tiny,
    *,
    split: FakeSplit | None = None,
    reporter: Reporter | None = None,
    at_step: Callable[[int], None] | None = None,
    **changes: Any,
) -> State:
    """Train on 12 images in steps of 4; returns the weights."""
    folder.mkdir(exist_ok=True)
    train = TrainConfig(**({"epochs": 4, "batch_size": 4, "lr": 1e-2} | changes))
    torch.manual_seed(0)
    method = cls(cls.Config(), num_classes=3, backbone=None)
    fit(
        method,
        split or FakeSplit("train", per_class=4),
        range(12),
        training_plan(train, Budget.steps, 12, 12),
        train,
        seed=5,
        device=CPU,
        folder=folder,
        reporter=reporter or Silent(),
        at_step=at_step,
    )
    return {name: value.clone() for name, value in method.state_dict().items()}


def lines(folder: Path) -> list[dict[str, Any]]:
    read = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if "second" not in name} for line in read]


def same(a: State, b: State) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are judged as on a GPU: one step late."""
    monkeypatch.setattr(wsolbench.stepping, "LATE", ("cuda", "cpu"))


@pytest.fixture
def eager_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsolbench.fit, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(wsolbench.fit, "SAVE_SHARE", math.inf)


# --- a batch in parts ------------------------------------------------------------------------------------------------


def test_parts_are_in_order_of_nearly_equal_size_and_carry_everything() -> None:
    images_BCHW = torch.arange(10.0).view(10, 1, 1, 1)
    batch = Batch([str(i) for i in range(10)], images_BCHW, torch.arange(10), {"prior": torch.arange(10) * 2})
    parts = batch.parts(4)
    assert sorted(len(part.ids) for part in parts) == [2, 2, 3, 3]
    assert [id for part in parts for id in part.ids] == batch.ids
    assert torch.equal(torch.cat([part.images_BCHW for part in parts]), images_BCHW)
    assert torch.equal(torch.cat([part.aux["prior"] for part in parts]), batch.aux["prior"])
    assert [len(part.ids) for part in batch.parts(16)] == [1] * 10


def some_batch(count: int = 10) -> Batch:
    generator = torch.Generator().manual_seed(1)
    labels_B = torch.randint(5, (count,), generator=generator)
    return Batch([str(i) for i in range(count)], torch.randn(count, 3, 64, 64, generator=generator), labels_B)


@pytest.mark.parametrize(
    ("name", "options"),
    [("cam", {}), ("tscam", {"drop_path": 0.0}), ("sat", {"drop_path": 0.0, "area": 0.5033, "area_weight": 5.0})],
)
def test_parts_learn_what_the_whole_batch_does(name: str, options: dict[str, Any]) -> None:
    """Of unequal size, too; dropout and batch norm would see parts, so neither is in the network.

    In float64: parts are summed in another order, and float32 would leave a millionth of that. SAT's area is 0.50333 at first, that of its parts from 0.50318 to 0.50352: on both sides of lambda.
    """

    def trained(parts: int) -> tuple[list[dict[str, float]], State]:
        torch.manual_seed(0)
        method = wsolbench.create_method(name, num_classes=5, backbone="badges_vit.s0", **options).double().train()
        train = TrainConfig(optimizer=Optimizer.sgd, lr=0.002, accumulate=parts)
        stepper = Stepper(method, build_optimizer(method, train), train, Numerics(), CPU)
        losses = []
        for _ in range(3):
            batch = some_batch()
            batch.images_BCHW = batch.images_BCHW.double()
            found = stepper.gradients(batch)
            losses.append({key: value.item() for key, value in found.terms.items()} | {"": found.sum.item()})
            stepper.update()
        return losses, method.state_dict()

    (whole, weights), (parts, others) = trained(1), trained(4)
    assert whole[0]["cls"] - whole[-1]["cls"] > 1e-3  # something was learned
    for a, b in zip(whole, parts, strict=True):
        assert a == pytest.approx(b, rel=0, abs=1e-9)
    assert max((weights[key] - others[key]).abs().max() for key in weights) < 1e-9


def test_the_area_of_a_batch_in_parts_is_that_of_the_maps_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both passes over the parts draw the same paths."""
    from wsolbench_methods import sat

    seen: list[tuple[Tensor, Tensor]] = []
    whole = sat.global_mean

    def watched(values: Tensor) -> Tensor:
        mean = whole(values)
        seen.append((values.detach(), mean.detach()))
        return mean

    monkeypatch.setattr(sat, "global_mean", watched)
    torch.manual_seed(0)
    method = wsolbench.create_method("sat", num_classes=5, backbone="badges_vit.s0", drop_path=0.9).train()
    train = TrainConfig(accumulate=3)
    stepper = Stepper(method, build_optimizer(method, train), train, Numerics(), CPU)
    found = stepper.gradients(some_batch())
    first, second = seen[:3], seen[3:]
    assert len(second) == 3
    for (before, _), (after, _) in zip(first, second, strict=True):
        assert torch.equal(before, after)
    mean = torch.cat([values for values, _ in second]).mean()
    assert all(each.item() == pytest.approx(mean.item(), abs=1e-6) for _, each in second)
    assert found.terms["area"].item() == pytest.approx(abs(mean.item() - 0.25), abs=1e-6)
    assert len({round(values.mean().item(), 4) for values, _ in second}) == 3  # of the parts themselves


# --- number formats --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [Dtype.bf16, Dtype.fp16])
def test_low_precision_learns_with_float32_weights(tmp_path: Path, dtype: Dtype) -> None:
    weights = train_tiny(tmp_path, epochs=30, dtype=dtype)
    found = lines(tmp_path)
    assert found[-1]["loss"] < 0.7 * found[0]["loss"]
    assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.float32}
    assert not same(weights, train_tiny(tmp_path / "plain", epochs=30))


def test_tf32_rounds_nothing_on_a_cpu_and_is_off_afterwards(tmp_path: Path) -> None:
    before = torch.get_float32_matmul_precision()
    assert same(train_tiny(tmp_path / "a", dtype=Dtype.tf32), train_tiny(tmp_path / "b"))
    assert torch.get_float32_matmul_precision() == before


class Overflowing(Tiny):
    """Its gradient, not its loss, is infinite at the steps named."""

    at: tuple[int, ...] = (2,)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        losses = super().loss(batch)
        if self.losses in self.at:
            losses["cls"].register_hook(lambda gradient: gradient * math.inf)
        return losses


@pytest.mark.parametrize("when", ["at once", "late"])
def test_a_step_that_fp16_skips_is_told_with_its_images(
    tmp_path: Path, when: str, request: pytest.FixtureRequest
) -> None:
    if when == "late":
        request.getfixturevalue("late")
    reporter = Listening()
    train_tiny(tmp_path, Overflowing, reporter=reporter, dtype=Dtype.fp16, epochs=2)
    (told,) = reporter.said
    assert told.startswith("fp16: a gradient overflowed at epoch 1, step 2, images train/0")
    assert told.endswith("nothing was learned, the loss scale is 32768")


@pytest.mark.usefixtures("eager_saves")
def test_the_loss_scale_survives_an_interruption(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(step: int) -> None:
        if step == 5:
            raise Stop

    whole = train_tiny(tmp_path / "whole", Overflowing, dtype=Dtype.fp16)
    with pytest.raises(Stop):
        train_tiny(tmp_path / "broken", Overflowing, dtype=Dtype.fp16, at_step=stop)
    state = torch.load(tmp_path / "broken/state.pt", weights_only=True)
    assert (state["step"], state["scaler"]["scale"], state["scaler"]["_growth_tracker"]) == (4, 32768.0, 2)
    reporter = Listening()
    resumed = train_tiny(tmp_path / "broken", Tiny, dtype=Dtype.fp16, reporter=reporter)
    assert same(whole, resumed)
    assert lines(tmp_path / "whole") == lines(tmp_path / "broken")
    assert torch.load(tmp_path / "broken/state.pt", weights_only=True)["scaler"]["scale"] == 32768.0
    assert not reporter.said


@pytest.mark.parametrize("when", ["at once", "late"])
def test_a_collapsed_loss_scale_stops_with_the_place(tmp_path: Path, when: str, request: pytest.FixtureRequest) -> None:
    class Always(Overflowing):
        at = tuple(range(100))

    if when == "late":
        request.getfixturevalue("late")
    with pytest.raises(WsolbenchError, match=r"collapsed to 0.5 at epoch 6, step 17, images train/0\d\d, .*bf16"):
        train_tiny(tmp_path, Always, dtype=Dtype.fp16, epochs=10)


# --- compiled, channels last -----------------------------------------------------------------------------------------


def test_what_is_compiled_for_training_is_not_for_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Any] = []

    def compile(function: Any) -> Any:
        compiled.append(function)
        return lambda *values: function(*values)

    monkeypatch.setattr(torch, "compile", compile)
    config = fake_config(tmp_path)
    config.train.compile = True
    whole = run(config).record
    assert [function.__name__ for function in compiled] == ["loss", "localize"]  # once, by the training
    compiled.clear()
    config.evaluate.compile = True
    config.train.compile = False
    other = run(config).record
    assert len(compiled) == 2 * 2  # for val and for test
    assert whole is not None
    assert other is not None
    assert whole.cells == other.cells == run(fake_config(tmp_path)).record.cells  # type: ignore[union-attr]
    assert whole.notes == ["trained in fp32, compiled"]
    assert other.notes == ["evaluated in fp32, compiled"]


@pytest.mark.slow
def test_compiled_training_takes_the_same_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dynamo's own work without a code generator behind it, which takes a minute."""
    from functools import partial

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    assert same(train_tiny(tmp_path / "a", compile=True), train_tiny(tmp_path / "b"))


def test_channels_last_is_for_the_training_alone() -> None:
    torch.manual_seed(0)
    method = Tiny(Tiny.Config(), num_classes=3, backbone=None).eval()  # dropout draws in the order of memory
    images_BCHW = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        plain = method.net(images_BCHW)
        with Numerics(channels_last=True).applied(method):
            assert method.net.conv.weight.is_contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(method.net(images_BCHW), plain)
        assert method.net.conv.weight.is_contiguous()
        assert torch.equal(method.net(images_BCHW), plain)


# --- identity --------------------------------------------------------------------------------------------------------


def test_how_numbers_are_computed_is_in_the_hash_unless_it_is_the_default(tmp_path: Path) -> None:
    def hash_of(**keys: Any) -> str:
        config = fake_config(tmp_path)
        for key, value in keys.items():
            part, _, name = key.partition("_")
            setattr(getattr(config, part), name, value)
        return open_job(config, Session()).directory.hash

    changed: list[dict[str, Any]] = [
        {"train_dtype": Dtype.bf16}, {"train_dtype": Dtype.fp16}, {"train_compile": True},
        {"train_channels_last": True}, {"train_accumulate": 2},
        {"evaluate_dtype": Dtype.bf16}, {"evaluate_compile": True}, {"evaluate_channels_last": True},
    ]  # fmt: skip
    hashes = {hash_of(), *(hash_of(**keys) for keys in changed)}
    assert len(hashes) == 1 + len(changed)
    identity = open_job(fake_config(tmp_path), Session()).identity["config"]
    young = {"dtype", "compile", "channels_last", "accumulate"}
    assert not young & {*identity["train"], *identity["evaluate"]}


def test_a_run_in_another_format_says_so_in_its_record(tmp_path: Path) -> None:
    config = fake_config(tmp_path, "tiny", accumulate=2)
    config.train.dtype = config.evaluate.dtype = Dtype.bf16
    record = run(config).record
    assert record is not None
    assert record.notes == ["trained in bf16", "trained with batches in 2 parts", "evaluated in bf16"]
    assert record.config["train"]["dtype"] == "bf16"
    plain = run(fake_config(tmp_path, "tiny")).record
    assert plain is not None
    (group,) = summarise([record, plain])
    labels = {row.label for row in group.rows}
    assert len(labels) == 2
    assert any("train.dtype=bf16" in label and "evaluate.dtype=bf16" in label for label in labels)
    assert any("trained in bf16" in note for note in group.notes)


# --- a device that runs ahead ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("late")
@pytest.mark.parametrize("dtype", [Dtype.fp32, Dtype.fp16])
def test_judging_late_changes_no_number(tmp_path: Path, dtype: Dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = train_tiny(tmp_path / "late", dtype=dtype)
    monkeypatch.setattr(wsolbench.stepping, "LATE", ())
    assert same(ahead, train_tiny(tmp_path / "at once", dtype=dtype))
    assert lines(tmp_path / "late") == lines(tmp_path / "at once")


@pytest.mark.usefixtures("late", "eager_saves")
def test_a_late_answer_names_the_step_it_is_about_and_no_bad_state_is_saved(tmp_path: Path) -> None:
    with pytest.raises(WsolbenchError, match=r"area nan\) at epoch 2, step 5, images train/0\d\d, "):
        train_tiny(tmp_path, NaN)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == 4
    assert all(value.isfinite().all() for value in state["model"].values())


@pytest.mark.usefixtures("late")
def test_a_late_answer_is_read_before_a_line_is_written_and_at_the_end(tmp_path: Path) -> None:
    with pytest.raises(WsolbenchError, match=r"at epoch 2, step 5, "):
        train_tiny(tmp_path, NaN)
    assert [line["step"] for line in lines(tmp_path)] == [3]
    assert not (tmp_path / "state.pt").exists()
    with pytest.raises(WsolbenchError, match=r"at epoch 2, step 5, "):
        train_tiny(tmp_path / "end", NaN, steps=5)


class Undecided(FakeSplit):
    """Augments nothing, so loading asks no tensor for its value."""

    def sample(self, index: int, augment: torch.Generator | None) -> Sample:
        return super().sample(index, None)


class CountReads(TorchDispatchMode):
    """How often the host asked for a value, which makes it wait for a device."""

    reads = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.reads += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("late")
def test_the_host_does_not_wait_for_the_device_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsolbench.fit, "NOTE_SECONDS", math.inf)
    settled: list[None] = []
    settle = wsolbench.fit._Log.settle
    monkeypatch.setattr(wsolbench.fit._Log, "settle", lambda log: (settled.append(None), settle(log))[1])
    found = []
    for epochs in (1, 5):
        settled.clear()
        with CountReads() as count:
            optimizer = Optimizer.sgd  # AdamW asks its step counters, which lie on the CPU
            train_tiny(tmp_path / f"{epochs}", split=Undecided("train", 4), epochs=epochs, optimizer=optimizer)
        found.append((count.reads, len(settled)))
    assert found == [(2, 1), (2, 5)]  # the loader's seed and the bar's first note; a line per pass


def test_the_counter_of_reads_sees_a_read() -> None:
    with CountReads() as count:
        torch.ones(()).item()
        bool(torch.ones(()) > 0)
    assert count.reads == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [Dtype.fp32, Dtype.bf16, Dtype.fp16])
def test_training_steps_on_a_gpu_never_make_the_host_wait(dtype: Dtype) -> None:
    device = torch.device("cuda")
    method: Method = Tiny(Tiny.Config(), num_classes=3, backbone=None).to(device)
    train = TrainConfig(dtype=dtype)
    stepper = Stepper(method, build_optimizer(method, train), train, Numerics.of(train), device)
    check = wsolbench.stepping.StepCheck(device, Console().print, None)
    batch = Batch(["a", "b"], torch.rand(2, 3, 16, 16), torch.tensor([0, 1])).pin_memory()
    torch.cuda.set_sync_debug_mode("default")
    for step in range(4):
        torch.cuda.set_sync_debug_mode("error" if step else "default")  # the first one sets things up
        try:
            losses = stepper.gradients(batch)
            stepper.update()
            check.after_update(wsolbench.stepping.Place(1, step + 1, batch.ids), losses, stepper.scale())
        finally:
            torch.cuda.set_sync_debug_mode("default")
    check.settle()


class _Large(FakeSplit):
    """Of the size that the embedded ViT takes."""

    def sample(self, index: int, augment: torch.Generator | None) -> Sample:
        small = super().sample(index, augment)
        image_CHW = torch.nn.functional.interpolate(small.image_CHW[None], (64, 64))[0]
        return Sample(small.id, image_CHW, small.label)


def test_recomputed_activations_change_no_weight_and_only_while_training(tmp_path: Path) -> None:
    def trained(folder: Path, **changes: Any) -> tuple[State, list[bool]]:
        torch.manual_seed(0)
        method = wsolbench.create_method("sat", num_classes=4, backbone="badges_vit.s0", drop_path=0.2)
        seen: list[bool] = []
        vit: Any = method.get_submodule("vit")
        train = TrainConfig(epochs=1, batch_size=4, lr=1e-2, **changes)
        plan = training_plan(train, Budget.steps, 8, 8)
        folder.mkdir()
        fit(
            method, _Large("train", per_class=4), range(8), plan, train, seed=0, device=CPU, folder=folder, reporter=Silent(),
            at_step=lambda step: seen.append(vit.grad_checkpointing),
        )  # fmt: skip
        return method.state_dict(), [*seen, vit.grad_checkpointing]

    plain, never = trained(tmp_path / "plain")
    frugal, seen = trained(tmp_path / "frugal", checkpoint_gradients=True)
    assert same(plain, frugal)
    assert not any(never)
    assert seen[1:-1] == [True, True]
    assert seen[-1] is False
