"""What a leaderboard consists of: columns, values over seeds, rows of methods, and groups of rows that may be compared."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from wsolbench.record import Cell, RunRecord

ANY_BACKBONE = "any backbone"
NO_BACKBONE = "-"  # what a record of a method without a network says

METRICS = (
    "Top-1 Cls", "Top-5 Cls", "GT-known", "Top-1 Loc", "Top-5 Loc", "MaxBoxAcc",
    "MaxBoxAccV2@.3", "MaxBoxAccV2@.5", "MaxBoxAccV2@.7", "MaxBoxAccV2", "PxAP",
)  # fmt: skip
"""Order of columns; metrics not named here follow, in order of appearance."""

DESCRIPTIONS = ("BoxAcc plateau", "BoxAcc area")
"""Metrics that describe a curve: a method that is equally wrong at every threshold has the widest plateau, so a high one
is no merit by itself. They neither order rows nor are marked."""


@dataclass(frozen=True)
class Column:
    """One metric as chosen by one selector; `oracle`: test boxes chose its threshold."""

    title: str
    metric: str
    oracle: bool
    convention: str = "reference"  # whose evaluator is emulated

    @classmethod
    def of(cls, cell: Cell) -> Column:
        """The column a cell stands in."""
        return cls(cell.column, cell.metric, cell.oracle, cell.convention)

    @property
    def foreign(self) -> bool:
        """Scored as another code base would: stands behind the reference's numbers and never leads a table."""
        return self.convention != "reference"


@dataclass(frozen=True)
class Stat:
    """Mean over seeds in the unit of the record (fractions, seconds).

    `std` is the sample standard deviation over seeds (n > 1); `low` and `high` are the 95 % bootstrap interval over
    images of a single run (n = 1).
    """

    mean: float
    n: int
    std: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def half_width(self) -> float | None:
        """Half of the 95 % t-interval of the mean over seeds (Student 1908): t(.975, n - 1) * std / sqrt(n).

        It is wider than `std` below 7 seeds, 2.5 times as wide for 3. The seeds are taken for a sample of all seeds;
        the test images for the only ones there are.

        >>> round(Stat(0.5, 3, std=0.01).half_width, 4)
        0.0248
        """
        if self.std is None:
            return None
        from scipy import stats  # takes half a second

        return float(stats.t.ppf(0.975, self.n - 1)) * self.std / math.sqrt(self.n)


@dataclass(frozen=True)
class Row:
    """One method in one configuration, over its seeds."""

    method: str
    variant: str  # what tells it from the other rows of the method, "" where nothing does
    backbone: str
    seeds: tuple[int, ...]
    deterministic: bool  # nothing is trained and no seed moved a number: shown as one run
    test_selected: bool
    values: dict[Column, Stat]
    cost: dict[str, Stat]
    records: tuple[RunRecord, ...] = field(repr=False)
    reference: bool = False  # repeated from the group "any backbone"; never carries a mark
    best: frozenset[Column] = frozenset()
    second: frozenset[Column] = frozenset()
    tied: frozenset[Column] = frozenset()
    """Tested, and not told from a best one: see `wsolbench.leaderboard.comparison`."""

    @property
    def label(self) -> str:
        """Method and variant in one text."""
        return f"{self.method} ({self.variant})" if self.variant else self.method


@dataclass(frozen=True)
class Group:
    """Rows that may be compared: same data, backbone and protocol."""

    dataset: str
    data: str  # fingerprint of the data, "" where the records have none
    backbone: str
    protocol: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What the rows have in common."""
        return f"{self.dataset} | {self.backbone} | {self.protocol}"

    @property
    def own_rows(self) -> tuple[Row, ...]:
        """Rows without those repeated from "any backbone"."""
        return tuple(row for row in self.rows if not row.reference)


def columns_of(rows: Sequence[Row]) -> tuple[Column, ...]:
    """Columns of some rows, in the order they are shown in."""
    found = list(dict.fromkeys(column for row in rows for column in row.values))
    metrics = [*METRICS, *dict.fromkeys(column.metric for column in found if column.metric not in METRICS)]

    def place(column: Column) -> tuple[Any, ...]:
        return column.foreign, column.convention, metrics.index(column.metric), column.oracle, column.title

    return tuple(sorted(found, key=place))


def leading(columns: Iterable[Column]) -> Column | None:
    """The column rows are ordered by: the first localisation metric, one without test boxes where there is one."""
    return min(
        (column for column in columns if not column.metric.endswith("Cls") and column.metric not in DESCRIPTIONS),
        key=lambda column: (
            column.foreign,
            column.oracle,
            METRICS.index(column.metric) if column.metric in METRICS else len(METRICS),
        ),
        default=None,
    )


def order_rows(rows: Sequence[Row]) -> list[Row]:
    """Rows by the leading column, the highest mean first."""
    column = leading(columns_of(rows))
    worst = Stat(-1.0, 0)
    return sorted(rows, key=lambda row: (-(row.values.get(column, worst) if column else worst).mean, row.label))
