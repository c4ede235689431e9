from .batches import collate
from .dataset import Dataset, DatasetInfo, create_dataset
from .loading import eval_batches, steps_per_epoch, train_batches, train_steps
from .split import Split, Subset

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
