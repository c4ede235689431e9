"""Many runs: one after another (`here`), in several processes (`with_joblib`), or as SLURM jobs (`with_slurm`).

The last two share how runs are sorted into groups (`plan`) and how a worker tells what became of them (`spool`).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
