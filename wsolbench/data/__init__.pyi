from .batches import collate, empty_batch
from .dataset import Dataset, DatasetInfo, create_dataset
from .loading import eval_batches, steps_per_epoch, train_batches, train_steps
from .split import Images, Split, Subset

__all__ = [
    "Dataset",
    "DatasetInfo",
    "Images",
    "Split",
    "Subset",
    "collate",
    "create_dataset",
    "empty_batch",
    "eval_batches",
    "steps_per_epoch",
    "train_batches",
    "train_steps",
]
