"""Many runs: one after another (`here`), in several processes (`with_joblib`), or as SLURM jobs (`with_slurm`).

The last two share how runs are sorted into groups (`plan`) and how a worker tells what became of them (`spool`).
"""

from __future__ import annotations

from collections.abc import Sequence

from wsolbench.config.schema import RunConfig
from wsolbench.launch.here import run_all
from wsolbench.launch.options import Here, Joblib, Launcher, Slurm
from wsolbench.runs.engine import Outcome
from wsolbench.system.progress import Reporter

__all__ = ["Here", "Joblib", "Outcome", "Slurm", "run_all", "run_by"]


def run_by(
    launcher: Launcher, configs: Sequence[RunConfig], *, rerun: bool = False, reporter: Reporter | None = None
) -> list[Outcome]:
    """`run_all` by the launcher that was asked for; what it needs is imported only then."""
    if isinstance(launcher, Joblib):
        from wsolbench.launch import with_joblib

        return with_joblib.run_all(launcher, configs, rerun=rerun, reporter=reporter)
    if isinstance(launcher, Slurm):
        from wsolbench.launch import with_slurm

        return with_slurm.run_all(launcher, configs, rerun=rerun, reporter=reporter)
    return run_all(configs, rerun=rerun, reporter=reporter)
