"""Weights in and out: tensors only, never arbitrary pickles."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from wsolbench.errors import WsolbenchError

WRAPPERS = ("model", "state_dict")  # where SAT ("model") and TS-CAM, wsolevaluation ("state_dict") keep the weights


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read a flat name -> tensor dict from a safetensors file or a torch file that holds tensors only."""
    path = Path(path)
    if not path.is_file():
        raise WsolbenchError(f"checkpoint '{path}' does not exist")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, EOFError, RuntimeError, OSError) as error:
        raise WsolbenchError(
            f"checkpoint '{path}' could not be read as tensors only ({type(error).__name__}): it is damaged, or needs "
            "arbitrary unpickling, which is refused because it can run code; re-save it with "
            "safetensors.torch.save_file(model.state_dict(), ...)"
        ) from error
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WsolbenchError(f"checkpoint '{path}' holds no state dict: expected a mapping of names to tensors")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def write_tensors(path: str | Path, state: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a state dict as safetensors, atomically."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, temporary, metadata)
    temporary.replace(path)


def load_into(
    module: nn.Module, path: str | Path, adapt: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda state: state
) -> None:
    """Load `path` strictly into `module`; a mismatch lists missing, unexpected and wrong-shaped keys."""
    state = adapt(read_tensors(path))
    own = module.state_dict()
    problems = []
    for title, keys in (
        ("missing", sorted(own.keys() - state.keys())),
        ("unexpected", sorted(state.keys() - own.keys())),
        (
            "wrong shape",
            sorted(
                f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
                for name in own.keys() & state.keys()
                if own[name].shape != state[name].shape
            ),
        ),
    ):
        if keys:
            more = f", ... ({len(keys)} in all)" if len(keys) > 10 else ""
            problems.append(f"{title}: {', '.join(keys[:10])}{more}")
    if problems:
        raise WsolbenchError(f"checkpoint '{path}' does not fit {type(module).__name__}; {'; '.join(problems)}")
    module.load_state_dict(state)
