"""wsolbench: a benchmark harness for weakly supervised object localization."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from wsolbench.data import create_dataset
    from wsolbench.engine import load_run
    from wsolbench.method import create_method
    from wsolbench.registry import list_datasets, list_methods, register_dataset, register_method
    from wsolbench.types import Annotation, Batch, Prediction, Sample

_HOMES = {
    "Annotation": "types",
    "Batch": "types",
    "Prediction": "types",
    "Sample": "types",
    "create_dataset": "data",
    "create_method": "method",
    "list_datasets": "registry",
    "list_methods": "registry",
    "load_run": "engine",
    "register_dataset": "registry",
    "register_method": "registry",
}

__all__ = [
    "Annotation",
    "Batch",
    "Prediction",
    "Sample",
    "__version__",
    "create_dataset",
    "create_method",
    "list_datasets",
    "list_methods",
    "load_run",
    "register_dataset",
    "register_method",
]

if not TYPE_CHECKING:  # hidden from type checkers, so that they still see typos

    def __getattr__(name: str) -> Any:
        import importlib

        if name in _HOMES:
            return getattr(importlib.import_module(f"wsolbench.{_HOMES[name]}"), name)
        raise AttributeError(f"module 'wsolbench' has no attribute '{name}'")
