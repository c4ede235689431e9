"""`state.pt` while a training is unfinished, `last.safetensors` when it is done."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any

import torch

from wsolbench import distributed
from wsolbench.errors import WsolbenchError
from wsolbench.method.base import Method
from wsolbench.method.checkpoint import write_tensors
from wsolbench.system.files import atomically

SAVE_SECONDS = 5.0  # least time between two saved states
SAVE_SHARE = 0.05  # and saving takes at most this share of the training time


def save_weights(module: torch.nn.Module, folder: Path) -> None:
    """Write `last.safetensors` and drop the state it makes useless."""
    write_tensors(folder / "last.safetensors", module.state_dict())
    (folder / "state.pt").unlink(missing_ok=True)


class State:
    """`state.pt`: all that the rest of the training depends on, after a whole step; tensors and numbers only."""

    def __init__(
        self, path: Path, method: Method, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
    ) -> None:
        self.path, self.method, self.optimizer, self.scaler = path, method, optimizer, scaler
        self.sums: dict[str, float] = {}
        self.wait = SAVE_SECONDS
        self.saved_at = time.monotonic()

    def load(self) -> int:
        """Restore the state if there is one; returns the number of steps already taken."""
        content = distributed.from_main(self._read)
        if content is None:
            return 0
        try:
            self.method.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
            if self.scaler.is_enabled():
                self.scaler.load_state_dict(content["scaler"])
            self.sums.update(content["sums"])
            return int(content["step"])
        except (RuntimeError, KeyError, ValueError) as error:
            raise self._useless(error) from error

    def _read(self) -> dict[str, Any] | None:
        try:
            content: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            return content
        except FileNotFoundError:
            return None
        except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
            raise self._useless(error) from error

    def _useless(self, error: Exception) -> WsolbenchError:
        return WsolbenchError(
            f"state '{self.path}' cannot be resumed ({type(error).__name__}): remove it, or run with --rerun"
        )

    def is_due(self) -> bool:
        """Time to save again. Only the leader among several processes does, for all: their states are the same."""
        return distributed.is_main() and time.monotonic() - self.saved_at >= self.wait

    def save(self, step: int) -> None:
        """Write the state, unless it is beyond repair: then the one written before stays."""
        if not distributed.is_main():
            return
        started = time.monotonic()
        model = self.method.state_dict()
        if not all(value.isfinite().all() for value in model.values()):
            return
        content = {
            "step": step,
            "model": model,
            "optimizer": self.optimizer.state_dict(),
            "sums": self.sums,
            **({"scaler": self.scaler.state_dict()} if self.scaler.is_enabled() else {}),
        }
        with atomically(self.path) as temporary, temporary.open("wb") as file:
            torch.save(content, file)
        self.saved_at = time.monotonic()
        self.wait = max(SAVE_SECONDS, (self.saved_at - started) / SAVE_SHARE)
