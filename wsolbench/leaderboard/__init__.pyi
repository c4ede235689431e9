from .groups import summarise
from .records import find_records, load_records
from .view import render, write_results

__all__ = [
    "find_records",
    "load_records",
    "render",
    "summarise",
    "write_results",
]
