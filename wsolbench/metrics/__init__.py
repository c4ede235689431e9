"""Localisation metrics as `torchmetrics.Metric` classes; `functional` and `wsolbench.evaluation.levels` need numpy only.

The classes are imported when they are first asked for: torchmetrics takes seconds, which listing names must not pay.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
