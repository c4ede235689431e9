from .device import context
from .one_method import measure
from .profiling import profile
from .request import Request
from .rows import Measurement
from .work import LOCALIZE

__all__ = [
    "LOCALIZE",
    "Measurement",
    "Request",
    "context",
    "measure",
    "profile",
]
