from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import profile_toys
import pytest
import torch
from profile_toys import toy

from wsolbench.errors import UsageError, WsolbenchError
from wsolbench.method.numerics import Numerics
from wsolbench.profile import Request, measure, profile
from wsolbench.profile.device import pick_device
from wsolbench.profile.energy import Meter
from wsolbench.profile.memory import PeakServer, Setting
from wsolbench.profile.rows import Measurement, read_rows, write_rows
from wsolbench.profile.work import BOXES, FORWARD, LOCALIZE, TRAIN, WORKS


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    with profile_toys.registered():
        yield


def run(methods: list[str], out: Path, **more: Any) -> tuple[int, pd.DataFrame]:
    asked = {"batch_sizes": [1, 4], "repeats": 5, "memory": False, "device": "cpu", "dataset": "profile-blind", **more}
    status = profile(Request(methods, out=out, **asked))
    return status, pd.read_csv(out.with_suffix(".csv"))


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
    before = method.classifier.head.weight.detach().clone()
    line = measure(method, torch.randn(4, 3, 6, 8), work=TRAIN, repeats=5)
    assert line.status == "ok"
    assert not torch.equal(before, method.classifier.head.weight)
    assert set(method.seen) == {((4, 3, 6, 8), True, False)}


def test_out_of_memory_is_a_line() -> None:
    line = measure(toy(out_of_memory_at=4), torch.randn(4, 3, 6, 8))
    assert line.status == "out of memory"
    assert line.images_per_second is None
    assert line.parameters == 15


# --- the verb


def test_profile_writes_every_setting_with_its_context(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, frame = run(["profile-toy", "profile-idle"], tmp_path / "new" / "p.csv", command="wsolbench profile ...")
    assert status == 0
    assert sorted(zip(frame.method, frame.work, frame.batch_size, strict=True)) == sorted(
        [
            ("profile-idle", BOXES, 1),
            ("profile-toy", BOXES, 1),
            *(("profile-idle", LOCALIZE, size) for size in (1, 4)),
            *(("profile-toy", work, size) for work in (FORWARD, LOCALIZE, TRAIN) for size in (1, 4)),
        ]
    )
    assert set(frame.image_size) == {"6x8"}  # the data set's own
    assert set(frame.device) == {"cpu"}
    assert set(frame.torch) == {torch.__version__}
    assert set(frame.threads) == {torch.get_num_threads()}
    assert frame.groupby("work").dtype.unique().map(list).to_dict() == {
        "boxes": ["fp64"],
        **{work: ["fp32"] for work in (FORWARD, LOCALIZE, TRAIN)},
    }
    assert frame.device_name.notna().all()
    assert (frame.images_per_second > 0).all()
    training = frame[frame.work == TRAIN].iloc[1]
    assert training.flops_per_image == 2 * (2 * 3 * 2)
    assert training.gflops_per_second == pytest.approx(24 * training.images_per_second / 1e9)
    assert set(frame.energy_is.dropna().str.startswith("not measured")) <= {True, False}
    printed = capsys.readouterr().out
    assert "profile-toy" in printed
    assert torch.__version__ in printed
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["p.csv", "p.json"]
    told = json.loads((tmp_path / "new" / "p.json").read_text())
    assert told["complete"] is True
    assert told["context"]["command"] == "wsolbench profile ..."
    assert told["context"]["versions"]["torch"]
    assert len(told["rows"]) == len(frame)


def test_csv_and_json_hold_the_same_lines(tmp_path: Path) -> None:
    run(["profile-short", "profile-toy", "profile-idle"], tmp_path / "p.json", dtypes=["fp32", "tf32"])
    lines = read_rows(tmp_path / "p.json")
    assert read_rows(tmp_path / "p.csv") == lines
    assert {line.status.partition(":")[0] for line in lines} == {"ok", "out of memory", "not measured"}
    write_rows(tmp_path / "again.csv", lines, {"device": "cpu"}, complete=True)
    assert read_rows(tmp_path / "again.json") == lines


def test_a_number_format_the_device_lacks_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, frame = run(["profile-toy"], tmp_path / "p.csv", dtypes=["bf16", "tf32"], works=[LOCALIZE], batch_sizes=[2])
    assert status == 0
    assert list(frame.dtype) == ["bf16", "tf32"]
    assert frame.status[0] == "ok"
    assert frame.status[1].startswith("not measured: tf32 is a number format of CUDA devices")
    assert list(frame.parameters) == [15, 15]
    assert "tf32 not measured: tf32 is a number format of CUDA" in capsys.readouterr().out


def test_what_cannot_be_compiled_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unsupported(RuntimeError):
        __module__ = "torch._dynamo.exc"

    def prepare(numerics: Numerics, method: Any) -> None:
        def refuse(*given: object) -> None:
            raise Unsupported("Graph break\nmore")

        def break_down(*given: object) -> None:
            raise KeyError("hook")

        if numerics.compile:
            method.loss, method.localize = refuse, break_down

    monkeypatch.setattr(Numerics, "prepare", prepare)
    status, frame = run(["profile-toy"], tmp_path / "p.csv", compile=True, works=[LOCALIZE, TRAIN], batch_sizes=[2])
    assert status == 0
    assert list(zip(frame.work, frame.compiled, frame.status, strict=True)) == [
        (LOCALIZE, False, "ok"),
        (LOCALIZE, True, "failed when compiled: KeyError: 'hook'"),
        (TRAIN, False, "ok"),
        (TRAIN, True, "compile failed: Unsupported: Graph break"),
    ]


def test_layouts_are_measured_of_networks_with_feature_maps(tmp_path: Path) -> None:
    asked = {"channels_last": True, "works": [LOCALIZE], "batch_sizes": [1], "seconds": 0.0, "dataset": "badges"}
    _, frame = run(["cam", "center-box"], tmp_path / "p.csv", backbone="badges_cnn,badges_vit.s0", **asked)
    assert sorted(zip(frame.backbone, frame.channels_last, strict=True)) == [
        ("-", False),
        ("badges_cnn", False),
        ("badges_cnn", True),
        ("badges_vit.s0", False),
    ]


def test_one_network_is_timed_once_for_all_that_share_it(tmp_path: Path) -> None:
    asked = {"works": [FORWARD], "batch_sizes": [1], "seconds": 0.0, "dataset": "badges"}
    _, frame = run(["sat", "tscam", "gradcam", "cam"], tmp_path / "p.csv", backbone="badges_vit.s0", **asked)
    medians = dict(zip(frame.method, frame.median_ms, strict=True))
    assert medians["sat"] == medians["tscam"] == medians["gradcam"] != medians["cam"]
    assert dict(zip(frame.method, frame.network, strict=True)) == {
        "sat": "plain",
        "tscam": "plain",
        "gradcam": "classifier",
        "cam": "classifier",
    }


def test_methods_that_train_the_same_classifier_share_its_training_step(tmp_path: Path) -> None:
    asked = {"works": [TRAIN], "batch_sizes": [2], "seconds": 0.0, "dataset": "badges"}
    _, frame = run(["cam", "gradcam", "hirescam"], tmp_path / "p.csv", backbone="badges_cnn,badges_vit.s0", **asked)
    steps = frame.set_index(["backbone", "method"]).median_ms
    assert steps["badges_cnn"].nunique() == 1
    assert steps["badges_vit.s0"].nunique() == 2  # there cam has a head of its own
    assert len(frame) == 6


def test_of_several_backbones_a_method_is_measured_on_those_it_can_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"works": [LOCALIZE], "batch_sizes": [1], "seconds": 0.0, "dataset": "badges"}
    _, frame = run(["sat", "cam"], tmp_path / "p.csv", backbone="badges_vit.s0,badges_cnn", **asked)
    assert sorted(zip(frame.method, frame.backbone, strict=True)) == [
        ("cam", "badges_cnn"),
        ("cam", "badges_vit.s0"),
        ("sat", "badges_vit.s0"),
    ]
    assert "left out: 'sat' cannot run on backbone 'badges_cnn'" in capsys.readouterr().err
    with pytest.raises(UsageError, match="'sat' cannot run on backbone 'badges_cnn'"):
        run(["sat"], tmp_path / "p.csv", backbone="badges_cnn", **asked)


def test_energy_stands_where_the_device_counts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = iter(range(0, 10_000, 6))
    monkeypatch.setattr("wsolbench.profile.energy.SECONDS", 0.0)
    meter = Meter("fake", lambda: [next(counter)], [0.0])
    monkeypatch.setattr("wsolbench.profile.profiling.energy_meter", lambda device: meter)
    asked = {"works": [LOCALIZE, BOXES], "batch_sizes": [2]}
    _, frame = run(["profile-toy"], tmp_path / "p.csv", **asked)
    rows = frame.set_index("work")
    assert rows.joules_per_image[LOCALIZE] > 0
    assert rows.energy_is[LOCALIZE] == "fake"
    assert pd.isna(rows.joules_per_image[BOXES])


def test_an_interrupted_profile_keeps_what_is_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, frame = run(["profile-toy", "profile-stopped"], tmp_path / "p.csv")
    assert status == 130
    assert set(frame.work) == {FORWARD, LOCALIZE, BOXES}  # of batch size 1: training comes last
    assert (frame.images_per_second > 0).all()
    assert json.loads((tmp_path / "p.json").read_text())["complete"] is False
    captured = capsys.readouterr()
    assert f"interrupted: these {len(frame)} lines were finished" in captured.err
    assert "profile-stopped" in captured.out


def test_image_size_and_classes_can_be_asked_for(tmp_path: Path) -> None:
    _, frame = run(["profile-idle"], tmp_path / "p.csv", image_size=10)
    assert set(frame.image_size) == {"10x10"}
    _, frame = run(["profile-toy"], tmp_path / "p.csv", dataset="cub", classes=200, image_size=8)  # cub is not here
    assert set(frame.classes) == {200}
    assert set(frame.parameters) == {3 * 200 + 200, 3 * 200 + 200 + 7}
    with pytest.raises(UsageError, match="or give --classes and --image-size, and no data set is opened"):
        run(["profile-toy"], tmp_path / "p.csv", dataset="cub", classes=200)


def test_out_of_memory_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, frame = run(["profile-short", "profile-toy"], tmp_path / "p.csv", works=[LOCALIZE, TRAIN])
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


def test_what_did_not_fit_beside_others_is_tried_alone(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"works": [LOCALIZE], "batch_sizes": [2]}
    _, frame = run(["profile-crowded", "profile-toy"], tmp_path / "p.csv", **asked)
    assert set(frame.status) == {"ok"}
    assert (frame.images_per_second > 0).all()
    assert (frame.flops_per_image > 0).all()
    _, frame = run(["profile-crowded"], tmp_path / "p.csv", **asked)
    assert set(frame.status) == {"out of memory"}  # it was alone already


def test_a_method_that_raises_is_a_line_and_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, frame = run(["profile-broken", "profile-toy"], tmp_path / "p.csv", works=[LOCALIZE, TRAIN])
    assert status == 1
    assert set(frame[frame.method == "profile-broken"].status) == {"failed: ValueError: the toy is broken"}
    assert set(frame[frame.method == "profile-toy"].status) == {"ok"}
    assert "the toy is broken" in capsys.readouterr().out


def test_a_narrow_terminal_gets_fewer_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for width in (80, 160):
        monkeypatch.setenv("COLUMNS", str(width))
        run(["profile-toy", "profile-short"], tmp_path / "p.csv", dtypes=["fp32", "bf16"], batch_sizes=[16])
        printed = capsys.readouterr().out
        assert max(map(len, printed.splitlines()[:-2])) <= width
        assert "images/s" in printed
        assert ("Not shown for want of width" in printed) == (width == 80)


def test_wrong_requests_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown method 'centre-box', did you mean 'center-box'"):
        run(["profile-toy", "centre-box"], tmp_path / "p.csv")
    with pytest.raises(UsageError, match="at least 1"):
        run(["profile-toy"], tmp_path / "p.csv", batch_sizes=[0])
    with pytest.raises(UsageError, match=r"expected a file name that ends in \.csv or \.json"):
        profile(Request(["profile-toy"], dataset="profile-blind", device="cpu", out=tmp_path / "p.txt"))
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
    from wsolbench.config.schema import TrainConfig

    return Setting(module, method, {}, None, TrainConfig(), LOCALIZE, batch_size, (512, 512), 2, 1)


@pytest.mark.slow
def test_memory_of_each_setting_is_its_own() -> None:
    with PeakServer() as peaks:
        big, small, missing = (peaks.ask(each) for each in (setting(64), setting(1), setting(1, "no-such-method")))
        plain = replace(setting(1), work=FORWARD, backbone="badges_cnn", size_HW=(64, 64), plain=True)
        network = peaks.ask(plain)
    assert big.peak is not None
    assert small.peak is not None
    assert small.floor is not None
    assert big.peak - small.peak > 150  # 63 more images of 3 MiB, though the big one came first
    assert small.peak > small.floor > 0
    assert missing.peak is None
    assert "no-such-method" in missing.error
    assert network.peak is not None


def test_a_helper_that_ends_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsolbench.profile.memory.sys.executable", "/bin/false")
    with pytest.raises(WsolbenchError, match="measures memory ended with status 1"), PeakServer() as peaks:
        peaks.ask(setting(1))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_is_measured_in_every_number_format(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"device": "cuda", "memory": True, "dtypes": ["fp32", "bf16", "fp16"], "dataset": "badges"}
    status, frame = run(["cam", "sat", "profile-short"], tmp_path / "p.csv", backbone="badges_vit.s0", **asked)
    assert status == 0
    device = frame[(frame.work != BOXES) & (frame.status == "ok")]
    assert (device.peak_memory_mib > 0).all()
    assert set(frame.status[frame.method != "profile-short"]) == {"ok"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_is_measured_compiled(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"device": "cuda", "memory": True, "compile": True, "dataset": "badges", "batch_sizes": [8]}
    _, frame = run(["cam", "sat", "tscam"], tmp_path / "p.csv", backbone="badges_vit.s0", works=list(WORKS), **asked)
    assert set(frame.status) == {"ok"}
    assert set(frame.compiled) == {True, False}


def test_a_line_says_how_it_was_computed() -> None:
    line = Measurement("cam", "resnet50", TRAIN, 1, "8x8", dtype="bf16", compiled=True, channels_last=True)
    assert (line.numerics, line.ok) == ("bf16 compiled channels-last", True)
