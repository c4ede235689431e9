"""What is checked before anything is computed: device and backbone exist here, and results can be written."""

from __future__ import annotations

import tempfile
from pathlib import Path

from wsolbench.distributed.group import local_rank, processes
from wsolbench.errors import UsageError, unknown

DEVICES = ("auto", "cpu", "cuda", "mps")


def check_device(name: str) -> None:
    """Refuse a device that does not exist here, before anything is computed."""
    kind, colon, index = name.partition(":")
    if kind not in DEVICES or (colon and not (kind == "cuda" and index.isdecimal())):
        raise unknown("device", name, (*DEVICES, "cuda:0"))
    if kind == "cpu":
        return
    together = processes() > 1
    if together and colon:
        raise UsageError(f"--device {name}: each of several processes takes a GPU of its own; use --device cuda")
    if kind == "auto" and not together:
        return
    import torch

    if together and torch.cuda.is_available() and local_rank() >= torch.cuda.device_count():
        raise UsageError(
            f"process {local_rank()} of this machine needs a GPU of its own, and there are {torch.cuda.device_count()}: "
            "start fewer processes, or use --device cpu"
        )

    if kind == "auto":
        return
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps was asked for, but torch finds no Apple GPU here; use --device auto")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            f"--device {name} was asked for, but torch finds no CUDA device here; use --device auto or cpu"
        )
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        raise UsageError(
            f"--device {name} was asked for, but only cuda:0 to cuda:{torch.cuda.device_count() - 1} exist"
        )


def check_writable(folder: Path) -> None:
    """Make the folder and refuse one that cannot be written, before anything is computed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"--out '{folder}' cannot be written: {error.strerror or error}") from error
