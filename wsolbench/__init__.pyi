from .data.dataset import create_dataset
from .method.base import create_method
from .registry import list_datasets, list_methods, register_dataset, register_method
from .runs.load import load_run
from .types import Annotation, Batch, Prediction, Sample

__version__: str

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
