from .groups import find_records, load_records, render, summarise, write_results

__all__ = [
    "find_records",
    "load_records",
    "render",
    "summarise",
    "write_results",
]
