from .loading import collate, eval_batches, steps_per_epoch, train_batches, train_steps
from .split import Dataset, DatasetInfo, Split, Subset, create_dataset

__all__ = [
    "Dataset",
    "DatasetInfo",
    "Split",
    "Subset",
    "collate",
    "create_dataset",
    "eval_batches",
    "steps_per_epoch",
    "train_batches",
    "train_steps",
]
