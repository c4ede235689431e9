from .gallery import Options
from .write import read_runs, write_report

__all__ = [
    "Options",
    "read_runs",
    "write_report",
]
