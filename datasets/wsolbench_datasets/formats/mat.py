"""MATLAB files of a data set's lists, read with SciPy; nothing in them is executed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsolbench.errors import WsolbenchError


class MatFile:
    """The variables of a .mat file (version 7 or older), asked for by name."""

    def __init__(self, path: Path) -> None:
        from scipy.io import loadmat  # here: only three data sets need it

        self.path = path
        try:
            self.variables: dict[str, Any] = loadmat(path, simplify_cells=True)
        except OSError as error:
            raise WsolbenchError(f"file '{path}' cannot be read: {error.strerror or error}") from error
        except (
            Exception
        ) as error:  # a damaged file raises whatever its bytes lead to: ValueError, TypeError, zlib.error ...
            raise WsolbenchError(f"file '{path}' is not a readable .mat file: {_line(error)}") from error

    def texts(self, name: str) -> list[str]:
        """A cell array of texts."""
        values = [str(value).strip() for value in np.atleast_1d(self._variable(name)).tolist()]
        if not values:
            raise WsolbenchError(f"'{self.path}': '{name}' is empty")
        return values

    def integers(self, name: str) -> list[int]:
        """An array of whole numbers."""
        return [
            self._integer(value, f"entry {number} of '{name}'")
            for number, value in enumerate(np.ravel(self._variable(name)).tolist(), 1)
        ]

    def records(self, name: str, texts: Sequence[str] = (), integers: Sequence[str] = ()) -> list[dict[str, Any]]:
        """A struct array as one dictionary per record, with these fields as text or whole number."""
        found = self._variable(name)
        rows = [found] if isinstance(found, dict) else list(found) if isinstance(found, list | np.ndarray) else []
        if not rows:
            raise WsolbenchError(f"'{self.path}': '{name}' is not a list of records")
        records = []
        for number, row in enumerate(rows, 1):
            where = f"record {number} of '{name}'"
            missing = next(
                (field for field in (*texts, *integers) if not isinstance(row, dict) or field not in row), None
            )
            if missing is not None:
                raise WsolbenchError(f"'{self.path}' {where} has no field '{missing}'")
            values: dict[str, Any] = {field: self._integer(row[field], f"{where}, {field}") for field in integers}
            records.append(values | {field: str(row[field]).strip() for field in texts})
        return records

    def refuse(self, number: int, name: str, value: object, expected: str) -> WsolbenchError:
        """The error about a record, counted from 1: file, number, what stands there and what was expected."""
        return WsolbenchError(f"'{self.path}' record {number} of '{name}': {value}, expected {expected}")

    def _integer(self, value: Any, where: str) -> int:
        number = np.asarray(value)
        if number.size != 1 or number.dtype.kind not in "iuf" or not np.isfinite(number) or number != np.floor(number):
            raise WsolbenchError(f"'{self.path}' {where}: {_line(value)}, expected a whole number")
        return int(number.item())

    def _variable(self, name: str) -> Any:
        if name not in self.variables:
            names = ", ".join(key for key in self.variables if not key.startswith("__")) or "nothing"
            raise WsolbenchError(f"'{self.path}' has no '{name}'; it holds {names}")
        return self.variables[name]


def _line(value: object) -> str:
    return " ".join(str(value).split())[:120] or type(value).__name__
