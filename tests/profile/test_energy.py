from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from wsolbench.profile.energy import Meter, energy_meter, joules_per_call
from wsolbench.profile.timing import Subject

CPU = torch.device("cpu")


def package(folder: Path, name: str, microjoules: int, most: int = 1_000_000_000) -> Path:
    zone = folder / name
    zone.mkdir()
    (zone / "energy_uj").write_text(f"{microjoules}\n")
    (zone / "max_energy_range_uj").write_text(f"{most}\n")
    return zone


def test_rapl_adds_packages_up_and_knows_where_they_wrap(tmp_path: Path) -> None:
    one = package(tmp_path, "intel-rapl:0", 2_000_000)
    two = package(tmp_path, "intel-rapl:1", 999_000_000)
    package(tmp_path, "intel-rapl:0:0", 77)  # a part of the first package: counted with it already
    meter = energy_meter(CPU, tmp_path)
    assert isinstance(meter, Meter)
    before = meter.read()
    (one / "energy_uj").write_text("5000000\n")
    (two / "energy_uj").write_text("1000000\n")
    assert meter.between(before, meter.read()) == pytest.approx(3 + 2)


def test_without_a_counter_there_is_a_reason(tmp_path: Path) -> None:
    assert energy_meter(CPU, tmp_path) == "the processor's energy counter is not visible here"
    (package(tmp_path, "intel-rapl:0", 1) / "energy_uj").unlink()  # as unreadable as one of root's
    assert "cannot be read by this user" in str(energy_meter(CPU, tmp_path))
    assert energy_meter(torch.device("mps")) == "mps reports no energy"


def test_nvml_is_asked_for_the_card_that_torch_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=asked.append,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: 12_500,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="ab-12"))
    meter = energy_meter(torch.device("cuda"))
    assert isinstance(meter, Meter)
    assert (asked, list(meter.read())) == (["GPU-ab-12"], [12.5])

    def refuse(handle: object) -> int:
        raise RuntimeError("Not Supported")

    nvml.nvmlDeviceGetTotalEnergyConsumption = refuse
    assert energy_meter(torch.device("cuda")) == "NVML reports no energy (Not Supported)"
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "pynvml is not installed" in str(energy_meter(torch.device("cuda")))


def test_energy_is_divided_by_the_calls_of_a_stretch() -> None:
    used = 0.0

    def call() -> None:
        nonlocal used
        used += 3

    meter = Meter("test", lambda: [used], [0.0])
    assert joules_per_call(Subject(call), meter, lambda: None, seconds=0.01) == pytest.approx(3)
    assert joules_per_call(Subject(lambda: None), meter, lambda: None, seconds=0) is None  # the counter stood still

    def fail() -> None:
        raise RuntimeError

    assert joules_per_call(Subject(fail), meter, lambda: None, seconds=0) is None
