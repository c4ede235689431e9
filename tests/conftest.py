"""Limits and a private cache for every test: two workers on two cores must not start a thread pool each."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import settings

# No deadline: a busy machine is no bug. Derandomised: what passes here passes there; more examples are a call away.
settings.register_profile("wsolbench", deadline=None, derandomize=True)
settings.load_profile("wsolbench")

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # read by libraries when they are first imported
os.environ.setdefault("MPLBACKEND", "Agg")


def pytest_configure(config: pytest.Config) -> None:
    """One cache of generated data for all workers of this test run, gone afterwards: a stale one could hide a change."""
    if "WSOLBENCH_CACHE" not in os.environ:  # workers of pytest-xdist inherit it
        folder = tempfile.mkdtemp(prefix="wsolbench-tests-")
        os.environ["WSOLBENCH_CACHE"] = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Keep torch on one thread, where a test has imported it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def signals_of_a_terminal() -> Iterator[None]:
    """Ctrl-C and a hangup do what they do there: a shell's background job or nohup has them ignored, by all children too."""
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    ignored = [number for number in defaults if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, defaults[number])
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
