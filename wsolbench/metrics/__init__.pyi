from .accuracy import TopKAccuracy
from .localization import GTKnownLoc, TopKLoc
from .maxboxacc import MaxBoxAcc, MaxBoxAccV2
from .pxap import PIoU, PxAP
from .ranks import label_rank

__all__ = [
    "GTKnownLoc",
    "MaxBoxAcc",
    "MaxBoxAccV2",
    "PIoU",
    "PxAP",
    "TopKAccuracy",
    "TopKLoc",
    "label_rank",
]
