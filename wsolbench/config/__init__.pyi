from .compose import expand
from .saved import from_yaml, repeat, to_yaml
from .schema import (
    Budget,
    DataConfig,
    Dtype,
    EvaluateConfig,
    OnBadImage,
    Optimizer,
    ProtocolConfig,
    RunConfig,
    Schedule,
    SearchConfig,
    TrainConfig,
)

__all__ = [
    "Budget",
    "DataConfig",
    "Dtype",
    "EvaluateConfig",
    "OnBadImage",
    "Optimizer",
    "ProtocolConfig",
    "RunConfig",
    "Schedule",
    "SearchConfig",
    "TrainConfig",
    "expand",
    "from_yaml",
    "repeat",
    "to_yaml",
]
