from .base import (
    Method,
    NoConfig,
    PostHoc,
    Training,
    Untrained,
    classifier_groups,
    classifier_layout,
    create_method,
    decay_groups,
    evaluating,
    true_or_predicted,
)
from .checkpoint import Layout, State, prefixed
from .precision import no_autocast, wide

__all__ = [
    "Layout",
    "Method",
    "NoConfig",
    "PostHoc",
    "State",
    "Training",
    "Untrained",
    "classifier_groups",
    "classifier_layout",
    "create_method",
    "decay_groups",
    "evaluating",
    "no_autocast",
    "prefixed",
    "true_or_predicted",
    "wide",
]
