"""wsolbench: a benchmark harness for weakly supervised object localization."""

from __future__ import annotations

__version__ = "0.1.0"

# Name -> where it is defined: imported when it is first asked for, since torch takes seconds. Types are in `__init__.pyi`.
# Written out by hand, unlike the rooms' faces: this one works in a bare checkout, before any dependency is installed.
_HOMES = {
    "Annotation": "types",
    "Batch": "types",
    "Prediction": "types",
    "Sample": "types",
    "create_dataset": "data.dataset",
    "create_method": "method.base",
    "list_datasets": "registry",
    "list_methods": "registry",
    "load_run": "runs.load",
    "register_dataset": "registry",
    "register_method": "registry",
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604


def __getattr__(name: str) -> object:
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(f"wsolbench.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'wsolbench' has no attribute '{name}'")
