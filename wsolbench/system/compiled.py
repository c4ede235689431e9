"""Functions compiled by numba, once per installation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba


def compiled(function: Function) -> Function:
    """Compile without the interpreter lock, and keep the result on disk where there is a folder to keep it in."""
    try:
        return cast(Function, numba.njit(nogil=True, cache=True)(function))
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return cast(Function, numba.njit(nogil=True)(function))


Function = TypeVar("Function", bound=Callable[..., Any])
