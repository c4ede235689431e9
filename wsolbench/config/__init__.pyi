from .compose import expand, repeat
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
    from_yaml,
    to_yaml,
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
