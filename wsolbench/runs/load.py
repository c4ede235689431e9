"""A finished run's trained method, read back."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from wsolbench.config.saved import repeat
from wsolbench.errors import UsageError
from wsolbench.method.base import Method
from wsolbench.method.checkpoint import load_into
from wsolbench.record import read_record
from wsolbench.registry import METHODS
from wsolbench.runs.directory import RECORD
from wsolbench.runs.opening import Session
from wsolbench.runs.trained import create


def load_run(directory: str | Path) -> Method:
    """The trained method of a finished run, in evaluation mode, on the CPU.

    Raises:
        UsageError: the folder holds no finished run, or what it needs is gone.

    >>> load_run("nowhere")
    Traceback (most recent call last):
    wsolbench.errors.UsageError: 'nowhere' is no finished run: it has no record.json
    """
    folder = Path(directory).resolve()
    if not (folder / RECORD).is_file():
        raise UsageError(f"'{directory}' is no finished run: it has no {RECORD}")
    record = read_record(folder / RECORD)
    config = repeat(str(folder / "config.yaml"))
    dataset, _ = Session().dataset(config)
    method = create(config, dataset.info, config.backbone or METHODS.get(record.method).default_backbone)
    kept = record.ledger.weights_file
    if record.ledger.training == "own":
        method.load_checkpoint(folder / (kept or "last.safetensors"))
    elif record.ledger.training == "classifier":
        home = folder.parents[3] / "_classifiers" / str(record.provenance["classifier"])
        classifier = method.classifier
        assert isinstance(classifier, nn.Module)
        load_into(classifier, folder / kept if kept else home / "last.safetensors")
    return method.eval()
