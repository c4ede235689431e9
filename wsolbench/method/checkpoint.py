"""Weights in and out: tensors only, never arbitrary pickles; whose file it is shows in the names of its tensors."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from wsolbench.errors import WsolbenchError
from wsolbench.system.files import atomically

State = dict[str, Tensor]

WRAPPERS = ("model", "state_dict")  # where SAT ("model") and TS-CAM, wsolevaluation ("state_dict") keep the weights
SHOWN = 10  # names listed per kind of fault


@dataclass(frozen=True)
class Layout:
    """How one kind of checkpoint names its tensors. A method declares those it reads in `Method.layouts`.

    Whatever a file wraps its tensors in ("model", "state_dict", the `module.` of DataParallel) is off before a layout
    sees them.

    >>> layout = prefixed("timm's classifier", "net.")
    >>> list(layout.convert({"fc.weight": torch.zeros(3, 2)}))
    ['net.fc.weight']
    """

    name: str
    """What users read, e.g. "SAT (authors)"."""
    told_by: Callable[[Mapping[str, Tensor]], bool]
    """Whether a file's tensors, by name, are in this layout. Names must do where they can; shapes may help."""
    convert: Callable[[State], State]
    """The tensors by our names, without those that are of no use to us. Must not fail on foreign files."""
    absent: tuple[str, ...] = ()
    """Prefixes of our names that such a file does not hold; these tensors keep their starting values."""


def prefixed(name: str, prefix: str, absent: tuple[str, ...] = ()) -> Layout:
    """The layout of files whose tensors stand at the top where ours stand under `prefix`."""
    return Layout(
        name,
        told_by=lambda state: not any(key.startswith(prefix) for key in state),
        convert=lambda state: {prefix + key: value for key, value in state.items()},
        absent=absent,
    )


# --- files -----------------------------------------------------------------------------------------------------------


def read_tensors(path: str | Path) -> State:
    """Read a flat name -> tensor dict from a safetensors file or a torch file that holds tensors only.

    Raises:
        WsolbenchError: there is no such file, it is damaged, or reading it would take unpickling of other things.
    """
    path = Path(path)
    if not path.is_file():
        raise WsolbenchError(f"checkpoint '{path}' does not exist")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles of an odd protocol: those are refused below
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused(path, str(error)) from error
    except Exception as error:  # a cut file fails in many ways: EOFError, RuntimeError, KeyError, struct.error, ...
        reason = " ".join(str(error).split())[:120]
        raise WsolbenchError(
            f"checkpoint '{path}' is damaged or cut short ({type(error).__name__}: {reason}); copy or download it again"
        ) from error
    while isinstance(content, dict):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), dict)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise WsolbenchError(f"checkpoint '{path}' holds no state dict: expected a mapping of names to tensors")
    state = {str(name): value for name, value in content.items()}
    while all(name.startswith("module.") for name in state):  # saved from inside DataParallel
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def _refused(path: Path, message: str) -> WsolbenchError:
    found = re.search(r"GLOBAL ([\w.]+)", message)
    what = f"it holds '{found[1]}' beside tensors" if found else "it holds other things than tensors"
    return WsolbenchError(
        f"checkpoint '{path}' is refused: {what}, and unpickling those can run any code; if you trust the file, keep its "
        "tensors alone: safetensors.torch.save_file(STATE_DICT, 'weights.safetensors'), where STATE_DICT comes out of "
        "torch.load(..., weights_only=False)"
    )


def write_tensors(path: str | Path, state: State, metadata: dict[str, str] | None = None) -> None:
    """Write a state dict as safetensors, atomically."""
    path = Path(path)
    with atomically(path) as temporary:
        save_file({name: value.detach().cpu().contiguous() for name, value in state.items()}, temporary, metadata)


# --- fitting a file's tensors to a module ----------------------------------------------------------------------------


def load_into(module: nn.Module, path: str | Path, layouts: Sequence[Layout] = ()) -> Layout:
    """Load `path` into `module`, from our own layout or one of `layouts`; returns the one it was in.

    Raises:
        WsolbenchError: the file cannot be read, or does not fit; the module is as it was.
    """
    layout, state = match(module, read_tensors(path), layouts, source=f"checkpoint '{path}'")
    module.load_state_dict(state, strict=False)  # strict in `match`, which knows what the layout may lack
    return layout


def match(
    module: nn.Module, state: State, layouts: Sequence[Layout] = (), source: str = "the state dict"
) -> tuple[Layout, State]:
    """The layout that `state` is in, and its tensors by the names of `module`; looks at names and shapes only.

    Only a layout that recognises the file is taken: leaving out what it calls absent must not make a foreign file fit.

    Raises:
        WsolbenchError: no layout fits; lists what is missing, unexpected and of another shape in the nearest one.
    """
    own = module.state_dict()
    ours = Layout("wsolbench", lambda state: 2 * len(own.keys() & state.keys()) >= len(own), lambda state: state)
    known = (ours, *layouts)
    converted = [layout.convert(state) for layout in known]
    faults = [_Faults.of(own, each, layout.absent) for each, layout in zip(converted, known, strict=True)]
    told = [i for i, layout in enumerate(known) if layout.told_by(state)]
    fitting = [i for i in told if not faults[i].count]
    if fitting:
        return known[fitting[0]], converted[fitting[0]]
    nearest = min(told or (i for i in range(len(known)) if faults[i].count), key=lambda i: faults[i].count)
    raise WsolbenchError(_complaint(module, source, known, nearest, faults[nearest]))


@dataclass(frozen=True)
class _Faults:
    missing: list[str]
    unexpected: list[str]
    shapes: list[str]  # "name (found) instead of (wanted)"
    classes: set[tuple[int, int]]  # (found, wanted) of first dimensions, where only these differ
    count: int

    @classmethod
    def of(cls, own: State, state: State, absent: tuple[str, ...]) -> _Faults:
        missing = sorted(name for name in own.keys() - state.keys() if not name.startswith(absent or ("\0",)))
        unexpected = sorted(state.keys() - own.keys())
        wrong = sorted(name for name in own.keys() & state.keys() if own[name].shape != state[name].shape)
        rows = {
            (state[name].shape[0], own[name].shape[0])
            if own[name].ndim and state[name].ndim and own[name].shape[1:] == state[name].shape[1:]
            else (-1, -1)
            for name in wrong
        }
        shapes = [f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}" for name in wrong]
        return cls(missing, unexpected, shapes, rows, len(missing) + len(unexpected) + len(wrong))


def _complaint(module: nn.Module, source: str, known: Sequence[Layout], nearest: int, faults: _Faults) -> str:
    """One sentence: the number of classes where that is the matter, else the names at fault, first ten of each kind."""
    name, num_classes = type(module).__name__, getattr(module, "num_classes", None)
    backbone = getattr(module, "backbone", None)
    who = f"{name} on '{backbone}'" if isinstance(backbone, str) else name
    listed = "; ".join(
        f"{title} ({len(names)}): {', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}"
        for title, names in (
            ("missing", faults.missing),
            ("unexpected", faults.unexpected),
            ("wrong shape", faults.shapes),
        )
        if names
    )
    told = f"in the layout '{known[nearest].name}'" if len(known) > 1 else "in wsolbench's own layout"
    if len(faults.classes) == 1 and not faults.missing and not faults.unexpected:
        ((found, wanted),) = faults.classes
        if wanted == num_classes:
            return (
                f"{source} was made for {found} classes, but {who} was built with num_classes={wanted}; "
                f"{told}, {listed}"
            )
    reading = (
        f"the nearest supported layout is '{known[nearest].name}'"
        if len(known) > 1
        else "read as wsolbench's own layout"
    )
    others = f"; supported: {', '.join(layout.name for layout in known)}" if len(known) > 1 else ""
    return f"{source} does not fit {who}: {reading}, with {listed}{others}"


def classifier_layout(classifier: nn.Module) -> Layout:
    """Checkpoints that hold nothing but the classifier: timm's, ours, or the authors' where the network names them.

    >>> classifier_layout(nn.Linear(2, 3)).name
    'plain classifier'
    """
    return prefixed(getattr(classifier, "authors", "plain classifier"), "classifier.")
