from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from wsolbench.data import Dataset, DatasetInfo, Split
from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.method import Method, Untrained
from wsolbench.profile import (
    LOCALIZE,
    TRAIN,
    Subject,
    Timing,
    is_settled,
    measure,
    pick_device,
    profile,
    random_batch,
    time_in_turns,
)
from wsolbench.profile_memory import Setting, cpu_peaks
from wsolbench.registry import DATASETS, METHODS, register_dataset, register_method
from wsolbench.types import Batch, Prediction


@dataclass
class ToyConfig:
    out_of_memory_at: int = 10_000
    breaks: bool = False


class Toy(Method):
    """One linear layer; told to, it runs out of memory at a batch size, or breaks."""

    Config = ToyConfig
    default_backbone = "toy-net"

    def __init__(self, config: ToyConfig, **more: Any) -> None:
        super().__init__(config, **more)
        self.head = nn.Linear(3, self.num_classes)
        self.frozen = nn.Parameter(torch.zeros(7), requires_grad=False)
        self.seen: list[tuple[tuple[int, ...], bool, bool]] = []

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        logits_BK = self._logits(batch.images_BCHW)
        return {"cls": nn.functional.cross_entropy(logits_BK, batch.labels_B)}

    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Prediction:
        return Prediction(self._logits(images_BCHW), images_BCHW.mean(1))

    def _logits(self, images_BCHW: Tensor) -> Tensor:
        self.seen.append((tuple(images_BCHW.shape), bool(self.training), torch.is_inference_mode_enabled()))
        if len(images_BCHW) >= self.config.out_of_memory_at:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if self.config.breaks:
            raise ValueError("the toy is broken\nsecond line")
        logits_BK: Tensor = self.head(images_BCHW.mean((2, 3)))
        return logits_BK


class Idle(Untrained):
    """Nothing to train."""

    def localize(self, images_BCHW: Tensor, labels_B: Tensor | None = None) -> Prediction:
        return Prediction(None, images_BCHW.mean(1))


class Short(Toy):
    """Runs out of memory above three images."""

    def __init__(self, config: ToyConfig, **more: Any) -> None:
        super().__init__(ToyConfig(out_of_memory_at=4), **more)


class Broken(Toy):
    """Raises in every call."""

    def __init__(self, config: ToyConfig, **more: Any) -> None:
        super().__init__(ToyConfig(breaks=True), **more)


@dataclass
class NoOptions:
    pass


class Blind(Dataset):
    """Knows what it is, but fails when an image is asked for."""

    Config = NoOptions

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo("Blind", "-", "-", "1", ("a", "b"), (6, 8), {"test": 1})

    def split(self, name: str) -> Split:
        raise AssertionError("a profile must not read images")


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Offer the toys for the length of a test only."""
    methods, datasets = dict(METHODS._classes), dict(DATASETS._classes)
    for cls in (Toy, Idle, Short, Broken):
        register_method(f"profile-{cls.__name__.lower()}")(cls)
    register_dataset("profile-blind")(Blind)
    yield
    METHODS._classes, DATASETS._classes = methods, datasets


def toy(**config: Any) -> Toy:
    return Toy(ToyConfig(**config), num_classes=2, backbone="toy-net")


def run(methods: list[str], out: Path, **more: Any) -> tuple[int, pd.DataFrame]:
    options = {"batch_sizes": [1, 4], "repeats": 5, "memory": False, "device": "cpu", **more}
    status = profile(methods, dataset="profile-blind", out=out, **options)
    return status, pd.read_csv(out)


# --- timing


def test_timing_is_of_the_durations() -> None:
    timing = Timing.of([value / 1000 for value in range(1, 12)])  # 1 .. 11 ms
    assert (timing.median_ms, timing.p10_ms, timing.p90_ms, timing.calls) == pytest.approx((6, 2, 10, 11))


def test_a_median_is_settled_when_its_interval_is_narrow() -> None:
    assert is_settled([1.0] * 20)
    assert is_settled([1.0] * 90 + [50.0] * 10)  # a few hiccups do not move a median
    assert not is_settled([1.0] * 3)  # too few to tell
    assert not is_settled([1.0, 2.0] * 10)


def test_subjects_are_timed_in_turns_after_a_warm_up() -> None:
    calls: list[str] = []
    subjects = {name: Subject(lambda name=name: calls.append(name)) for name in "abc"}  # type: ignore[misc]
    time_in_turns(dict(subjects), repeats=5, seconds=60, synchronise=lambda: None)
    timed = calls[9:]
    assert calls[:9] == [*"aaabbbccc"]
    assert sorted(timed[:3]) == sorted(timed[3:6]) == [*"abc"]
    assert all(3 <= len(subject.seconds) <= 5 for subject in subjects.values())


def test_time_is_capped_but_three_calls_are_made() -> None:
    subject = Subject(lambda: None)
    time_in_turns({0: subject}, repeats=100, seconds=0, synchronise=lambda: None)
    assert len(subject.seconds) == 3


def test_device_work_is_awaited_before_and_after_each_call() -> None:
    events: list[str] = []
    subject = Subject(lambda: events.append("call"), lambda: events.append("prepare"))
    time_in_turns({0: subject}, repeats=3, seconds=0, synchronise=lambda: events.append("wait"))
    assert events == ["prepare", "wait", "call", "wait"] * 4  # one to warm up, as no time is given


# --- measuring a method


def test_measure_localize() -> None:
    method = toy()
    line = measure(method, torch.randn(4, 3, 6, 8), repeats=5)
    assert (line.status, line.work, line.batch_size, line.image_size) == ("ok", LOCALIZE, 4, "6x8")
    assert (line.parameters, line.trainable) == (3 * 2 + 2 + 7, 3 * 2 + 2)
    assert line.median_ms is not None
    assert line.p10_ms is not None
    assert line.p90_ms is not None
    assert 0 < line.p10_ms <= line.median_ms <= line.p90_ms
    assert line.images_per_second == pytest.approx(4000 / line.median_ms)
    assert set(method.seen) == {((4, 3, 6, 8), False, True)}  # evaluation mode, no graph


def test_measure_train_step_trains() -> None:
    method = toy()
    before = method.head.weight.detach().clone()
    line = measure(method, torch.randn(4, 3, 6, 8), work=TRAIN, repeats=5)
    assert line.status == "ok"
    assert not torch.equal(before, method.head.weight)
    assert set(method.seen) == {((4, 3, 6, 8), True, False)}


def test_out_of_memory_is_a_line() -> None:
    line = measure(toy(out_of_memory_at=4), torch.randn(4, 3, 6, 8))
    assert line.status == "out of memory"
    assert line.images_per_second is None
    assert line.parameters == 15


def test_images_are_random_and_fixed() -> None:
    one, two = (random_batch(3, (6, 8), 2, torch.device("cpu")) for _ in range(2))
    assert torch.equal(one.images_BCHW, two.images_BCHW)
    assert one.images_BCHW.std() > 0.5
    assert one.images_BCHW.shape == (3, 3, 6, 8)


# --- the verb


def test_profile_writes_every_setting_with_its_context(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, frame = run(["profile-toy", "profile-idle"], tmp_path / "new" / "p.csv")
    assert status == 0
    assert sorted(zip(frame.method, frame.work, frame.batch_size, strict=True)) == [
        ("profile-idle", LOCALIZE, 1),
        ("profile-idle", LOCALIZE, 4),
        ("profile-toy", LOCALIZE, 1),
        ("profile-toy", LOCALIZE, 4),
        ("profile-toy", TRAIN, 1),
        ("profile-toy", TRAIN, 4),
    ]
    assert set(frame.image_size) == {"6x8"}  # the data set's own
    assert set(frame.device) == {"cpu"}
    assert set(frame.torch) == {torch.__version__}
    assert set(frame.threads) == {torch.get_num_threads()}
    assert set(frame.dtype) == {"float32"}
    assert frame.device_name.notna().all()
    assert (frame.images_per_second > 0).all()
    printed = capsys.readouterr().out
    assert "profile-toy" in printed
    assert torch.__version__ in printed
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["p.csv"]


def test_image_size_can_be_asked_for(tmp_path: Path) -> None:
    _, frame = run(["profile-idle"], tmp_path / "p.csv", image_size=10)
    assert set(frame.image_size) == {"10x10"}


def test_out_of_memory_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, frame = run(["profile-short", "profile-toy"], tmp_path / "p.csv")
    assert status == 0
    short = frame[frame.method == "profile-short"].set_index(["batch_size", "work"]).status
    assert dict(short) == {
        (1, LOCALIZE): "ok",
        (1, TRAIN): "ok",
        (4, LOCALIZE): "out of memory",
        (4, TRAIN): "out of memory",
    }
    assert set(frame[frame.method == "profile-toy"].status) == {"ok"}
    assert "out of memory" in capsys.readouterr().out


def test_a_method_that_raises_is_a_line_and_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, frame = run(["profile-broken", "profile-toy"], tmp_path / "p.csv")
    assert status == 1
    assert set(frame[frame.method == "profile-broken"].status) == {"failed: ValueError: the toy is broken"}
    assert set(frame[frame.method == "profile-toy"].status) == {"ok"}
    assert "the toy is broken" in capsys.readouterr().out


def test_wrong_requests_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown method 'centre-box', did you mean 'center-box'"):
        run(["profile-toy", "centre-box"], tmp_path / "p.csv")
    with pytest.raises(UsageError, match="at least 1"):
        run(["profile-toy"], tmp_path / "p.csv", batch_sizes=[0])
    with pytest.raises(UsageError, match="device 'gpu' cannot be used here"):
        pick_device("gpu")
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(WsolbenchError, match="could not be written"):
        run(["profile-idle"], tmp_path / "taken" / "p.csv")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_without_cuda_is_one_sentence() -> None:
    with pytest.raises(UsageError, match="device 'cuda' cannot be used here"):
        pick_device("cuda")


# --- memory


def setting(batch_size: int, method: str = "center-box", module: str = "wsolbench_methods.baselines") -> Setting:
    from wsolbench.config import TrainConfig

    return Setting(module, method, {}, None, TrainConfig(), LOCALIZE, batch_size, (512, 512), 2, 1)


@pytest.mark.slow
def test_memory_of_each_setting_is_its_own() -> None:
    big, small, missing = cpu_peaks([setting(64), setting(1), setting(1, "no-such-method")])
    assert big.peak is not None
    assert small.peak is not None
    assert small.floor is not None
    assert big.peak - small.peak > 150  # 63 more images of 3 MiB, though the big one came first
    assert small.peak > small.floor > 0
    assert missing.peak is None
    assert "no-such-method" in missing.error


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_memory_is_measured_alone(tmp_path: Path) -> None:
    _, frame = run(["profile-toy", "profile-idle"], tmp_path / "p.csv", device="cuda", memory=True)
    assert (frame.peak_memory_mib > 0).all()
