"""A val split for data sets that come without one: images held out of train, drawn by seed, the same on every machine."""
# n images

from __future__ import annotations

from dataclasses import dataclass

from wsolbench.data.draws import first_of_each_class, images_by_class
from wsolbench.data.metadata import Metadata
from wsolbench.errors import UsageError


@dataclass(frozen=True)
class HoldOut:
    """How many images of each class leave train: a whole number of them, or below 1 a share of the class."""

    amount: float
    seed: int

    def __post_init__(self) -> None:
        if not (0 < self.amount < 1 or (self.amount >= 1 and self.amount == int(self.amount))):
            raise UsageError(
                f"dataset.holdout={self.amount:g}: expected a whole number of images per class, or a share between 0 and 1"
            )

    def __str__(self) -> str:
        amount = f"{self.amount:.0f} images per class" if self.amount >= 1 else f"{self.amount:g} of each class"
        return f"hold-out of {amount} from train (seed {self.seed})"

    def of(self, images: int) -> int:
        """How many images of a class of `images` are held out.

        >>> HoldOut(5, 0).of(100), HoldOut(0.1, 0).of(44), HoldOut(0.01, 0).of(44)
        (5, 4, 1)
        """
        return int(self.amount) if self.amount >= 1 else max(1, round(self.amount * images))

    def draw(self, lists: Metadata, revision: str) -> tuple[list[int], list[int]]:
        """Indices that stay in train, in their order, and those held out, in the order of ids.

        As in few-shot draws, each class has one order of its images, given by (revision of the data, seed, class, id) alone,
        of which the first are taken: the order of files on a disk or of lines in a list cannot matter.

        Raises:
            UsageError: a class would have no image left to train on.
        """
        by_class = images_by_class(lists.labels)
        for label, images in by_class.items():
            if (count := self.of(len(images))) >= len(images):
                raise UsageError(
                    f"dataset.holdout={self.amount:g} takes {count} images of every class out of train, but class {label} has "
                    f"only {len(images)}; ask for less"
                )
        drawn = first_of_each_class(lists.ids, by_class, self.of, revision=revision, seed=self.seed, what="hold-out")
        held = set(drawn)
        return [i for i in range(len(lists)) if i not in held], drawn
