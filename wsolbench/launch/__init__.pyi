from .here import run_all
from .options import Here, Joblib, Launcher, Slurm
from .start import run_by

__all__ = [
    "Here",
    "Joblib",
    "Launcher",
    "Slurm",
    "run_all",
    "run_by",
]
