"""A data-loading process that dies is one sentence with what it was to load; what was saved stays."""
# torch looks whether its workers live when a batch has not come for five seconds

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fakes import FakeData, FakeSplit, fake_config
from run_files import assert_same_files

from wsolbench.config.schema import RunConfig
from wsolbench.data.workers import from_workers
from wsolbench.errors import MachineError, WsolbenchError
from wsolbench.registry import register_dataset
from wsolbench.runs.engine import run
from wsolbench.types import Sample


class DeadlySplit(FakeSplit):
    def sample(self, index: int, augment: torch.Generator | None) -> Sample:
        if os.environ.get("DIE_AT") == self.ids[index] and torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), int(os.environ["DIE_BY"]))
        return super().sample(index, augment)


class Deadly(FakeData):
    def __init__(self, config: Any, *, root: str | Path | None = None) -> None:
        super().__init__(config, root=root)
        self._splits = {name: DeadlySplit(name, config.per_class) for name in self.splits}


register_dataset("deadly-data")(Deadly)


def config(out: Path, where: str) -> RunConfig:
    """A run with one worker in training or in evaluation."""
    config = replace(fake_config(out, "tiny", save_every=0.0), dataset={"name": "deadly-data"})
    return replace(config, **{where: replace(getattr(config, where), workers=1)})  # type: ignore[arg-type]


KILLED = (
    r"^a data-loading process died \(killed by SIGKILL, as the system does when memory runs out\) while epoch 1, step [123], "
    r"images (train/\d{3}, ){3}train/\d{3} or what follows was loaded; .* \(train.workers=0\), which takes less memory$"
)
SEGFAULT = (
    r"^a data-loading process died \(killed by SIGSEGV, an error inside a library\) while images test/(000|005), .* or what "
    r"follows was loaded; .* \(evaluate.workers=0\)"
)


@pytest.mark.parametrize(
    ("where", "at", "by", "said"),
    [
        ("train", "train/007", signal.SIGKILL, KILLED),
        ("evaluate", "test/006", signal.SIGSEGV, SEGFAULT),
    ],
)
def test_a_worker_that_dies_is_one_sentence(
    where: str, at: str, by: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGCHLD)
    monkeypatch.setenv("DIE_AT", at)
    monkeypatch.setenv("DIE_BY", str(int(by)))
    with pytest.raises(MachineError, match=said):
        run(config(tmp_path / "died", where))
    assert signal.getsignal(signal.SIGCHLD) == before  # torch's would raise in the middle of a step
    monkeypatch.delenv("DIE_AT")
    assert run(config(tmp_path / "died", where)).status == "done"
    assert run(config(tmp_path / "whole", where)).status == "done"
    assert_same_files(tmp_path / "died", tmp_path / "whole")


class Refused(torch.utils.data.Dataset[Any]):
    """Items of which the third is an error."""

    def __getitem__(self, index: int) -> Any:
        return WsolbenchError("no item") if index == 2 else index


def go_through(loader: Any, leave: bool) -> None:
    for item in from_workers(loader, "train.workers", str):
        assert not leave or 1 // item


@pytest.mark.parametrize(("leave", "error"), [(False, WsolbenchError), (True, ZeroDivisionError)])
def test_workers_end_with_the_loop_and_are_not_left_to_the_garbage_collector(
    leave: bool, error: type[Exception]
) -> None:
    loader = torch.utils.data.DataLoader(Refused(), batch_size=None, sampler=range(9), num_workers=1)
    gc.disable()
    try:
        with pytest.raises(error) as caught:
            go_through(loader, leave)
        assert multiprocessing.active_children() == []
        assert caught.value is not None  # its traceback holds the frames of the loop
    finally:
        gc.enable()
