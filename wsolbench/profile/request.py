"""What is asked of a profile."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsolbench.config.schema import Dtype
from wsolbench.errors import UsageError
from wsolbench.method.numerics import Numerics
from wsolbench.profile.work import WORKS, check_works


@dataclass(frozen=True)
class Request:
    """What is asked of a profile. Everything is measured under everything: dtypes x eager and compiled x layouts."""

    methods: Sequence[str]
    dataset: str = "badges"  # gives classes and image size where these are not given
    backbone: str | None = None  # name or comma list; None: the recipe's
    device: str = "auto"
    batch_sizes: Sequence[int] = (1, 16)
    dtypes: Sequence[str] = ("fp32",)
    compile: bool = False  # compiled beside eager
    channels_last: bool = False  # of CNNs, beside the usual layout
    works: Sequence[str] = WORKS
    image_size: int | None = None
    classes: int | None = None
    out: Path | None = None  # .csv or .json, both are written; None: results/profile/<device>.csv
    repeats: int = 200
    seconds: float = 3.0  # of timed calls per line, about; at least three are made
    memory: bool = True
    results: Path | None = None  # folder whose leaderboard is drawn against throughput; None: "results" if there is one
    command: str = ""

    def numerics(self) -> list[Numerics]:
        """Every combination asked for, the plainest first."""
        layouts = (False, True) if self.channels_last else (False,)
        modes = (False, True) if self.compile else (False,)
        named = [Dtype(name) for name in self.dtypes]
        return [Numerics(*each) for each in itertools.product(named, modes, layouts)]

    def check(self) -> None:
        """Raise `UsageError` where it cannot be meant."""
        check_works(self.works)
        if self.repeats < 1 or not self.batch_sizes or min(self.batch_sizes) < 1:
            raise UsageError("repeats and batch sizes must be at least 1")
        if not self.works or not self.dtypes:
            raise UsageError("there is nothing to measure: name kinds of work and number formats")
        for name, value in (("image size", self.image_size), ("number of classes", self.classes)):
            if value is not None and value < 1:
                raise UsageError(f"{name} {value} is impossible: give a number from 1")
