"""Localisation metrics as `torchmetrics.Metric` classes; `functional` and `wsolbench.levels` need numpy only.

The classes are imported when they are first asked for: torchmetrics takes seconds, which listing names must not pay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsolbench.metrics.accuracy import TopKAccuracy
    from wsolbench.metrics.localization import GTKnownLoc, TopKLoc
    from wsolbench.metrics.maxboxacc import MaxBoxAcc, MaxBoxAccV2
    from wsolbench.metrics.pxap import PIoU, PxAP
    from wsolbench.metrics.ranks import label_rank

__all__ = ["GTKnownLoc", "MaxBoxAcc", "MaxBoxAccV2", "PIoU", "PxAP", "TopKAccuracy", "TopKLoc", "label_rank"]

if not TYPE_CHECKING:  # hidden, so that type checkers still see a misspelt name

    def __getattr__(name):
        from importlib import import_module

        homes = {
            "GTKnownLoc": "localization",
            "MaxBoxAcc": "maxboxacc",
            "MaxBoxAccV2": "maxboxacc",
            "PIoU": "pxap",
            "PxAP": "pxap",
            "TopKAccuracy": "accuracy",
            "TopKLoc": "localization",
            "label_rank": "ranks",
        }
        if name not in homes:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{homes[name]}"), name)
        return value

    def __dir__():
        return sorted({*globals(), *__all__})
